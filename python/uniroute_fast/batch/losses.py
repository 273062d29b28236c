"""Predicted losses of many prompts in little memory: prompts that share them count together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uniroute_fast.batch.prompter import Prompter

#: Predicted losses held at once.
VALUES = 1 << 22


@dataclass
class Losses:
    """Predicted losses of some prompts.

    Attributes
    ----------
    values : float32[R, M]
        Distinct rows of losses, of the LLMs that may answer.
    cluster : int[R]
        The cluster of each.
    rows : int[n]
        The prompts that this is of, as rows of their batch.
    which : int[n]
        Each prompt's row in ``values``.
    """

    values: NDArray[np.float32]
    cluster: NDArray[np.int64]
    rows: NDArray[np.int64]
    which: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many prompts have each row of losses, int[R]."""
        return np.bincount(self.which, minlength=len(self.values))


class LossReader:
    """Reads predicted losses off a router; several threads may share it.

    Where the map is hard, a prompt has its cluster's profile and clusters are few. Elsewhere every
    prompt has losses of its own.
    """

    def __init__(self, prompter: Prompter) -> None:
        self.prompter = prompter
        self.router = router = prompter.router
        if router.metered.any():
            raise InvalidArgumentError(
                "pool: charges LLMs by the token; expected one cost for each LLM, or a cost weight "
                "found by `Router.calibrate`, which knows such costs"
            )
        heads = router.heads()
        self._hard = len(heads) == 1 and heads[0][0] == "nearest"
        self._profiles = router.profiles
        #: LLMs that may answer, as indices into the pool: disabled ones are as if not there.
        self.models = np.flatnonzero(router.enabled)
        self.names = [router.models[m] for m in self.models]
        self.costs = router.costs[self.models]

    def of(self, texts: Any) -> Iterator[Losses]:
        """Yield the losses of the prompts that can be routed, each prompt once."""
        inputs, failures = self.prompter.inputs(texts)
        decisions = self.router.route_batch(**inputs, cost_weight=0.0)
        routed = decisions.ok
        routed[list(failures)] = False
        ok = np.flatnonzero(routed)
        cluster, chosen = decisions.cluster[ok].astype(np.int64), decisions.index[ok]
        # A hard map alone does not promise that a prompt's losses are its cluster's: look.
        shared = np.full(len(ok), self._hard)
        if self._hard:
            shared = self._profiles[cluster, chosen] == decisions.predicted_loss[ok]
        clusters, which = np.unique(cluster[shared], return_inverse=True)
        if len(clusters):
            yield Losses(self._profiles[np.ix_(clusters, self.models)], clusters, ok[shared], which)
        own = np.flatnonzero(~shared)
        if not len(own):
            return
        for some in np.array_split(own, len(own) * len(self.router.models) // VALUES + 1):
            own_inputs = {name: _take(all_, ok[some]) for name, all_ in inputs.items()}
            values = self.router.predict_loss(**own_inputs)[:, self.models]
            yield Losses(values, cluster[some], ok[some], np.arange(len(some)))


def _take(prompts: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(prompts, list):
        return [prompts[i] for i in rows]
    # Of an array of NumPy, by rows too.
    return prompts[rows] if isinstance(prompts, np.ndarray) else prompts.take(rows)
