"""The router: fitted once, LLMs join and leave, prompts are routed in microseconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_column
from uniroute_fast._checks.extras import importing
from uniroute_fast._checks.instances import as_embedder, as_instance
from uniroute_fast._checks.prompts import as_prompts
from uniroute_fast._checks.scalars import as_count, as_number, as_path
from uniroute_fast._checks.sequences import as_names
from uniroute_fast.costs.token_log import TokenLog
from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.profiles.known_prompts import embedded
from uniroute_fast.profiles.learner import Labels, Learner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self, Unpack

    from uniroute_fast._native import (
        Change,
        Constraints,
        DriftReport,
        Prompts,
        Snapshot,
        _Fields,
    )
    from uniroute_fast.costs.calibration import Calibration
    from uniroute_fast.decisions.explain import Explanation
    from uniroute_fast.embedding.embedder import Embedder
    from uniroute_fast.profiles.outcomes import Outcomes
    from uniroute_fast.profiles.probes import Probes


# A subclass, not a holder, of the native router: `route` takes some two microseconds, and a Python
# method in between would add a tenth of it. What a `Snapshot` can do too (`route`, `route_batch`,
# `predict_loss`, `predict_cost`, `phi`, the properties) is therefore native as it stands, and
# explained in Rust, once for both; the rest is here, and what is learned is in `learner`.
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

    #: What the router learns with: its profiler, its records, its lock.
    learner: Learner

    def __new__(cls, embedder: Any, heads: Any) -> Self:
        """Make a router without LLMs; `fit` and `load` are the ways to call this."""
        router = super().__new__(cls, embedder, heads)
        router.learner = Learner()
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
            from uniroute_fast.evaluate.deferral import area_of
            from uniroute_fast.profiles.first_fit import fit_first

        fitted = fit_first(
            texts,
            embedder=embedder,
            n_clusters=n_clusters,
            seen=seen,
            attributes=attributes,
            seed=seed,
            embeddings=embeddings,
            typical_prompts=typical_prompts,
            area=area_of,
        )
        router = cls(fitted.embedder, fitted.cluster_map)
        router.learner = fitted.learner
        router.measure_baseline(**fitted.baseline, leave_out=True)
        return router

    def embed(self, texts: Any = None, *, embeddings: ArrayLike | None = None) -> Prompts:
        """Embed prompts once, for all calls to come.

        What it returns is taken wherever texts are, by this router's methods and by `SpendingPlan`,
        `Explorer` and `Cascade`: nothing is embedded again.

        Parameters
        ----------
        texts : sequence of str, N of them
        embeddings : float32[N, D], optional
            In place of `texts`.

        Returns
        -------
        Prompts
            ``.vectors``, ``.phi``, ``.tokens``, ``.coverage``, ``.status``, ``.ok`` and ``.keys``;
            ``len(prompts)``, and ``prompts[rows]`` for some of them. They are of this router's
            embedder: one with another embedder refuses them, one with the same embedder and another
            cluster map places their vectors anew.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            Both or neither given, or what cannot be embedded.

        Notes
        -----
        O(texts + N K D); 4 D bytes and some 8 K for each prompt are kept.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> prompts = router.embed(texts)
        >>> losses = [[0.0], [0.0], [1.0], [1.0]] * 10
        >>> router.add_models(["sums"], [1.0], prompts, losses)
        >>> router.route(prompts[0]).model, len(router.route_batch(prompts[:8]))
        ('sums', 8)
        """
        texts, vectors, _ = as_prompts(texts, embeddings, least=0)
        return embedded(self, texts, vectors)

    def snapshot(self) -> Snapshot:
        """Return an immutable view of what is current: it routes as the router does now, for ever.

        O(1).
        """
        return super().snapshot()

    def changes(self, since: int = 0) -> list[Change]:
        """Return the latest changes, oldest first: those that made versions above `since`.

        The last 1,024 changes are kept, in this process: they are not saved.
        """
        return super().changes(since)

    def add_models(
        self,
        names: Sequence[str],
        costs: ArrayLike | None,
        texts: Sequence[str] | Prompts | None = None,
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
        labels = Labels.of(names, texts, losses, embeddings, weights, flip_rate)
        charges = TokenLog(output_tokens, input_tokens, tokens, input_prices, output_prices)
        self.learner.add_models(self, labels, costs, charges, metadata, enabled)

    def add_model(
        self,
        name: str,
        *,
        cost: float,
        texts: Sequence[str] | Prompts | None = None,
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
        self.add_models(
            [name],
            [as_number("cost", cost, 0)],
            texts,
            None if losses is None else as_column("losses", losses),
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
        texts: Sequence[str] | Prompts | None = None,
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
        return self.learner.add_model_from_preferences(
            self, name, cost, opponents, wins, texts, embeddings
        )

    def insert(
        self,
        names: Sequence[str],
        costs: ArrayLike,
        profiles: ArrayLike,
        *,
        prices: tuple[ArrayLike, ArrayLike] | None = None,
        usage: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
        enabled: bool = True,
    ) -> None:
        """Add LLMs with ready profiles, as one new version.

        Parameters
        ----------
        names : sequence of str, M of them
            New and distinct.
        costs : float64[M]
            Finite, 0 or more.
        profiles : float32[K, M]
            Any finite numbers: see `set_profile`.
        prices : tuple of two float64[M], optional
            Of a million tokens of the prompt, and of the answer.
        usage : tuple of float32[K, M], float64[M], float64[M], optional
            As `set_usage` takes it.
        metadata : sequence of M dicts or None, optional
            Fields of `set_metadata`.
        enabled : bool
            Whether they may be chosen.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError, DuplicateModelError
            Arguments that cannot be used. The pool is unchanged then.
        """
        super().insert(
            names,
            costs,
            profiles,
            prices=prices,
            usage=usage,
            metadata=metadata,
            enabled=enabled,
        )

    def suggest_probes(
        self,
        n: int,
        texts: Sequence[str] | Prompts | None = None,
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
        return self.learner.suggest_probes(self, n, texts, embeddings, model)

    def remove_model(self, name: str) -> None:
        """Take a model out of the pool; later ones move down by one index.

        Raises `UnknownModelError` if there is none of that name. O(clusters x models).
        """
        with self.learner.forgetting([name]):
            super().remove_model(name)

    def set_cost(self, name: str, cost: float) -> None:
        """Change what an LLM costs: a finite number, 0 or more, in the unit of the others.

        Raises `UnknownModelError` or `InvalidArgumentError`. O(clusters x hull), and O(models) for
        each cluster where the LLM is on the hull.
        """
        super().set_cost(name, cost)

    def set_profile(self, name: str, profile: ArrayLike) -> None:
        """Replace a model's profile, float32[K]; what was recorded of its outcomes is dropped.

        Any finite numbers will do, for the rule only compares; cost weights mean what they say
        where these are on the scale of losses, 0 to 1.
        """
        with self.learner.forgetting([name]):
            super().set_profile(name, profile)

    def set_profiles(self, names: Sequence[str], profiles: ArrayLike) -> None:
        """Replace the profiles of some models at once, float32[K, len(names)]."""
        names = as_names(names)
        with self.learner.forgetting(names):
            super().set_profiles(names, profiles)

    def enable_model(self, name: str) -> None:
        """Let an LLM be chosen again after `disable_model`.

        Raises `UnknownModelError`. Costs what `set_cost` does.
        """
        super().enable_model(name)

    def disable_model(self, name: str) -> None:
        """Keep an LLM from being chosen until `enable_model`; it stays listed, and is saved so.

        Raises `UnknownModelError`. Costs what `set_cost` does.
        """
        super().disable_model(name)

    def set_metadata(self, name: str, **fields: Unpack[_Fields]) -> None:
        """Say what is known of an LLM beside its cost.

        Fields that are not named stay as they are; None makes one unknown.

        Parameters
        ----------
        name : str
        tags : sequence of str
            Free strings, such as "region:eu", "licence:apache-2.0", "modality:image", "tools".
        context_length : int
            Tokens of prompt and answer together that it takes at most.
        latency : float
            Typical seconds to answer.
        input_price, output_price : float
            Price of a million tokens of the prompt, of the answer. Where both are known, and what
            tokens the LLM uses (`fit_tokens`), it is charged by the token.
        cached_input_price : float
            Price of a million tokens of the prompt that the LLM finds in its cache.

        Raises
        ------
        UnknownModelError, InvalidArgumentError, ArgumentTypeError
            Another field, or a value that cannot be used.

        Notes
        -----
        O(models).
        """
        super().set_metadata(name, **fields)

    def observe(
        self,
        prompt: str | int | Prompts | None,
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
        self.learner.observe(self, prompt, model, loss, weight, embeddings, half_life)

    def observe_many(
        self,
        prompts: Sequence[str] | Sequence[int] | Prompts | None,
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
        return self.learner.observe_many(
            self, prompts, models, losses, weights, embeddings, half_life
        )

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
        return self.learner.with_errors(self)[1]

    def fit_tokens(
        self,
        texts: Sequence[str] | Prompts | None = None,
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
        log = TokenLog(output_tokens, input_tokens, tokens)
        self.learner.fit_tokens(self, names, texts, embeddings, log)

    def set_usage(
        self,
        names: Sequence[str],
        output_tokens: ArrayLike,
        input_scale: ArrayLike,
        input_extra: ArrayLike,
    ) -> None:
        """Say what tokens LLMs use, so that they can be charged by the token; see `fit_tokens`.

        Parameters
        ----------
        names : sequence of str, n of them
        output_tokens : float32[K, n]
            Expected tokens of answers in each cluster.
        input_scale, input_extra : float64[n]
            Input tokens are ``input_scale * tokens of the prompt + input_extra``.

        Raises
        ------
        UnknownModelError, InvalidArgumentError, ArgumentTypeError
            Arguments that cannot be used. The pool is unchanged then.
        """
        super().set_usage(names, output_tokens, input_scale, input_extra)

    def calibrate(
        self,
        texts: Sequence[str] | Prompts | None = None,
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
        text: str | Prompts | None = None,
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

        fitted = self.learner.profiler is not None
        snapshot, errors = self.learner.with_errors(self) if fitted else (self.snapshot(), None)
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
            typical=self.learner.examples,
        )

    def drift(self, texts: Any = None, *, embeddings: ArrayLike | None = None) -> DriftReport:
        """Tell how prompts compare with those that the router was fitted on.

        Parameters
        ----------
        texts : sequence of str, N of them, or Prompts, optional
            Prompts to compare. Default: those routed recently, the latest complete window of them;
            before the first one is complete, all so far. What `Router.route` and `route_batch` get
            is counted, what a snapshot routes is not.
        embeddings : float32[N, D], optional
            In place of `texts`.

        Returns
        -------
        DriftReport
            `.alarm`, and the statistics behind it, each beside its threshold: `.psi` over the
            clusters, `.distance` to the cluster's centre, `.coverage`. `.clusters`: the shares then
            and now, those that moved most first. `.cost` beside `.cost_in_baseline_mix`.

        Raises
        ------
        InvalidArgumentError
            There is no baseline: the router was neither fitted nor given one with `set_baseline`.

        Notes
        -----
        A window of prompts like those of the baseline exceeds a threshold about once in 20,000
        windows. The baseline is saved with the router; counts are of this process. Some
        milliseconds.
        """
        return super().drift(texts, embeddings=embeddings)

    def set_baseline(
        self,
        texts: Sequence[str] | Prompts | None = None,
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
        window = as_count("window", window, 50, 2**40)
        self.measure_baseline(texts, embeddings=embeddings, window=window)

    def drop_baseline(self) -> None:
        """Compare no longer what is routed with what the router was fitted on, nor count it."""
        super().drop_baseline()

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
        self.learner.replace(self, other, other.learner)

    def fingerprint(self) -> dict[str, str | None]:
        """Return what tells two routers apart, each a digest of 16 hexadecimal digits.

        "embedder" (None where embeddings come from outside), "cluster_map" and "pool". Equal
        wherever the same is served, whatever file or process it came from. O(size).
        """
        return super().fingerprint()

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
        with self.learner.lock:
            self.write(path, *self.learner.to_parts(self.models, records=records))

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
        return cls._of(_native.Loaded.read(as_path("path", path)), embedder)

    def to_bytes(self, *, records: bool = True) -> bytes:
        """Return what `save` would write to a file."""
        with self.learner.lock:
            return self.write_bytes(*self.learner.to_parts(self.models, records=records))

    @classmethod
    def from_bytes(cls, data: bytes, *, embedder: Embedder | None = None) -> Router:
        """Make a router of what `to_bytes` returned; other arguments and errors as in `load`."""
        return cls._of(_native.Loaded.from_bytes(data), as_embedder(embedder))

    @classmethod
    def _of(cls, loaded: _native.Loaded, embedder: Embedder | None) -> Router:
        if loaded.embedder is not None:
            if embedder is not None:
                raise InvalidArgumentError("embedder: given, but the file holds its own")
            embedder = LexicalEmbedder(loaded.embedder)
        router = cls(embedder, loaded)
        router.learner.restore(router, loaded)
        return router

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
        with self.learner.lock:
            own = isinstance(self.embedder, LexicalEmbedder)
            return _from_bytes, (type(self), self.to_bytes(), None if own else self.embedder)


def _from_bytes(cls: type[Router], data: bytes, embedder: Embedder | None) -> Router:
    return cls.from_bytes(data, embedder=embedder)
