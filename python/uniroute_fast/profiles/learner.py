"""What a router learns: profiles from outcomes, refined as more of them arrive.

A learner holds what the native router does not: the profiler, the records that profiles are made
from, and a few typical prompts. It changes these and the router's pool together, under one lock.
Prompts are embedded before the lock is taken: an embedder may be behind a network, and others go on
meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import GREATEST_WEIGHT, as_array, as_losses, as_weights
from uniroute_fast._checks.extras import importing
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.locks import Lock
from uniroute_fast._checks.prompts import as_list, as_prompts
from uniroute_fast._checks.scalars import as_count, as_number, as_string, shown
from uniroute_fast._checks.sequences import as_names
from uniroute_fast.clusters.examples import Examples
from uniroute_fast.errors import (
    ArtifactError,
    InvalidArgumentError,
    UnknownModelError,
    UnroutableError,
)
from uniroute_fast.profiles.known_prompts import embedded
from uniroute_fast.profiles.label_noise import without_flips
from uniroute_fast.profiles.profilers_in_files import profiler_from_parts
from uniroute_fast.profiles.records import Records
from uniroute_fast.profiles.updates import checked, refined

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import Prompts, Router, Snapshot
    from uniroute_fast.profiles.evidence import Evidence
    from uniroute_fast.profiles.probes import Probes
    from uniroute_fast.profiles.profilers import Profiler

T = TypeVar("T")

#: What the names of the records' tensors start with in a file.
RECORDS = "records."


class Learns(Protocol):
    """A router that learns: `uniroute_fast.Router`, for the rooms that come before it."""

    @property
    def learner(self) -> Learner:
        """What it learns with."""

    def snapshot(self) -> Snapshot:
        """Return what is current."""


class Charges(Protocol):
    """What LLMs are charged by: `uniroute_fast.costs.token_log.TokenLog`."""

    def checked(self, names: Sequence[str], rows: int) -> Charges:
        """Return the same as arrays, of these LLMs on `rows` prompts."""

    @property
    def prices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Prices of input and output."""

    def usage(self, prompts: Prompts, usable: NDArray[np.bool_]) -> Any:
        """Learn what the LLMs use."""

    def mean_costs(
        self, usage: Any, prompts: Prompts, usable: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """Return what calls cost on average."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Outcomes of LLMs on labelled prompts, checked.

    Attributes
    ----------
    names : list of str, M of them
    texts, embeddings
        The N prompts: exactly one of the two.
    losses : float64[N, M]
    weights : float64[N]
    flip_rate : float
    """

    names: list[str]
    texts: Any
    embeddings: NDArray[Any] | None
    losses: NDArray[np.float64]
    weights: NDArray[np.float64]
    flip_rate: float

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        texts: Any,
        losses: ArrayLike | None,
        embeddings: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        flip_rate: float = 0.0,
    ) -> Labels:
        """Check what `Router.add_models` was given."""
        names = as_names(names)
        if losses is None:
            raise InvalidArgumentError("losses: missing; expected float[n_val, len(names)]")
        texts, embeddings, rows = as_prompts(texts, embeddings)
        outcomes = as_losses("losses", losses, rows)
        if outcomes.shape[1] != len(names):
            raise InvalidArgumentError(
                f"losses: {outcomes.shape[1]} columns; expected one for each of the "
                f"{len(names)} names"
            )
        counts = as_weights("weights", weights, rows)
        if not counts.any():
            raise InvalidArgumentError("weights: all 0; expected at least one above 0")
        return cls(names, texts, embeddings, outcomes, counts, flip_rate)

    def evidence(self, profiler: Profiler, prompts: Prompts) -> tuple[Evidence, NDArray[np.bool_]]:
        """Return what the outcomes tell of each LLM, and which of the prompts tell it, bool[N].

        Raises
        ------
        InvalidArgumentError
            An LLM without an outcome on any of these.
        """
        phi = prompts.phi
        usable = np.asarray(phi.any(axis=1) & (self.weights > 0))
        outcomes = self.losses[usable]
        never = np.flatnonzero(np.isnan(outcomes).all(axis=0))
        if len(never):
            raise InvalidArgumentError(
                f"losses: {self.names[never[0]]!r} (column {never[0]}) has no outcome on a prompt "
                "that can be embedded; expected at least one for each LLM"
            )
        keys = None if prompts.keys is None else prompts.keys[usable]
        found = profiler.observe(phi[usable], outcomes, self.weights[usable], keys=keys)
        return without_flips(found, self.flip_rate, discount=not profiler.joint), usable


class Learner:
    """What one router has learned.

    Its methods take that router, whose pool they change together with what is kept here; they are
    explained where `Router` has the method of the same name.

    Attributes
    ----------
    profiler : Profiler or None
        None where the router was made without fitting.
    examples : Examples or None
        What the prompts of each cluster are like; None where there is no profiler.
    fitted_on : tuple
        Texts, or embeddings, that it was fitted on in this process.
    records : Records
    lock : Lock
        Held by whoever changes the records and the pool together.
    """

    def __init__(
        self,
        profiler: Profiler | None = None,
        examples: Examples | None = None,
        fitted_on: tuple[Any, NDArray[np.float32] | None] = (None, None),
    ) -> None:
        self.profiler, self.examples, self.fitted_on = profiler, examples, fitted_on
        self.records = Records()
        self.lock = Lock()
        self._errors = (-1, np.zeros((0, 0), np.float32))
        # How often another router took this one's place, with its embedder and cluster map.
        self._replaced = 0

    def fitted(self) -> Profiler:
        """Return the profiler, or raise `InvalidArgumentError` where there is none."""
        if self.profiler is None:
            raise InvalidArgumentError(
                "router: made without fitting, so it cannot profile; expected one from "
                "`Router.fit`, or `insert` with profiles of your own"
            )
        return self.profiler

    def replace(self, router: Router, other: Router, learner: Learner) -> None:
        """Put another router and its learner in place of this one's, at once."""
        # In one order, whoever replaces whom at the same time.
        first, second = sorted((self, learner), key=id)
        with first.lock, second.lock:
            router.swap_in(other)
            self.profiler, self.examples = learner.profiler, learner.examples
            self.fitted_on = learner.fitted_on
            self.records = learner.records.copy()
            self._replaced += 1

    @contextmanager
    def forgetting(self, names: Sequence[str]) -> Iterator[None]:
        """Within this the LLMs are changed by hand: what is recorded of them is dropped after."""
        with self.lock:
            yield
            self.records.remove(names)

    def _embedded(
        self,
        router: Router,
        texts: Any,
        embeddings: NDArray[Any] | None,
        then: Callable[[Prompts], T],
    ) -> T:
        """Embed prompts, without the lock, and under it do what is to be done with them.

        Where another router took this one's place meanwhile, they are embedded again, by that one.
        """
        while True:
            with self.lock:
                replaced, snapshot = self._replaced, router.snapshot()
            prompts = embedded(snapshot, texts, embeddings)
            with self.lock:
                if replaced == self._replaced:
                    return then(prompts)

    def profile(self, router: Router, labels: Labels) -> NDArray[np.float32]:
        """Return the profiles that LLMs of these outcomes would get, float32[K, M]."""

        def made(prompts: Prompts) -> NDArray[np.float32]:
            profiler = self.fitted()
            return profiler.profile(labels.evidence(profiler, prompts)[0]).psi

        return self._embedded(router, labels.texts, labels.embeddings, made)

    def add_models(
        self,
        router: Router,
        labels: Labels,
        costs: ArrayLike | None,
        charges: Charges,
        metadata: Sequence[dict[str, Any] | None] | None,
        enabled: bool,
    ) -> None:
        """Profile LLMs by labelled prompts and add them, as one new version."""
        names = labels.names
        log = charges.checked(names, len(labels.losses))

        def add(prompts: Prompts) -> None:
            profiler = self.fitted()
            evidence, usable = labels.evidence(profiler, prompts)
            usage = log.usage(prompts, usable)
            spent = log.mean_costs(usage, prompts, usable) if costs is None else costs
            if spent is None:
                raise InvalidArgumentError(
                    "costs: None; expected a cost for each LLM, or prices and tokens that tell it: "
                    "input_prices, output_prices, output_tokens, and texts or tokens"
                )
            profiles = profiler.profile(evidence)
            router.insert(
                names,
                spent,
                profiles.psi,
                prices=log.prices,
                usage=None if usage is None else usage.parts(),
                metadata=metadata,
                enabled=enabled,
            )
            self.records.add(names, evidence, profiles)

        self.fitted()
        self._embedded(router, labels.texts, labels.embeddings, add)

    def add_model_from_preferences(
        self,
        router: Router,
        name: str,
        cost: float,
        opponents: Sequence[str] | str,
        wins: ArrayLike,
        texts: Any,
        embeddings: ArrayLike | None,
    ) -> NDArray[np.float32]:
        """Profile an LLM by how its answers were preferred to the pool's, and add it."""
        with importing:
            from uniroute_fast.profiles.preferences import (
                checked_preferences,
                profile_from_preferences,
            )

        [name] = as_names([name])
        cost = as_number("cost", cost, 0)
        self.fitted()
        texts, vectors, rows = as_prompts(texts, embeddings)
        checked_preferences(rows, opponents, wins, router.models)

        def add(prompts: Prompts) -> NDArray[np.float32]:
            phi, snapshot = prompts.phi, router.snapshot()
            index, won = checked_preferences(rows, opponents, wins, snapshot.models)
            usable = phi.any(axis=1)
            if not usable.any():
                raise InvalidArgumentError("texts: none can be embedded; expected at least one")
            profile, error = profile_from_preferences(
                phi[usable],
                len(self.fitted().map.sizes),
                snapshot.profiles,
                index[usable],
                won[usable],
            )
            router.insert([name], [cost], profile[:, None])
            return error

        return self._embedded(router, texts, vectors, add)

    def suggest_probes(
        self, router: Router, n: int, texts: Any, embeddings: ArrayLike | None, model: str | None
    ) -> Probes:
        """Name the candidates whose outcomes would tell the most of an LLM."""
        with importing:
            from uniroute_fast.profiles.probes import Probes, choose_probes

        self.fitted()
        if model is not None:
            model = as_string("model", model)
            check_in_pool(router, "model", [model])
            self.records.check([model])
        if texts is None and embeddings is None:
            texts, embeddings = self.fitted_on
            if texts is None and embeddings is None:
                raise InvalidArgumentError(
                    "texts: missing, and this router does not hold the prompts it was fitted on; "
                    "expected candidates"
                )
        texts, vectors, _ = as_prompts(texts, embeddings)

        def choose(prompts: Prompts) -> Probes:
            profiler, phi = self.fitted(), prompts.phi
            usable = np.flatnonzero(phi.any(axis=1))
            if not len(usable):
                raise InvalidArgumentError("texts: none can be embedded; expected at least one")
            count = as_count("n", n, 1, len(usable))
            known = None if model is None else self.records.evidence([model])
            features = profiler.features(phi, prompts.keys)[usable]
            chosen, errors = choose_probes(profiler, features, count, known)
            indices = usable[chosen]
            if texts is None or isinstance(texts, _native.Prompts):
                return Probes(indices, None, errors)
            listed = as_list(texts)
            return Probes(indices, [str(listed[i]) for i in indices], errors)

        return self._embedded(router, texts, vectors, choose)

    def observe(
        self,
        router: Router,
        prompt: Any,
        model: str,
        loss: float,
        weight: float,
        embeddings: ArrayLike | None,
        half_life: float | None,
    ) -> None:
        """Refine one LLM's profile by one outcome."""
        as_instance("model", model, str, "the name of an LLM")
        model = as_string("model", model)
        check_in_pool(router, "model", [model])
        if isinstance(prompt, (int, np.integer)):
            prompt = as_count("prompt", prompt, 0, router.n_clusters - 1)
        elif prompt is not None:
            kinds = (str, _native.Prompts)
            as_instance("prompt", prompt, kinds, "a text, a cluster's index, or Prompts of one")
        flag = isinstance(loss, (bool, np.bool_))  # Wrong or not: a loss, too.
        loss = as_number("loss", int(loss) if flag else loss, 0, 1)
        weight = as_number("weight", weight, 0, GREATEST_WEIGHT, above=True)
        if (prompt is None) == (embeddings is None):
            raise InvalidArgumentError("prompt, embeddings: expected exactly one of them")
        one = None if embeddings is None else np.atleast_2d(as_array("embeddings", embeddings))
        if one is not None and len(one) != 1:
            raise InvalidArgumentError(f"embeddings: shape {one.shape}; expected (D,) or (1, D)")
        given = [prompt] if isinstance(prompt, (int, str)) else prompt
        if given is not None and len(given) != 1:
            raise InvalidArgumentError(f"prompt: {len(given)} prompts; expected one")
        used = self.observe_many(router, given, [model], [loss], [weight], one, half_life)
        if not used[0]:
            raise UnroutableError("prompt: it cannot be embedded; expected text that can")

    def observe_many(
        self,
        router: Router,
        prompts: Any,
        models: str | Sequence[str],
        losses: ArrayLike,
        weights: ArrayLike | None,
        embeddings: ArrayLike | None,
        half_life: float | None,
    ) -> NDArray[np.bool_]:
        """Refine profiles by outcomes, as one new version; return which of them were used."""
        prompts, vectors, n = as_prompts(prompts, embeddings, "prompts", least=0)
        names, loss, weight = checked(models, losses, weights, half_life, n)
        if n == 0:
            return np.zeros(0, bool)
        distinct = dict.fromkeys(names)

        def learn(phi: NDArray[np.float32], keys: NDArray[np.uint64] | None) -> NDArray[np.bool_]:
            profiler = self.fitted()
            check_in_pool(router, "models", distinct)
            self.records.check(distinct)
            used = np.asarray(phi.any(axis=1))
            if not used.any():
                return used
            features = profiler.features(phi[used], None if keys is None else keys[used])
            kept = [name for name, ok in zip(names, used, strict=True) if ok]
            tallies = refined(
                profiler, self.records, features, kept, loss[used], weight[used], half_life
            )
            records = self.records.with_tallies(tallies)
            affected, profiles = records.profiles(profiler, list(tallies))
            # The native method: the router's own would drop the records.
            _native.Router.set_profiles(router, affected, profiles.psi)
            records.note(affected, profiles)
            self.records = records
            return used

        # Before anything is embedded, and again when it has been: the pool may change meanwhile.
        self.fitted()
        check_in_pool(router, "models", distinct)
        self.records.check(distinct)
        if prompts is None or not _are_clusters(prompts):
            return self._embedded(router, prompts, vectors, lambda all: learn(all.phi, all.keys))
        with self.lock:
            return learn(self._phi_of_clusters(prompts), None)

    def _phi_of_clusters(self, clusters: Any) -> NDArray[np.float32]:
        """Return mean cluster weights of prompts of which the cluster alone is known."""
        sizes = self.fitted().map.sizes
        index = [as_count("prompts", k, 0, sizes[0] - 1) for k in clusters]
        assert self.examples is not None  # Where there is a profiler.
        return self.examples.phi[index]

    def with_errors(self, router: Learns) -> tuple[Snapshot, NDArray[np.float32]]:
        """Return the current snapshot and the standard errors of its profiles, float32[K, M]."""
        with self.lock:
            profiler, snapshot = self.fitted(), router.snapshot()
            version, errors = self._errors
            if version != snapshot.version:
                errors = self.records.standard_errors(profiler, snapshot.models)
                errors.setflags(write=False)
                self._errors = (snapshot.version, errors)
            return snapshot, errors

    def fit_tokens(
        self,
        router: Router,
        names: Sequence[str] | None,
        texts: Any,
        embeddings: ArrayLike | None,
        charges: Charges,
    ) -> None:
        """Learn from a log what tokens LLMs of the pool use."""
        names = router.models if names is None else as_names(names)
        texts, vectors, rows = as_prompts(texts, embeddings, least=0)
        log = charges.checked(names, rows)

        def learn(prompts: Prompts) -> None:
            usage = log.usage(prompts, np.asarray(prompts.phi.any(axis=1)))
            if usage is None:
                raise InvalidArgumentError("output_tokens: missing; expected float[N, len(names)]")
            router.set_usage(names, *usage.parts())

        self._embedded(router, texts, vectors, learn)

    def to_parts(self, models: Sequence[str], *, records: bool) -> tuple[str, dict[str, Any]]:
        """Return JSON and tensors for `restore`, with the records of these LLMs or without."""
        if self.profiler is None or self.examples is None:
            return "null", {}
        tensors, params = self.profiler.to_parts()
        tensors["examples.phi"] = self.examples.phi
        extra = {"profiler": params, "examples": self.examples.prompts}
        if records:
            recorded = self.records.to_arrays(models)
            tensors |= {RECORDS + name: array for name, array in recorded.items()}
        return json.dumps(extra), tensors

    def restore(self, router: Router, loaded: _native.Loaded) -> None:
        """Take what `to_parts` put into the file that the router was read from.

        Raises
        ------
        ArtifactError
            It is not understood, or not of this router's cluster map and pool.
        """
        extra = json.loads(loaded.json)
        if extra is None:
            return
        tensors = loaded.tensors
        recorded = {
            name.removeprefix(RECORDS): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(RECORDS)
        }
        self.records = Records.from_arrays(recorded, router.models)
        try:
            self.profiler = profiler_from_parts(loaded.cluster_map, tensors, extra["profiler"])
            examples = extra["examples"], tensors["examples.phi"]
            self.examples = Examples.from_parts(*examples, self.profiler.map.sizes)
            if recorded:
                _check_records(self.profiler, recorded)
        except ArtifactError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"artifact: its profiler is not understood ({type(error).__name__}: {shown(error)})"
            ) from error


def check_in_pool(router: Router, argument: str, names: Iterable[str]) -> None:
    """Raise `UnknownModelError`, which names the argument, for the first not in the pool."""
    for name in names:
        try:
            router.info(name)
        except UnknownModelError:
            shown_name = json.dumps(name, ensure_ascii=False)
            raise UnknownModelError(
                f"{argument}: no model named {shown_name} in the pool; expected one of "
                "`router.models`"
            ) from None


def _are_clusters(prompts: Any) -> bool:
    """Tell whether prompts are clusters' indices and not texts, by the first of them."""
    if isinstance(prompts, _native.Prompts):
        return False
    return isinstance(next(iter(prompts)), (int, np.integer))


def _check_records(profiler: Profiler, recorded: dict[str, NDArray[Any]]) -> None:
    """Raise unless records are ones that profiles of this profiler can be made from."""
    known = profiler.map.n_clusters
    features = profiler.features(np.zeros((0, known), np.float32)).shape[1]
    if len(recorded["phi"]) != features:
        raise ArtifactError(
            f"artifact: records of {len(recorded['phi'])} features, its profiler has {features}"
        )
    if not profiler.joint and not recorded["gram"].size and len(recorded["model"]):
        raise ArtifactError("artifact: records without the products that its profiler needs")
    # Weights of a prompt's clusters are 0 to 1, and each head's add up to 1.
    phi, rows = recorded["phi"][:known], recorded["rows"][:, :known]
    starts = np.cumsum([0, *profiler.map.sizes[:-1]])
    sums, count = np.add.reduceat(phi, starts), recorded["count"]
    if (phi < 0).any() or (np.abs(sums - count) > 1e-2 * count).any():
        raise ArtifactError("artifact: records whose clusters do not add up to their outcomes")
    if ((rows < 0) | (rows > 1 + 1e-3)).any():
        raise ArtifactError("artifact: records with a cluster weight that is not 0 to 1")
