"""Standard errors and the sign test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def two_standard_errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return two standard errors of the mean down the rows; NaN for a single row."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    error: NDArray[np.float64] = 2 * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return error


def sign_test(
    ours: NDArray[np.float64], reference: NDArray[np.float64]
) -> tuple[int, int, int, float]:
    """Compare paired values by the two-sided sign test; ties are left out.

    Returns
    -------
    wins, losses, ties : int
    p : float
        Probability of a split at least as uneven if each side won with probability 1/2.

    Examples
    --------
    >>> sign_test(np.array([2.0, 2, 2, 2, 2, 2]), np.array([1.0, 1, 1, 1, 1, 1]))
    (6, 0, 0, 0.03125)
    """
    wins, losses = int((ours > reference).sum()), int((ours < reference).sum())
    n = wins + losses
    tail = sum(math.comb(n, i) for i in range(min(wins, losses) + 1)) / 2**n
    return wins, losses, len(ours) - n, min(1.0, 2 * tail)
