"""The router: fitted once, LLMs join and leave, prompts are routed in microseconds."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import (
    GREATEST_WEIGHT,
    as_array,
    as_losses,
    as_numbers,
    as_weights,
)
from uniroute_fast._checks.extras import importing
from uniroute_fast._checks.instances import as_embedder, as_instance
from uniroute_fast._checks.locks import Lock
from uniroute_fast._checks.scalars import as_count, as_number, as_path, as_string, shown
from uniroute_fast._checks.sequences import as_names, as_sequence
from uniroute_fast.clusters.examples import MOST_PROMPTS, Typical
from uniroute_fast.costs.tokens import Usage, as_prices, as_tokens, estimate_tokens, fit_usage
from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.errors import (
    ArtifactError,
    InvalidArgumentError,
    UnknownModelError,
    UnroutableError,
)
from uniroute_fast.profiles.known_prompts import prompt_keys
from uniroute_fast.profiles.label_noise import without_flips
from uniroute_fast.profiles.outcomes import Outcomes
from uniroute_fast.profiles.profilers_in_files import profiler_from_parts
from uniroute_fast.profiles.records import Records
from uniroute_fast.profiles.updates import checked, refined

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from uniroute_fast._native import Constraints
    from uniroute_fast.costs.calibration import Calibration
    from uniroute_fast.decisions.explain import Explanation
    from uniroute_fast.embedding.embedder import Embedder
    from uniroute_fast.profiles.probes import Probes
    from uniroute_fast.profiles.profilers import Profiler


#: Largest magnitude in the embeddings that a router is fitted on.
LARGEST_FITTED = 1e15

#: What the names of the records' tensors start with in a file.
RECORDS = "records."


class Router(_native.Router):
    """Decides which LLM answers a prompt.

    `Router.fit` makes one from prompts, `Router.load` from a file. LLMs join with `add_models`
    after one profiling pass, without retraining. `route` and `route_batch` choose, for each
    prompt, the LLM with the least ``predicted loss + cost_weight * cost``; ties go to the lower
    cost, then to the lower index.

    Routing reads an immutable snapshot of the pool: threads may route while others change it, and
    a decision is always one of a pool that existed.

    Examples
    --------
    >>> import uniroute_fast as uf
    >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    >>> router = uf.Router.fit(texts, n_clusters=4)
    >>> good_at_sums = [[0.0], [0.0], [1.0], [1.0]] * 10
    >>> router.add_model("calculator", cost=1.0, texts=texts, losses=good_at_sums)
    >>> router.add_model("atlas", cost=1.0, texts=texts, losses=1 - np.array(good_at_sums))
    >>> router.route("5 * 3").model
    'calculator'
    >>> router.route_batch(["name a lake", "2 + 3"]).models
    ['atlas', 'calculator']

    References
    ----------
    "Universal Model Routing for Efficient LLM Inference", https://arxiv.org/abs/2502.08773
    """

    _profiler: Profiler | None = None
    _typical: Typical | None = None
    _fitted_on: tuple[Sequence[str] | None, NDArray[np.float32] | None] = (None, None)
    _records: Records
    _errors: tuple[int, NDArray[np.float32]]
    _lock: Lock

    def __new__(cls, embedder: Any, heads: Any) -> Self:
        """Make a router without LLMs; `fit` and `load` are the ways to call this."""
        router = super().__new__(cls, embedder, heads)
        router._records = Records()
        # Held by whoever changes the records and the pool together.
        router._lock = Lock()
        router._errors = (-1, np.zeros((0, 0), np.float32))
        return router

    @classmethod
    def fit(
        cls,
        texts: Sequence[str] | None = None,
        *,
        embedder: Embedder | None = None,
        n_clusters: int | None = None,
        seen: Outcomes | None = None,
        attributes: ArrayLike | None = None,
        seed: int = 0,
        embeddings: ArrayLike | None = None,
        typical_prompts: int = 3,
    ) -> Router:
        """Fit embedder and cluster map on unlabelled prompts.

        Parameters
        ----------
        texts : sequence of str, N of them
            Prompts like those to be routed; no labels are needed. Those that cannot be embedded
            (empty, say) are left out.
        embedder : Embedder, optional
            Any object with ``embed(texts) -> float32[N, D]``. Default: a `LexicalEmbedder` fitted
            on `texts`.
        n_clusters : int, optional
            1 to N. Default: chosen; where LLMs are seen, by routing these.
        seen : Outcomes, optional
            Losses of LLMs already evaluated on the same texts: they give the learned cluster map
            and the prior of later profiles.
        attributes : bool or float[N, A], optional
            What you know of each prompt, in [0, 1]: topics, needed skills. Prompts are then
            clustered by these in place of their embeddings, and a prompt's cluster is predicted
            from its embedding (the paper's map of prompt attributes).
        seed : int
            Same seed and input, same router.
        embeddings : float32[N, D], optional
            In place of `texts`, where text is embedded elsewhere: such a router takes embeddings
            everywhere.
        typical_prompts : int
            How many prompts of each cluster are kept, 160 characters of each, for `explain`; they
            are saved with the router. 0 keeps none, where prompts are private.

        Returns
        -------
        Router
            Its pool is empty: continue with `add_models`.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            No prompts, more clusters than prompts, losses of another shape.
        MissingExtraError
            The extra ``fit`` is not installed.

        Notes
        -----
        O(N) for the embedder, O(N K D) an iteration for the clusters, O(N S K) an iteration for
        the learned map of S seen LLMs.
        """
        with importing:
            from uniroute_fast.clusters.attributes import checked_attributes
            from uniroute_fast.evaluate.deferral import area_of
            from uniroute_fast.profiles.fit import fit_profiler

        if seen is not None:
            as_instance("seen", seen, Outcomes, "uniroute_fast.Outcomes, or None")
        if (texts is None) == (embeddings is None):
            raise InvalidArgumentError("texts, embeddings: expected exactly one of them")
        seed = as_count("seed", seed, 0, 2**31 - 1)
        typical_prompts = as_count("typical_prompts", typical_prompts, 0, MOST_PROMPTS)
        if embeddings is None:
            texts = as_sequence("texts", texts)
            if len(texts) == 0:
                raise InvalidArgumentError("texts: no prompts; expected at least one")
            embedder = as_embedder(embedder)
            if embedder is None:
                embedder = LexicalEmbedder.fit(texts, seed=seed)
            x = np.asarray(embedder.embed(texts))
            if len(x) != len(texts):
                raise InvalidArgumentError(
                    f"embedder: {len(x)} vectors for {len(texts)} texts; expected one for each"
                )
        elif embedder is not None:
            raise InvalidArgumentError("embedder: given beside embeddings=; expected one of them")
        else:
            x = as_array("embeddings", embeddings)
        x = _as_embeddings("embeddings", x)
        if seen is not None and len(seen.losses) != len(x):
            raise InvalidArgumentError(
                f"seen.losses: {len(seen.losses)} rows; expected one for each of the {len(x)} texts"
            )
        known = None if attributes is None else checked_attributes(attributes, len(x))
        usable = np.any(x != 0, axis=1)
        if not usable.any():
            raise InvalidArgumentError("texts: none can be embedded; expected at least one")
        if n_clusters is not None:
            # Not more than there are prompts that can be embedded.
            n_clusters = as_count("n_clusters", n_clusters, 1, int(usable.sum()))
        losses, seen_costs = (None, None) if seen is None else (seen.losses[usable], seen.costs)
        if losses is not None and np.isnan(losses).all(axis=0).any():
            column = int(np.argmax(np.isnan(losses).all(axis=0)))
            raise InvalidArgumentError(
                f"seen.losses: column {column} has no outcome on a prompt that can be embedded; "
                "expected at least one for each LLM"
            )
        profiler = fit_profiler(
            x[usable],
            losses,
            seen_costs,
            keys=_keys(texts, x)[usable],
            n_clusters=n_clusters,
            attributes=None if known is None else known[usable],
            seed=seed,
            area=area_of,
        )
        router = cls(embedder, profiler.map.to_native())
        router._profiler = profiler
        router._fitted_on = (texts, None if texts is not None else x)
        listed = (
            None
            if texts is None
            else [t for t, ok in zip(_listed(texts), usable, strict=True) if ok]
        )
        router._typical = Typical.of(profiler.map, x[usable], listed, typical_prompts)
        if isinstance(embedder, LexicalEmbedder):
            router.measure_baseline(texts, leave_out=True)
        else:
            router.measure_baseline(embeddings=x[usable], leave_out=True)
        return router

    def add_models(
        self,
        names: Sequence[str],
        costs: ArrayLike | None,
        texts: Sequence[str] | None = None,
        losses: ArrayLike | None = None,
        *,
        embeddings: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        flip_rate: float = 0.0,
        input_prices: ArrayLike | None = None,
        output_prices: ArrayLike | None = None,
        output_tokens: ArrayLike | None = None,
        input_tokens: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
        enabled: bool = True,
    ) -> None:
        """Add LLMs to the pool, profiled in one pass over the same labelled prompts.

        Parameters
        ----------
        names : sequence of str
            New and distinct.
        costs : float64[M], or None
            Cost per prompt of each, finite, 0 or more, all in one unit. None for LLMs charged by
            the token: then it is their mean cost over these prompts.
        texts : sequence of str, n_val of them
            Prompts that the LLMs were run on. Those that cannot be embedded are left out.
        losses : float[n_val, M]
            In [0, 1], lower is better; NaN = not run.
        embeddings : float32[n_val, D], optional
            In place of `texts`.
        weights : float[n_val], optional
            How many outcomes each prompt counts for, 0 to 1e9. Default: 1 each.
        flip_rate : float
            Share of the labels that are known to be wrong, such as those of a judge, at random:
            0 or more, below 1/2. Profiles are corrected for them, and rest on less.
        input_prices, output_prices : float64[M], optional
            Prices of a million tokens of the prompt, and of the answer.
        output_tokens, input_tokens : float[n_val, M], optional
        tokens : int[n_val], optional
            What the LLMs used on these prompts: see `fit_tokens`. With prices and `output_tokens`
            they are charged by the token; the costs are then in the currency of the prices.
        metadata : sequence of M dicts or None, optional
            What else is known of each: fields of `set_metadata`.
        enabled : bool
            Whether they may be chosen. False adds them without any prompt going to them, until
            `enable_model`.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError, DuplicateModelError
            Names, costs or losses that cannot be used; an LLM without any outcome. The pool is
            unchanged then.

        Notes
        -----
        All of it is one new version: no prompt is routed by a part of it.
        O(n_val M K) and what a rebuild of the hulls takes, O(K M).
        """
        names = as_names(names)
        if (texts is None) == (embeddings is None):
            raise InvalidArgumentError("texts, embeddings: expected exactly one of them")
        if losses is None:
            raise InvalidArgumentError("losses: missing; expected float[n_val, len(names)]")
        if texts is not None:
            texts = as_sequence("texts", texts)
        elif embeddings is not None:
            embeddings = np.atleast_1d(as_array("embeddings", embeddings))
        rows = len(texts if texts is not None else np.asarray(embeddings))
        if rows == 0:
            given = "embeddings" if texts is None else "texts"
            raise InvalidArgumentError(f"{given}: no prompts; expected at least one")
        outcomes = as_losses("losses", losses, rows)
        if outcomes.shape[1] != len(names):
            raise InvalidArgumentError(
                f"losses: {outcomes.shape[1]} columns; expected one for each of the "
                f"{len(names)} names"
            )
        counts = as_weights("weights", weights, rows)
        if not counts.any():
            raise InvalidArgumentError("weights: all 0; expected at least one above 0")
        prices = _prices(input_prices, output_prices, len(names))
        if input_tokens is not None and output_tokens is None:
            raise InvalidArgumentError("output_tokens: missing; expected beside input_tokens")
        with self._lock:
            profiler = self._fitted()
            phi = self.phi(texts, embeddings=embeddings)
            usable = np.asarray(phi.any(axis=1) & (counts > 0))
            outcomes = outcomes[usable]
            never = np.flatnonzero(np.isnan(outcomes).all(axis=0))
            if len(never):
                raise InvalidArgumentError(
                    f"losses: {names[never[0]]!r} (column {never[0]}) has no outcome on a prompt "
                    "that can be embedded; expected at least one for each LLM"
                )
            usage = None
            if output_tokens is not None:
                lengths = _lengths(texts, tokens, rows)
                usage = _usage(phi, usable, names, output_tokens, input_tokens, lengths)
                if costs is None and prices is not None and lengths is not None:
                    costs = usage.cost(phi[usable], lengths[usable], *prices).mean(axis=0)
            if costs is None:
                raise InvalidArgumentError(
                    "costs: None; expected a cost for each LLM, or prices and tokens that tell it: "
                    "input_prices, output_prices, output_tokens, and texts or tokens"
                )
            keys = _keys(texts, embeddings)[usable]
            evidence = profiler.observe(phi[usable], outcomes, counts[usable], keys=keys)
            evidence = without_flips(evidence, flip_rate, discount=not profiler.joint)
            profiles = profiler.profile(evidence)
            used = None if usage is None else usage.parts()
            super().insert(
                names,
                costs,
                profiles.psi,
                prices=prices,
                usage=used,
                metadata=metadata,
                enabled=enabled,
            )
            self._records.add(names, evidence, profiles)

    def add_model(
        self,
        name: str,
        *,
        cost: float,
        texts: Sequence[str] | None = None,
        losses: ArrayLike | None = None,
        embeddings: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        flip_rate: float = 0.0,
        metadata: dict[str, Any] | None = None,
        enabled: bool = True,
    ) -> None:
        """Add one LLM to the pool: `add_models` for one.

        `losses` is float[n_val] or float[n_val, 1]; `metadata` is a dict.
        """
        column: NDArray[Any] | None = None
        if losses is not None:
            column = as_numbers("losses", losses, "real numbers in [0, 1], NaN = not run")
            if column.ndim != 1 and column.shape[1:] != (1,):
                raise InvalidArgumentError(
                    f"losses: shape {column.shape}; expected (n_val,) or (n_val, 1), for one LLM"
                )
            column = column.reshape(-1, 1)
        self.add_models(
            [name],
            [as_number("cost", cost, 0)],
            texts,
            column,
            embeddings=embeddings,
            weights=weights,
            flip_rate=flip_rate,
            metadata=[metadata],
            enabled=enabled,
        )

    def add_model_from_preferences(
        self,
        name: str,
        *,
        cost: float,
        opponents: Sequence[str] | str,
        wins: ArrayLike,
        texts: Sequence[str] | None = None,
        embeddings: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Add one LLM by how its answers were preferred to those of LLMs in the pool.

        Parameters
        ----------
        name : str
            New.
        cost : float
        opponents : sequence of str, n of them, or str
            The LLM of the pool that it was compared with on each prompt.
        wins : float[n]
            1 where its answer was preferred, 0 where the opponent's was, 0.5 for a tie.
        texts : sequence of str, n of them
            Those that cannot be embedded are left out.
        embeddings : float32[n, D], optional
            In place of `texts`.

        Returns
        -------
        float32[K]
            Standard errors of its predicted loss in each cluster.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError, DuplicateModelError
            Arguments that cannot be used. The pool is unchanged then.

        Notes
        -----
        A Bradley-Terry model in each cluster, with a prior from the pool: see
        `uniroute_fast.profiles.preferences`. O(n K² + K³) a step of Newton's method, a few steps.
        Outcomes cannot refine such a profile later.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["what is 2 + 2", "what is 3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> router.add_model("old", cost=1.0, texts=texts, losses=[0.5, 0.4, 0.5, 0.6] * 10)
        >>> wins = [1, 1, 0, 0] * 10
        >>> _ = router.add_model_from_preferences(
        ...     "sums", cost=1.0, opponents="old", wins=wins, texts=texts
        ... )
        >>> router.route_batch(["what is 4 + 9", "name a river"]).models
        ['sums', 'old']
        """
        with importing:
            from uniroute_fast.profiles.preferences import (
                checked_preferences,
                profile_from_preferences,
            )

        [name] = as_names([name])
        cost = as_number("cost", cost, 0)
        with self._lock:
            heads = len(self._fitted().map.heads)
            phi, _ = self._candidates(texts, embeddings)
            snapshot = self.snapshot()
            index, won = checked_preferences(len(phi), opponents, wins, snapshot.models)
            usable = phi.any(axis=1)
            if not usable.any():
                raise InvalidArgumentError("texts: none can be embedded; expected at least one")
            profile, error = profile_from_preferences(
                phi[usable], heads, snapshot.profiles, index[usable], won[usable]
            )
            self.insert([name], [cost], profile[:, None])
        return error

    def suggest_probes(
        self,
        n: int,
        texts: Sequence[str] | None = None,
        *,
        embeddings: ArrayLike | None = None,
        model: str | None = None,
    ) -> Probes:
        """Name the prompts whose outcomes would tell the most of an LLM.

        Parameters
        ----------
        n : int
            How many, 1 to the number of candidates that can be embedded.
        texts : sequence of str, optional
            Candidates; they also stand for the prompts to be routed. Default: the prompts that
            the router was fitted on, if it was fitted in this process: files do not keep them.
        embeddings : float32[N, D], optional
            In place of `texts`.
        model : str, optional
            An LLM of the pool to learn more of. Default: a new one.

        Returns
        -------
        Probes
            ``.indices`` and ``.texts``, the most telling first, and ``.standard_error``: what the
            error of the LLM's predicted loss would become.

        Raises
        ------
        UnknownModelError
            `model` is not in the pool.
        InvalidArgumentError, ArgumentTypeError
            No candidates, fewer than `n`, or an LLM of which nothing is recorded.

        Notes
        -----
        A greedy V-optimal design, see `uniroute_fast.profiles.probes`; O(n N F) for F features.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> probes = router.suggest_probes(2)
        >>> len(probes.texts), bool(probes.standard_error[2] < probes.standard_error[0])
        (2, True)
        """
        with importing:
            from uniroute_fast.profiles.probes import Probes, choose_probes

        profiler = self._fitted()
        if model is not None:
            model = as_string("model", model)
            self._check_in_pool("model", [model])
            self._records.check([model])
        if texts is None and embeddings is None:
            texts, embeddings = self._fitted_on
            if texts is None and embeddings is None:
                raise InvalidArgumentError(
                    "texts: missing, and this router does not hold the prompts it was fitted on; "
                    "expected candidates"
                )
        if texts is not None:
            texts = as_sequence("texts", texts)
        phi, keys = self._candidates(texts, embeddings)
        usable = np.flatnonzero(phi.any(axis=1))
        if not len(usable):
            raise InvalidArgumentError("texts: none can be embedded; expected at least one")
        n = as_count("n", n, 1, len(usable))
        known = None if model is None else self._records.evidence([model])
        features = profiler.features(phi, keys)[usable]
        chosen, errors = choose_probes(profiler, features, n, known)
        indices = usable[chosen]
        listed = [] if texts is None else _listed(texts)
        named = None if texts is None else [str(listed[i]) for i in indices]
        return Probes(indices, named, errors)

    def _candidates(
        self, texts: Sequence[str] | None, embeddings: ArrayLike | None
    ) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
        """Return cluster weights and keys of texts or embeddings, at least one."""
        if (texts is None) == (embeddings is None):
            raise InvalidArgumentError("texts, embeddings: expected exactly one of them")
        if texts is not None:
            texts = as_sequence("texts", texts)
        phi = self.phi(texts, embeddings=embeddings)
        if not len(phi):
            given = "embeddings" if texts is None else "texts"
            raise InvalidArgumentError(f"{given}: no prompts; expected at least one")
        return phi, _keys(texts, embeddings)

    def remove_model(self, name: str) -> None:
        """Take a model out of the pool; later ones move down by one index.

        Raises `UnknownModelError` if there is none of that name. O(clusters x models).
        """
        with self._lock:
            super().remove_model(name)
            self._records.remove([name])

    def set_profile(self, name: str, profile: ArrayLike) -> None:
        """Replace a model's profile, float32[K]; what was recorded of its outcomes is dropped.

        Any finite numbers will do, for the rule only compares; cost weights mean what they say
        where these are on the scale of losses, 0 to 1.
        """
        with self._lock:
            super().set_profile(name, profile)
            self._records.remove([name])

    def set_profiles(self, names: Sequence[str], profiles: ArrayLike) -> None:
        """Replace the profiles of some models at once, float32[K, len(names)]."""
        names = as_names(names)
        with self._lock:
            super().set_profiles(names, profiles)
            self._records.remove(names)

    def observe(
        self,
        prompt: str | int | None,
        model: str,
        loss: float,
        weight: float = 1.0,
        *,
        embeddings: ArrayLike | None = None,
        half_life: float | None = None,
    ) -> None:
        """Refine one LLM's profile by an outcome: `observe_many` for one.

        Parameters
        ----------
        prompt : str, or int
            Its text; or, where that is not kept, its cluster as `Decision.cluster` tells it.
        model : str
        loss : float
            In [0, 1].
        weight : float
            How many outcomes it counts for: above 0, 1e9 at most.
        embeddings : float32[D] or float32[1, D], optional
            In place of `prompt`, which is then None.
        half_life : float, optional

        Raises
        ------
        UnroutableError
            The text cannot be embedded.
        InvalidArgumentError, ArgumentTypeError, UnknownModelError
            As `observe_many`.
        """
        as_instance("model", model, str, "the name of an LLM")
        model = as_string("model", model)
        self._check_in_pool("model", [model])
        if isinstance(prompt, (int, np.integer)):
            prompt = as_count("prompt", prompt, 0, self.n_clusters - 1)
        elif prompt is not None:
            as_instance("prompt", prompt, str, "a text, or a cluster's index")
        flag = isinstance(loss, (bool, np.bool_))  # Wrong or not: a loss, too.
        loss = as_number("loss", int(loss) if flag else loss, 0, 1)
        weight = as_number("weight", weight, 0, GREATEST_WEIGHT, above=True)
        if (prompt is None) == (embeddings is None):
            raise InvalidArgumentError("prompt, embeddings: expected exactly one of them")
        one = None if embeddings is None else np.atleast_2d(as_array("embeddings", embeddings))
        if one is not None and len(one) != 1:
            raise InvalidArgumentError(f"embeddings: shape {one.shape}; expected (D,) or (1, D)")
        prompts: Any = None if prompt is None else [prompt]
        used = self.observe_many(
            prompts, [model], [loss], [weight], embeddings=one, half_life=half_life
        )
        if not used[0]:
            raise UnroutableError("prompt: it cannot be embedded; expected text that can")

    def observe_many(
        self,
        prompts: Sequence[str] | Sequence[int] | None,
        models: str | Sequence[str],
        losses: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        embeddings: ArrayLike | None = None,
        half_life: float | None = None,
    ) -> NDArray[np.bool_]:
        """Refine profiles by outcomes of prompts that were answered, as one new version.

        The profiles are those that `add_models` would have given with all outcomes at once.

        Parameters
        ----------
        prompts : sequence of str, or of int, N of them
            Texts; or clusters, as `Decision.cluster` tells them, where texts are not kept. A
            cluster says less than a text.
        models : sequence of str, or str
            Which LLM answered each; all of them were added with `add_models`.
        losses : float[N]
            In [0, 1].
        weights : float[N], optional
            How many outcomes each counts for: above 0, 1e9 at most. Default: 1 each.
        embeddings : float32[N, D], optional
            In place of `prompts`, which is then None.
        half_life : float, optional
            Forgetting: after so many further outcomes of the same LLM an outcome counts for half,
            those behind `add_models` included. Default: nothing is forgotten.

        Returns
        -------
        bool[N]
            Which outcomes were used: all but those of prompts that cannot be embedded.

        Raises
        ------
        UnknownModelError
            An LLM that is not in the pool.
        InvalidArgumentError, ArgumentTypeError
            Arguments that cannot be used, or an LLM without a record of its outcomes: it was
            inserted with a ready profile, or the router was saved without records. Nothing has
            changed then.

        Notes
        -----
        O(N F) to add up and, for each LLM concerned, what its profile takes: O(F³) for F features
        under a Bayes profiler. Threads may call this while others route; routing
        never waits.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> router.add_model("small", cost=1.0, texts=texts, losses=np.full(40, 0.5))
        >>> before = router.predict_loss(["8 + 5"])[0, 0]
        >>> _ = router.observe_many(["8 + 5", "6 - 2"] * 20, "small", np.zeros(40))
        >>> bool(router.predict_loss(["8 + 5"])[0, 0] < before)
        True
        """
        if (prompts is None) == (embeddings is None):
            raise InvalidArgumentError("prompts, embeddings: expected exactly one of them")
        if prompts is not None:
            prompts = as_sequence("prompts", prompts)
        elif embeddings is not None:
            embeddings = np.atleast_1d(as_array("embeddings", embeddings))
        n = len(prompts if prompts is not None else np.asarray(embeddings))
        names, loss, weight = checked(models, losses, weights, half_life, n)
        if n == 0:
            return np.zeros(0, bool)
        with self._lock:
            profiler = self._fitted()
            distinct = dict.fromkeys(names)
            self._check_in_pool("models", distinct)
            self._records.check(distinct)
            phi, keys = self._phi_of(prompts, embeddings)
            used = np.asarray(phi.any(axis=1))
            if not used.any():
                return used
            features = profiler.features(phi[used], None if keys is None else keys[used])
            kept = [name for name, ok in zip(names, used, strict=True) if ok]
            tallies = refined(
                profiler, self._records, features, kept, loss[used], weight[used], half_life
            )
            records = self._records.with_tallies(tallies)
            affected, profiles = records.profiles(profiler, list(tallies))
            super().set_profiles(affected, profiles.psi)
            records.note(affected, profiles)
            self._records = records
            return used

    def standard_errors(self) -> NDArray[np.float32]:
        """Tell how well each LLM's predicted loss is known in each cluster.

        Returns
        -------
        float32[K, M]
            Standard deviation of the predicted loss, given the outcomes; models in index order.
            For a prompt of weights Phi over the clusters of H heads, ``Phi @ this / H`` is at least
            the standard error of its predicted loss. NaN for LLMs without a record of outcomes.
            Read-only.

        Raises
        ------
        InvalidArgumentError
            The router was made without fitting.

        Notes
        -----
        O(K M), and what profiles take where a router was just loaded; then kept until the pool
        changes.
        """
        return self._with_errors()[1]

    def fit_tokens(
        self,
        texts: Sequence[str] | None = None,
        output_tokens: ArrayLike | None = None,
        *,
        names: Sequence[str] | None = None,
        input_tokens: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        embeddings: ArrayLike | None = None,
    ) -> None:
        """Learn from a log what tokens LLMs use, so that they can be charged by the token.

        From then on the cost of an LLM whose `input_price` and `output_price` are known
        (`set_metadata`) is, for each prompt, ``input_price * (scale * tokens + extra) +
        output_price * expected output tokens in the prompt's clusters``. Prices, scale and extra
        are constants of the LLM; the prompt's length is given or estimated at each call. Other LLMs
        keep their one cost, which must be in the currency of the prices.

        Parameters
        ----------
        texts : sequence of str, N of them
            Prompts that the LLMs answered. Those that cannot be embedded are left out.
        output_tokens : float[N, M]
            Tokens of the answers; NaN = not run.
        names : sequence of str, optional
            The LLMs of the columns. Default: all, in the order of `models`.
        input_tokens : float[N, M], optional
            Tokens that were charged as input; NaN = not known. Default: those of the prompt.
        tokens : int[N], optional
            Lengths of the prompts, counted as they will be at `route`. Default: a quarter of the
            UTF-8 bytes of each text, rounded up.
        embeddings : float32[N, D], optional
            In place of `texts`.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError, UnknownModelError
            Arguments that cannot be used; an LLM without any answer. Nothing has changed then.

        Notes
        -----
        O(N K M). Decisions over a pool in which an LLM is charged by the token take O(M): no hull
        can hold costs that differ from prompt to prompt.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=4)
        >>> router.add_model("terse", cost=0.0, texts=texts, losses=np.full(40, 0.2))
        >>> router.set_metadata("terse", input_price=0.5, output_price=10.0)
        >>> router.fit_tokens(texts, [[3.0], [3.0], [90.0], [90.0]] * 10)
        >>> cheap, dear = router.route_batch(["3 + 2", "name a river"]).cost
        >>> bool(cheap < dear)
        True
        """
        names = self.models if names is None else as_names(names)
        if (texts is None) == (embeddings is None):
            raise InvalidArgumentError("texts, embeddings: expected exactly one of them")
        if output_tokens is None:
            raise InvalidArgumentError("output_tokens: missing; expected float[N, len(names)]")
        if texts is not None:
            texts = as_sequence("texts", texts)
        with self._lock:
            phi = self.phi(texts, embeddings=embeddings)
            lengths = _lengths(texts, tokens, len(phi))
            usable = np.asarray(phi.any(axis=1))
            usage = _usage(phi, usable, names, output_tokens, input_tokens, lengths)
            self.set_usage(names, *usage.parts())

    def calibrate(
        self,
        texts: Sequence[str] | None = None,
        *,
        budget: float | None = None,
        quality: float | None = None,
        quality_drop: float | None = None,
        losses: ArrayLike | None = None,
        embeddings: ArrayLike | None = None,
        confidence: float = 0.95,
        n_bootstrap: int = 500,
        seed: int = 0,
        tokens: ArrayLike | None = None,
    ) -> Calibration:
        """Find the cost weight that meets a budget or a quality.

        Parameters
        ----------
        texts : sequence of str, N of them
            Prompts like those to be routed; no labels are needed. Those that cannot be embedded
            are left out.
        budget : float
            What 1,000 prompts may cost, in the unit of the costs.
        quality : float
            What the mean of 1 - loss is to be, in [0, 1].
        quality_drop : float
            How far that mean may fall below what cost weight 0 gives, in [0, 1]. Exactly one of
            the three must be given.
        losses : float[N, M], optional
            Measured losses, models in the order of `models`: then quality is measured and not
            predicted. Prompts that lack one are left out.
        embeddings : float32[N, D], optional
            In place of `texts`.
        confidence : float
            Of the interval of the cost.
        n_bootstrap : int
            Resamples behind the interval.
        seed : int
        tokens : int[N], optional
            As in `route`, where LLMs are charged by the token.

        Returns
        -------
        Calibration
            ``.cost_weight`` keeps to the target; ``.cost_weights(n)`` mixes the two sides of the
            corner so that it is met exactly. ``.cost``, ``.quality``, ``.interval``,
            ``.frontier``.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            Not exactly one target, or one out of reach; losses of another shape.

        Notes
        -----
        O(N M) for the frontier, exactly, from the prompts' hulls; O(N hull) a resample. The
        predicted quality is what the profiles say: give `losses` where it must hold.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> hard = [[0.0], [0.0], [1.0], [1.0]] * 10
        >>> router.add_model("small", cost=1.0, texts=texts, losses=hard)
        >>> router.add_model("large", cost=9.0, texts=texts, losses=np.zeros(40))
        >>> calibration = router.calibrate(texts, budget=3000)
        >>> round(calibration.cost)
        3000
        """
        with importing:
            from uniroute_fast.costs.calibration import calibrate

        return calibrate(
            self,
            texts,
            budget=budget,
            quality=quality,
            quality_drop=quality_drop,
            losses=losses,
            embeddings=embeddings,
            confidence=confidence,
            n_bootstrap=n_bootstrap,
            seed=seed,
            tokens=tokens,
        )

    def explain(
        self,
        text: str | None = None,
        cost_weight: float = 0.0,
        *,
        embeddings: ArrayLike | None = None,
        constraints: Constraints | None = None,
        tokens: int | None = None,
        current_model: str | None = None,
        switch_cost: float | None = None,
        cached_tokens: int | None = None,
    ) -> Explanation:
        """Tell why a prompt goes to the LLM that it goes to, and what would change that.

        Parameters are those of `route`.

        Returns
        -------
        Explanation
            The decision; clusters; alternatives with predicted loss and cost; exclusions with
            reasons; the margin to the runner-up; the exact cost weights, and the price, at which
            the choice flips; standard errors; typical prompts of the clusters; how far the prompt
            is out of distribution. ``print`` shows it in a few lines.

        Raises
        ------
        As `route`.

        Notes
        -----
        For a person who asks, not for every request: O(M log M). A text is embedded once.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> router.add_model("small", cost=1.0, texts=texts, losses=np.full(40, 0.5))
        >>> router.add_model("large", cost=9.0, texts=texts, losses=np.full(40, 0.1))
        >>> explanation = router.explain("5 * 3", 0.01)
        >>> explanation.decision.model, explanation.flip_up.model
        ('large', 'small')
        """
        with importing:
            from uniroute_fast.decisions.explain import explain

        snapshot, errors = (
            self._with_errors() if self._profiler is not None else (self.snapshot(), None)
        )
        return explain(
            snapshot,
            text,
            cost_weight,
            embeddings=embeddings,
            constraints=constraints,
            tokens=tokens,
            current_model=current_model,
            switch_cost=switch_cost,
            cached_tokens=cached_tokens,
            standard_errors=errors,
            typical=self._typical,
        )

    def set_baseline(
        self,
        texts: Sequence[str] | None = None,
        *,
        embeddings: ArrayLike | None = None,
        window: int = 500,
    ) -> None:
        """Compare the prompts to come with these, in place of those that the router was fitted on.

        Parameters
        ----------
        texts : sequence of str, N of them
            Prompts as they should be, some hundreds or more; not those of `fit`, which the embedder
            knows better than any to come.
        embeddings : float32[N, D], optional
            In place of `texts`.
        window : int
            Prompts that `drift` looks at together, 50 or more.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            No prompt that can be embedded; a window too short to tell anything.

        Notes
        -----
        What `drift` has counted so far is dropped. O(N K D). The baseline is saved with the router.
        """
        self.measure_baseline(
            texts, embeddings=embeddings, window=as_count("window", window, 50, 2**40)
        )

    def replace(self, other: Router) -> None:
        """Put everything that another router holds in place of this one's, at once.

        For a new artifact: ``router.replace(Router.load(path))``. Calls under way end with what
        they began with; the next ones see the new embedder, cluster map and LLMs together, as one
        more version.

        Raises
        ------
        ArgumentTypeError
            `other` is no `Router`.
        """
        as_instance("other", other, Router)
        # In one order, whoever replaces whom at the same time.
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock:
            self.swap_in(other)
            self._profiler, self._typical = other._profiler, other._typical
            self._fitted_on = other._fitted_on
            self._records = other._records.copy()

    def save(self, path: str | os.PathLike[str], *, records: bool = True) -> None:
        """Write the router to one file, whole or not at all.

        The file is safetensors with a JSON header: no pickle, nothing in it is ever executed. It
        is written beside `path`, synced and renamed over it. An embedder that is not this
        package's own is not saved: `load` takes it again.

        Parameters
        ----------
        path : path
        records : bool
            Also keep what is recorded of the LLMs' outcomes, some 24 bytes for each feature and
            LLM. Without, the file routes as well, but its LLMs cannot be refined by `observe`, and
            have no standard errors.

        Raises
        ------
        ArtifactIOError
            The file cannot be written.
        """
        path = as_path("path", path)
        records = bool(as_instance("records", records, (bool, np.bool_), "True or False"))
        with self._lock:
            self.write(path, *self._extra(records))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, embedder: Embedder | None = None) -> Router:
        """Read a router from a file that `save` wrote.

        Parameters
        ----------
        path : path
        embedder : Embedder, optional
            The embedder it was fitted with, if that is not this package's own.

        Raises
        ------
        ArgumentTypeError
            `embedder` has no ``embed``.
        ArtifactIOError
            The file cannot be read.
        ArtifactError
            It is no router, is damaged, or comes from a newer version.
        """
        embedder = as_embedder(embedder)
        return cls._from_loaded(_native.Loaded.read(as_path("path", path)), embedder)

    def __repr__(self) -> str:
        snapshot = self.snapshot()
        names, embedder = snapshot.models, snapshot.embedder
        shown = ", ".join([*map(repr, names[:3]), *(["..."] if len(names) > 3 else [])])
        return (
            f"Router({len(names)} models: {shown or 'none yet'}; {snapshot.n_clusters} clusters; "
            f"embedder {'none' if embedder is None else type(embedder).__name__}; "
            f"version {snapshot.version})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as the bytes of an artifact: to send a router to another process, not to keep it.
        # An embedder of ours is inside; another one is pickled beside it.
        own = isinstance(self.embedder, LexicalEmbedder)
        with self._lock:
            data = self.to_bytes(*self._extra(records=True))
            return _from_bytes, (type(self), data, None if own else self.embedder)

    def _extra(self, records: bool) -> tuple[str, dict[str, NDArray[Any]]]:
        if self._profiler is None:
            return "null", {}
        tensors, params = self._profiler.to_parts()
        extra: dict[str, Any] = {"profiler": params}
        if self._typical is not None:
            extra["typical"] = self._typical.prompts
            tensors["typical.phi"] = self._typical.phi
        if records:
            recorded = self._records.to_arrays(self.models)
            tensors |= {RECORDS + name: array for name, array in recorded.items()}
        return json.dumps(extra), tensors

    def _fitted(self) -> Profiler:
        if self._profiler is None:
            raise InvalidArgumentError(
                "router: made without fitting, so it cannot profile; expected one from "
                "`Router.fit`, or `insert` with profiles of your own"
            )
        return self._profiler

    def _check_in_pool(self, argument: str, names: Iterable[str]) -> None:
        """Raise `UnknownModelError`, which names the argument, for the first not in the pool."""
        for name in names:
            try:
                self.info(name)
            except UnknownModelError:
                shown_name = json.dumps(name, ensure_ascii=False)
                raise UnknownModelError(
                    f"{argument}: no model named {shown_name} in the pool; expected one of "
                    "`router.models`"
                ) from None

    def _phi_of(
        self, prompts: Any, embeddings: ArrayLike | None
    ) -> tuple[NDArray[np.float32], NDArray[np.uint64] | None]:
        """Return cluster weights of texts, of clusters or of embeddings, and the prompts' keys."""
        if prompts is None or not isinstance(next(iter(prompts)), (int, np.integer)):
            return self.phi(prompts, embeddings=embeddings), _keys(prompts, embeddings)
        profiler = self._fitted()
        typical, sizes = self._typical, profiler.map.sizes
        if typical is None and len(sizes) > 1:
            raise InvalidArgumentError(
                "prompts: clusters, but this router was saved before it knew what the prompts of a "
                "cluster are like; expected texts or embeddings"
            )
        clusters = [as_count("prompts", k, 0, sizes[0] - 1) for k in prompts]
        if typical is not None:
            return typical.phi[clusters], None
        phi = np.zeros((len(clusters), sizes[0]), np.float32)
        phi[np.arange(len(clusters)), clusters] = 1
        return phi, None

    def _with_errors(self) -> tuple[_native.Snapshot, NDArray[np.float32]]:
        """Return the current snapshot and the standard errors that belong to it."""
        with self._lock:
            snapshot = self.snapshot()
            version, errors = self._errors
            if version != snapshot.version:
                errors = self._records.standard_errors(self._fitted(), snapshot.models)
                errors.setflags(write=False)
                self._errors = (snapshot.version, errors)
            return snapshot, errors

    @classmethod
    def _from_loaded(cls, loaded: _native.Loaded, embedder: Embedder | None) -> Router:

        if loaded.embedder is not None:
            if embedder is not None:
                raise InvalidArgumentError("embedder: given, but the file holds its own")
            embedder = LexicalEmbedder(loaded.embedder)
        router = cls(embedder, loaded)
        extra = json.loads(loaded.json)
        if extra is not None:
            tensors = loaded.tensors
            recorded = {
                name.removeprefix(RECORDS): tensors.pop(name)
                for name in list(tensors)
                if name.startswith(RECORDS)
            }
            router._records = Records.from_arrays(recorded, router.models)
            try:
                profiler = profiler_from_parts(tensors, extra["profiler"])
                if "typical" in extra:
                    typical = extra["typical"], tensors["typical.phi"]
                    router._typical = Typical.from_parts(*typical, profiler.map.sizes)
                router._profiler = profiler
                _check_fit(router, recorded)
            except ArtifactError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise ArtifactError(
                    f"artifact: its profiler is not understood ({type(error).__name__}: "
                    f"{shown(error)})"
                ) from error
        return router


def _check_fit(router: Router, recorded: dict[str, NDArray[Any]]) -> None:
    """Raise unless a restored profiler is one for the router's clusters and the LLMs' records."""
    profiler = router._fitted()
    clusters, known = router.n_clusters, profiler.map.n_clusters
    if clusters != known:
        raise ArtifactError(f"artifact: its profiler knows {known} clusters, its map {clusters}")
    own, routed = profiler.map.to_native(), router.heads()
    if len(own) != len(routed) or not all(map(_same_head, own, routed)):
        raise ArtifactError("artifact: its profiler is for another cluster map than it routes by")
    if not recorded:
        return
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


def _same_head(own: tuple[Any, ...], routed: tuple[Any, ...]) -> bool:
    """Tell whether two heads, as `ClusterMap.to_native` gives them, are of one kind and equal."""
    return own[0] == routed[0] and all(map(np.array_equal, own[1:3], routed[1:3]))


def _from_bytes(cls: type[Router], data: bytes, embedder: Embedder | None) -> Router:
    return cls._from_loaded(_native.Loaded.from_bytes(data), embedder)


def _prices(
    input_prices: ArrayLike | None, output_prices: ArrayLike | None, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return prices of input and output, checked; None where none are given."""
    if (input_prices is None) != (output_prices is None):
        raise InvalidArgumentError("input_prices, output_prices: one is missing; expected both")
    if input_prices is None or output_prices is None:
        return None
    return (
        as_prices("input_prices", input_prices, count),
        as_prices("output_prices", output_prices, count),
    )


def _lengths(
    texts: Sequence[str] | None, tokens: ArrayLike | None, rows: int
) -> NDArray[np.float64] | None:
    """Return lengths of prompts in tokens, given or estimated; None where nothing tells them."""
    if tokens is not None:
        lengths = as_tokens("tokens", tokens, rows, 1)[:, 0]
        if np.isnan(lengths).any():
            raise InvalidArgumentError("tokens: NaN; expected the length of each prompt")
        return lengths
    return None if texts is None else estimate_tokens(texts)


def _usage(
    phi: NDArray[np.float32],
    usable: NDArray[np.bool_],
    names: Sequence[str],
    output_tokens: ArrayLike,
    input_tokens: ArrayLike | None,
    lengths: NDArray[np.float64] | None,
) -> Usage:
    """Check a log of tokens, and learn from it what LLMs use."""
    shape = (len(phi), len(names))
    output = as_tokens("output_tokens", output_tokens, *shape)[usable]
    never = np.flatnonzero(np.isnan(output).all(axis=0))
    if len(never):
        raise InvalidArgumentError(
            f"output_tokens: {names[never[0]]!r} (column {never[0]}) has no answer to a prompt "
            "that can be embedded; expected at least one for each LLM"
        )
    charged = None
    if input_tokens is not None:
        charged = as_tokens("input_tokens", input_tokens, *shape)[usable]
        if lengths is None:
            raise InvalidArgumentError(
                "tokens: missing; expected the prompts' lengths beside input_tokens and embeddings"
            )
    return fit_usage(phi[usable], output, None if lengths is None else lengths[usable], charged)


def _keys(texts: Sequence[str] | None, embeddings: ArrayLike | None) -> NDArray[np.uint64]:
    """Return keys by which prompts are known again, from their text or, without, their vector."""
    if texts is None:
        return prompt_keys(row.tobytes() for row in np.asarray(embeddings, dtype=np.float32))
    return prompt_keys(
        text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""
        for text in _listed(texts)
    )


def _listed(texts: Any) -> list[Any]:
    """Return texts by position: a Series knows its own by labels."""
    return texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)


def _as_embeddings(argument: str, embeddings: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32[N, D], contiguous, finite, of at least one row and column."""
    embeddings = as_numbers(argument, embeddings, "float32[N, D]")
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise InvalidArgumentError(
            f"{argument}: shape {embeddings.shape}; expected [N, D], at least one of each"
        )
    x = np.ascontiguousarray(embeddings, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        raise InvalidArgumentError(
            f"{argument}: {x[row, column]} in row {row}, column {column}; expected finite values"
        )
    # Squares must not overflow float32, in which clusters are fitted.
    largest = np.abs(x).max()
    if largest > LARGEST_FITTED:
        raise InvalidArgumentError(
            f"{argument}: a value of magnitude {largest:.3g}; expected {LARGEST_FITTED:.0e} at most"
        )
    return x
