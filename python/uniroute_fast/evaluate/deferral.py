"""The deferral curve of a routing rule, exactly, and the two figures read off it.

The rule sends prompt x to the LLM with the lowest ``predicted loss + cost_weight x cost``. As the
cost weight falls from infinity to 0, one prompt moves along the lower convex hull of its points
(cost, predicted loss), from the cheapest LLM to the one predicted best. The curve of N prompts
therefore has finitely many corners: one for each distinct slope of those hulls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_costs, as_numbers
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.scalars import as_number
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class DeferralCurve:
    """Mean cost and mean quality of a routing rule as its cost weight falls.

    Attributes
    ----------
    cost : float64[C]
        Mean cost of a prompt at each corner, not decreasing, in the unit of the LLMs' costs.
    quality : float64[C]
        Mean quality of the answers there, in [0, 1]; it may fall where predictions mislead.
    cost_weight : float64[C]
        A cost weight with which the rule gives this corner, decreasing, 0 at the last one. NaN
        where the curve is not that of a cost weight (a mixture that is given by its two ends).
    """

    cost: NDArray[np.float64]
    quality: NDArray[np.float64]
    cost_weight: NDArray[np.float64]

    def at(self, cost: ArrayLike) -> NDArray[np.float64]:
        """Return the quality at a mean cost: linear between corners, flat outside.

        Two neighbouring corners mixed at random give every point of the line between them. At a
        cost with several corners the last counts.

        Parameters
        ----------
        cost : array_like of float
            Budgets of mean cost.

        Returns
        -------
        float64 array of the same shape
        """
        budget = np.asarray(cost, dtype=np.float64)
        right = np.searchsorted(self.cost, budget, side="right")
        left = np.clip(right - 1, 0, None)
        right = np.clip(right, None, len(self.cost) - 1)
        width = self.cost[right] - self.cost[left]
        inside = (budget > self.cost[0]) & (width > 0)
        share = np.where(inside, (budget - self.cost[left]) / np.where(width > 0, width, 1.0), 0.0)
        blend: NDArray[np.float64] = (1 - share) * self.quality[left] + share * self.quality[right]
        return blend


@dataclass(frozen=True, eq=False)
class BlindPlan:
    """A rule that is blind to the prompt: LLMs to use as the budget grows.

    Attributes
    ----------
    models : int[J]
        Indices into the pool, in any order; used by rising cost.
    mixed : bool
        True: between the costs of two neighbours they are mixed at random. False: one LLM serves
        all prompts until the budget pays for the next.
    """

    models: NDArray[np.intp]
    mixed: bool

    def curve(self, quality: NDArray[np.float64], costs: NDArray[np.float64]) -> DeferralCurve:
        """Return the plan's curve, for quality float64[N, M] and costs float64[M]."""
        models = self.models[np.argsort(costs[self.models], kind="stable")]
        cost, mean = costs[models], quality[:, models].mean(axis=0)
        if not self.mixed:  # A vertical step up from each LLM to the next.
            cost, mean = np.repeat(cost, 2)[1:], np.repeat(mean, 2)[:-1]
        return DeferralCurve(cost, mean, np.full(len(cost), np.nan))


def deferral_curve(
    predicted_loss: ArrayLike, quality: ArrayLike, costs: ArrayLike
) -> DeferralCurve:
    """Trace the deferral curve of predicted losses, with every corner and no grid.

    Parameters
    ----------
    predicted_loss : float[N, M], or float[M] for a rule that is blind to the prompt
        Predicted loss of each LLM on each prompt, finite.
    quality : float[N, M]
        Quality of each LLM's answer, finite; usually in [0, 1].
    costs : float[M]
        Mean cost of a prompt, finite and 0 or more.

    Returns
    -------
    DeferralCurve
        From the cheapest LLM to the best predicted one. Ties of the rule go to the lower cost,
        then to the lower index.

    Raises
    ------
    InvalidArgumentError
        Shapes that do not agree, no prompts or LLMs, or a value that is not finite (the message
        names row and column).

    Notes
    -----
    O(N M) time for the hulls, O(N H log(N H)) to sort the steps of hulls of H vertices.
    Rule and curve: Jitkrittum et al., arXiv 2502.08773, eq. 8 and appendix F.2.

    Examples
    --------
    >>> curve = deferral_curve([[0.9, 0.1], [0.2, 0.1]], [[0, 1], [1, 1]], [1, 3])
    >>> curve.cost, curve.quality
    (array([1., 2., 3.]), array([0.5, 1. , 1. ]))
    """
    outcomes = _finite("quality", quality, 2)
    costs = as_costs("costs", costs, outcomes.shape[1])
    predicted = _finite("predicted_loss", predicted_loss, 1 if np.ndim(predicted_loss) == 1 else 2)
    if predicted.shape[-1] != costs.size or predicted.shape[:-1] not in ((), outcomes.shape[:1]):
        raise InvalidArgumentError(
            f"predicted_loss: shape {predicted.shape}; expected {outcomes.shape} as quality has"
        )
    if predicted.ndim == 1:  # One hull stands for all prompts.
        outcomes, predicted = outcomes.mean(axis=0, keepdims=True), predicted[None]
    return _trace(predicted, outcomes, costs)


def area(curve: DeferralCurve, costs: ArrayLike, fraction: float = 1.0) -> float:
    """Return the normalised area under a deferral curve.

    The integral of quality over budgets from the cheapest LLM's cost to ``fraction`` of the way to
    the dearest one's, divided by the *whole* width: ``area(curve, costs, 0.5)`` is thus about half
    of a mean quality. The curve is linear between its corners and flat outside them.

    Parameters
    ----------
    curve : DeferralCurve
    costs : float[M]
        Costs of the pool, which fix the range of budgets.
    fraction : float
        In (0, 1].

    Returns
    -------
    float
        In [0, fraction] for qualities in [0, 1]. Where all costs are equal the limit is returned:
        ``fraction`` times the quality at cost weight 0.

    Raises
    ------
    InvalidArgumentError
        ``fraction`` outside (0, 1], or costs that cannot be used.

    Notes
    -----
    O(C). The normalisation is the one that reproduces the areas printed in arXiv 2502.08773.

    Examples
    --------
    >>> curve = deferral_curve([[0.9, 0.1], [0.2, 0.1]], [[0, 1], [1, 1]], [1, 3])
    >>> area(curve, [1, 3]), area(curve, [1, 3], fraction=0.5)
    (0.875, 0.375)
    """
    costs = as_costs("costs", costs)
    fraction = as_number("fraction", fraction, 0, 1, above=True)
    as_instance("curve", curve, DeferralCurve)
    low, high = float(costs.min()), float(costs.max())
    if low == high:
        return fraction * float(curve.quality[-1])
    end = low + fraction * (high - low)
    inside = (curve.cost > low) & (curve.cost < end)
    x = np.concatenate([[low], curve.cost[inside], [end]])
    y = np.concatenate([curve.at([low]), curve.quality[inside], _from_left(curve, end)])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / (high - low))


def area_of(predicted_loss: ArrayLike, quality: ArrayLike, costs: ArrayLike) -> float:
    """Return the `area` under the `deferral_curve` of predicted losses."""
    return area(deferral_curve(predicted_loss, quality, costs), costs)


def qnc(curve: DeferralCurve, quality: ArrayLike, costs: ArrayLike) -> float:
    """Return the quality-neutral cost: what it takes to equal the best single LLM, relatively.

    The smallest mean cost at which the curve reaches the mean quality of the most accurate single
    LLM, divided by that LLM's cost (the cheapest one's, should several be the most accurate).

    Parameters
    ----------
    curve : DeferralCurve
    quality : float[N, M]
        Quality of every LLM on the prompts of the curve.
    costs : float[M]

    Returns
    -------
    float
        In [0, 1]: capped at 1, also when the curve never reaches that quality.
        `reaches_best` tells the two apart.

    Raises
    ------
    InvalidArgumentError
        Values or shapes that cannot be used.

    Examples
    --------
    >>> quality = [[0, 1], [1, 1]]
    >>> qnc(deferral_curve([[0.9, 0.1], [0.2, 0.1]], quality, [1, 3]), quality, [1, 3])
    0.6666666666666666
    """
    as_instance("curve", curve, DeferralCurve)
    target, reference = _best_single(quality, costs)
    reached = _first_cost(curve, target)
    if reached is None:
        return 1.0
    return min(reached / reference, 1.0) if reference > 0 else 1.0


def reaches_best(curve: DeferralCurve, quality: ArrayLike, costs: ArrayLike) -> bool:
    """Tell whether a curve reaches the quality of the most accurate single LLM at any cost."""
    return _first_cost(curve, _best_single(quality, costs)[0]) is not None


def _finite(name: str, values: ArrayLike, ndim: int) -> NDArray[np.float64]:
    array = as_numbers(name, values)
    if array.ndim != ndim or not array.size:
        raise InvalidArgumentError(
            f"{name}: shape {array.shape}; expected [N, M], neither of them 0"
        )
    array = array.astype(np.float64)
    bad = ~np.isfinite(array)
    if bad.any():
        where = [int(i) for i in np.argwhere(bad)[0]]
        raise InvalidArgumentError(
            f"{name}: {array[tuple(where)]} at {where}; expected finite values"
        )
    return array


def _trace(
    predicted: NDArray[np.float64], quality: NDArray[np.float64], costs: NDArray[np.float64]
) -> DeferralCurve:
    """Add up the steps that all prompts take along their hulls, in the order they take them."""
    n = len(predicted)
    _, start, at, costly, cheap, weight = _native.hull_steps(predicted, costs)
    order = np.argsort(-weight, kind="stable")
    weight = weight[order]
    # Prompts that step at the same cost weight step together: one corner after the last of them.
    last = np.flatnonzero(np.diff(weight, append=-np.inf))
    spent = np.cumsum((costs[costly] - costs[cheap])[order])[last]
    gained = np.cumsum((quality[at, costly] - quality[at, cheap])[order])[last]
    return DeferralCurve(
        costs[start].mean() + np.concatenate([[0.0], spent]) / n,
        quality[np.arange(n), start].mean() + np.concatenate([[0.0], gained]) / n,
        _weights_between(weight[last]),
    )


def _weights_between(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cost weights well inside the ranges that the steps (decreasing) bound."""
    if not steps.size:
        return np.zeros(1)
    middle = steps[1:] + (steps[:-1] - steps[1:]) / 2
    return np.concatenate([[2 * steps[0]], middle, [0.0]])


def _best_single(quality: ArrayLike, costs: ArrayLike) -> tuple[float, float]:
    quality = _finite("quality", quality, 2)
    costs = as_costs("costs", costs, quality.shape[1])
    means = quality.mean(axis=0)
    return float(means.max()), float(costs[means == means.max()].min())


def _first_cost(curve: DeferralCurve, target: float) -> float | None:
    """Return the smallest cost at which the curve is at ``target`` or above it."""
    # Means of the same outcomes in another order differ by rounding: 1e-12 is far above that and
    # far below one answer in a million prompts.
    above = np.flatnonzero(curve.quality >= target - 1e-12)
    if not above.size:
        return None
    right = int(above[0])
    if right == 0:
        return float(curve.cost[0])
    left = right - 1
    gain = curve.quality[right] - curve.quality[left]
    share = min((target - curve.quality[left]) / gain, 1.0)
    return float(curve.cost[left] + share * (curve.cost[right] - curve.cost[left]))


def _from_left(curve: DeferralCurve, cost: float) -> NDArray[np.float64]:
    """Return the quality just below a cost: before any vertical step there."""
    right = int(np.searchsorted(curve.cost, cost, side="left"))
    if right == 0 or right == len(curve.cost):
        return curve.at([cost])
    x, y = curve.cost[right - 1 : right + 1], curve.quality[right - 1 : right + 1]
    return np.array([y[0] + (cost - x[0]) / (x[1] - x[0]) * (y[1] - y[0])])
