"""Predicted losses and costs of many prompts in little memory: those that share them count once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uniroute_fast.batch.prompter import Prompter

#: Predicted losses held at once.
VALUES = 1 << 22


@dataclass
class Losses:
    """Predicted losses of some prompts, and what the LLMs cost on them.

    Attributes
    ----------
    values : float32[R, M]
        Distinct rows of losses, of the LLMs that may answer.
    costs : float64[M] or float64[R, M]
        The same for all rows, or where LLMs are charged by the token, each row's own.
    cluster : int[R]
        The cluster of each.
    rows : int[n]
        The prompts that this is of, as rows of their batch.
    which : int[n]
        Each prompt's row in ``values``.
    """

    values: NDArray[np.float32]
    costs: NDArray[np.float64]
    cluster: NDArray[np.int64]
    rows: NDArray[np.int64]
    which: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many prompts have each row of losses, int[R]."""
        return np.bincount(self.which, minlength=len(self.values))

    def cost_of(
        self, rows: NDArray[np.integer[Any]], models: NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """Return what LLMs cost on rows of ``values``, one each."""
        own = self.costs[models] if self.costs.ndim == 1 else self.costs[rows, models]
        return np.asarray(own)

    def cost_sums(self) -> NDArray[np.float64]:
        """Return what each LLM would cost for all the prompts, float64[M]."""
        if self.costs.ndim == 1:
            return self.costs * len(self.which)
        return np.asarray(self.counts @ self.costs)


class LossReader:
    """Reads predicted losses off a router; several threads may share it.

    Where the map is hard, a prompt has its cluster's profile and clusters are few. Elsewhere every
    prompt has losses of its own, as it has costs of its own where LLMs are charged by the token.
    """

    def __init__(self, prompter: Prompter) -> None:
        self.prompter = prompter
        self.router = router = prompter.router
        heads = router.heads()
        self._metered = bool(router.metered.any())
        self._shared = len(heads) == 1 and heads[0][0] == "nearest" and not self._metered
        self._profiles = router.profiles
        #: LLMs that may answer, as indices into the pool: disabled ones are as if not there.
        self.models = np.flatnonzero(router.enabled)
        self.names = [router.models[m] for m in self.models]
        self._costs = router.costs[self.models]

    def of(self, texts: Any) -> Iterator[Losses]:
        """Yield the losses of the prompts that can be routed, each prompt once."""
        inputs, failures = self.prompter.inputs(texts)
        tokens = inputs.pop("tokens", None)
        prompts = self.router.snapshot().embed(**inputs)
        decisions = self.router.route_batch(prompts, tokens=tokens)
        routed = decisions.ok
        routed[list(failures)] = False
        ok = np.flatnonzero(routed)
        cluster, chosen = decisions.cluster[ok].astype(np.int64), decisions.index[ok]
        # A hard map alone does not promise that a prompt's losses are its cluster's: look.
        shared = np.full(len(ok), self._shared)
        if self._shared:
            shared = self._profiles[cluster, chosen] == decisions.predicted_loss[ok]
        clusters, which = np.unique(cluster[shared], return_inverse=True)
        if len(clusters):
            profiles = self._profiles[np.ix_(clusters, self.models)]
            yield Losses(profiles, self._costs, clusters, ok[shared], which)
        own = np.flatnonzero(~shared)
        if not len(own):
            return
        for some in np.array_split(own, len(own) * len(self.router.models) // VALUES + 1):
            these, costs = prompts[ok[some]], self._costs
            if self._metered:
                lengths = None if tokens is None else tokens[ok[some]]
                costs = self.router.predict_cost(these, tokens=lengths)[:, self.models]
            values = self.router.predict_loss(these)[:, self.models]
            yield Losses(values, costs, cluster[some], ok[some], np.arange(len(some)))
