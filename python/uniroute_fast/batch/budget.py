"""The cost weight that keeps a log to a budget, from one pass over it in bounded memory.

As the cost weight rises, a prompt moves along its lower hull from the best predicted LLM to the
cheapest one, and each step saves the difference of two costs. So the spend at a cost weight is the
spend at 0 less what the steps up to it save. The steps of all prompts are summed up in bins of
cost weights so narrow (1 in 8,192) that nothing of note lies within one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.scalars import at_least
from uniroute_fast.batch.losses import Losses, LossReader
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.batch.prompter import Prompter

#: A bin is a float's exponent and its first 13 bits of mantissa; they cover 2^-64 to 2^64.
_SHIFT = np.uint64(52 - 13)
_FIRST = (1023 - 64) << 13
_BINS = 128 << 13


@dataclass
class Steps:
    """What some prompts spend at cost weight 0, and what their steps save."""

    rows: int
    spend: float = 0.0
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    savings: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class Spending:
    """Spend of a log at every cost weight; prompts that cannot be routed cost nothing.

    Parameters
    ----------
    router : Prompter
    """

    def __init__(self, router: Prompter) -> None:
        self.losses = LossReader(router)
        self.rows = 0
        self.spend = 0.0
        self.savings = np.zeros(_BINS)

    def of(self, texts: Any) -> Steps:
        """Return the steps of some prompts. Several threads may call it at once."""
        steps = Steps(len(texts))
        for losses in self.losses.of(texts):
            self.count(losses, steps)
        return steps

    def count(self, losses: Losses, steps: Steps) -> None:
        """Add the steps of prompts with these losses."""
        values, counts = losses.values.astype(np.float64), losses.counts
        best, _, row, costly, cheap, weights = _native.hull_steps(values, losses.costs)
        saved = losses.cost_of(row, costly) - losses.cost_of(row, cheap)
        bins, inverse = np.unique(_bin(weights), return_inverse=True)
        steps.spend += float(losses.cost_of(np.arange(len(counts)), best) @ counts)
        steps.bins = np.append(steps.bins, bins)
        steps.savings = np.append(
            steps.savings, np.bincount(inverse, saved * counts[row], len(bins))
        )

    def add(self, steps: Steps) -> None:
        """Count some prompts."""
        self.rows += steps.rows
        self.spend += steps.spend
        np.add.at(self.savings, steps.bins, steps.savings)

    @property
    def least(self) -> float:
        """What every prompt costs if the cheapest LLM answers it."""
        return float(self.spend - self.savings.sum())

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
                f"budget: {budget:.4g}; expected at least {at_least(after[-1])}, what the cheapest "
                f"LLM takes for these {self.rows:,} prompts"
            )
        # The upper end of the bin: all of its steps are taken there.
        return float(_edge(int(enough[0]) + 1))


def _bin(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    bits = weights.view(np.uint64) >> _SHIFT
    return np.clip(bits.astype(np.int64) - _FIRST, 0, _BINS - 1)


def _edge(number: int) -> float:
    """Return the lower end of a bin."""
    return float(np.uint64((number + _FIRST) << int(_SHIFT)).view(np.float64))
