"""The cost weight that keeps a log to a budget, from one pass over it in bounded memory.

As the cost weight rises, a prompt moves along its lower hull from the best predicted LLM to the
cheapest one, and each step saves the difference of two costs. So the spend at a cost weight is the
spend at 0 less what the steps up to it save. The steps of all prompts are summed up in bins of
cost weights so narrow (1 in 8,192) that nothing of note lies within one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.router import Router

#: A bin is a float's exponent and its first 13 bits of mantissa; they cover 2^-64 to 2^64.
_SHIFT = np.uint64(52 - 13)
_FIRST = (1023 - 64) << 13
_BINS = 128 << 13

#: Predicted losses held at once.
_VALUES = 1 << 22


@dataclass
class Steps:
    """What some prompts spend at cost weight 0, and what their steps save."""

    rows: int
    spend: float
    bins: NDArray[np.int64]
    savings: NDArray[np.float64]


class Spending:
    """Spend of a log at every cost weight; prompts that cannot be routed cost nothing.

    Parameters
    ----------
    router : Router
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.costs = router.costs
        heads = router.heads()
        self._hard = len(heads) == 1 and heads[0][0] == "nearest"
        self._profiles = router.profiles
        self.rows = 0
        self.spend = 0.0
        self.savings = np.zeros(_BINS)

    def of(self, texts: Any) -> Steps:
        """Return the steps of some prompts. Several threads may call it at once."""
        decisions = self.router.route_batch(texts, 0.0)
        ok = decisions.ok
        cluster, chosen = decisions.cluster[ok], decisions.index[ok]
        by_profile = np.zeros(len(ok), bool)
        if self._hard:
            # Where the loss is the cluster's own, the cluster says all, and few clusters there are.
            by_profile[ok] = self._profiles[cluster, chosen] == decisions.predicted_loss[ok]
        clusters, counts = np.unique(decisions.cluster[by_profile], return_counts=True)
        parts = [self._steps(self._profiles[clusters], counts)]
        others = np.flatnonzero(ok & ~by_profile)
        for some in np.array_split(others, len(others) * len(self.costs) // _VALUES + 1):
            losses = self.router.predict_loss(_take(texts, some)) if len(some) else None
            if losses is not None:
                parts.append(self._steps(losses, np.ones(len(some))))
        return Steps(
            rows=len(ok),
            spend=float(np.nansum(decisions.cost)),
            bins=np.concatenate([bins for bins, _ in parts]),
            savings=np.concatenate([savings for _, savings in parts]),
        )

    def add(self, steps: Steps) -> None:
        """Count some prompts."""
        self.rows += steps.rows
        self.spend += steps.spend
        np.add.at(self.savings, steps.bins, steps.savings)

    def cost_weight(self, budget: float) -> float:
        """Return the least cost weight whose spend is at most the budget.

        Raises
        ------
        InvalidArgumentError
            Even the cheapest LLM alone costs more.
        """
        if self.spend <= budget:
            return 0.0
        after = self.spend - np.cumsum(self.savings)
        # Sums of many costs: allow them their rounding.
        enough = np.flatnonzero(after <= budget * (1 + 1e-12))
        if not len(enough):
            raise InvalidArgumentError(
                f"budget: {budget:g}; expected at least {after[-1]:g}, what the cheapest LLM takes "
                f"for these {self.rows:,} prompts"
            )
        # The upper end of the bin: all of its steps are taken there.
        return float(_edge(int(enough[0]) + 1))

    def _steps(
        self, losses: NDArray[np.float32], counts: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return bins and savings of rows that stand for so many prompts each."""
        if not len(losses):
            return np.zeros(0, np.int64), np.zeros(0)
        offsets, models, weights = _native.lower_hulls(losses.astype(np.float64), self.costs)
        costs = self.costs[models]
        row = np.repeat(np.arange(len(losses)), np.diff(offsets))
        step = np.flatnonzero(row[1:] == row[:-1]) + 1
        saved = (costs[step - 1] - costs[step]) * counts[row[step]]
        bins, inverse = np.unique(_bin(weights[step]), return_inverse=True)
        return bins, np.bincount(inverse, saved, len(bins)).astype(np.float64)


def _bin(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    bits = weights.view(np.uint64) >> _SHIFT
    return np.clip(bits.astype(np.int64) - _FIRST, 0, _BINS - 1)


def _edge(number: int) -> float:
    """Return the lower end of a bin."""
    return float(np.uint64((number + _FIRST) << int(_SHIFT)).view(np.float64))


def _take(texts: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(texts, list):
        return [texts[i] for i in rows]
    return texts.take(rows)
