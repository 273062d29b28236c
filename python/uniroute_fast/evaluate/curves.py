"""Deferral curves of several trials as one curve with a band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.evaluate.statistics import two_standard_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from uniroute_fast.evaluate.deferral import DeferralCurve

#: Budgets at which curves are averaged: from the cheapest LLM's cost (0) to the dearest one's (1).
#: Pools differ between trials, so budgets are shares of each pool's own range.
BUDGETS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """A method's mean deferral curve over trials.

    Attributes
    ----------
    quality, quality_2se : float64[101]
        Mean quality at each of `BUDGETS`, and two standard errors of it; NaN for one trial.
    gain, gain_2se : float64[101]
        Quality less the reference method's in the same trial.
    """

    quality: NDArray[np.float64]
    quality_2se: NDArray[np.float64]
    gain: NDArray[np.float64]
    gain_2se: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists of numbers."""
        return {name: values.tolist() for name, values in vars(self).items()}


def mean_curves(
    curves: Mapping[str, Sequence[DeferralCurve]],
    cost_ranges: NDArray[np.float64],
    reference: str,
) -> dict[str, MeanCurve]:
    """Average every method's curves over trials.

    Parameters
    ----------
    curves : dict of str to list of DeferralCurve
        Every trial's curve by method.
    cost_ranges : float64[trials, 2]
        Least and greatest cost of each trial's pool.
    reference : str
        The method that gains are against.
    """
    low, high = cost_ranges.T
    budgets = low[:, None] + BUDGETS * (high - low)[:, None]
    qualities = {
        name: np.array([curve.at(at) for curve, at in zip(trials, budgets, strict=True)])
        for name, trials in curves.items()
    }
    return {
        name: MeanCurve(
            quality.mean(axis=0),
            two_standard_errors(quality),
            (quality - qualities[reference]).mean(axis=0),
            two_standard_errors(quality - qualities[reference]),
        )
        for name, quality in qualities.items()
    }
