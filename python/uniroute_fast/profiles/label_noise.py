"""Labels of which a known share is wrong: what they would have summed up to, had all been right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uniroute_fast._checks.scalars import as_number
from uniroute_fast.profiles.evidence import Evidence


def without_flips(evidence: Evidence, rate: float, *, discount: bool) -> Evidence:
    """Correct sums of outcomes for labels that were flipped at random.

    A loss y was reported as 1 - y with probability r. So ``(reported - r) / (1 - 2 r)`` has the
    true loss as its mean: sums of it are unbiased, at the price of more variance.

    Parameters
    ----------
    evidence : Evidence
    rate : float
        r, 0 or more and below 1/2.
    discount : bool
        Let an outcome count for less than one, by the share of its variance that is not of the
        flips: for profilers that take the variance of outcomes as given.

    Returns
    -------
    Evidence

    Raises
    ------
    ArgumentTypeError, InvalidArgumentError
        The rate is no number, or out of range.

    Notes
    -----
    Natarajan et al., "Learning with noisy labels", NeurIPS 2013: the unbiased estimator of a loss.
    O(K M).
    """
    rate = as_number("flip_rate", rate, 0, 0.5, below=True)
    if rate == 0:
        return evidence
    kept = 1 - 2 * rate
    count = evidence.count
    total = np.clip((evidence.total - rate * count) / kept, 0, count)
    # y² is reported as (1 - y)² = y² + 1 - 2 y; no mean square lies outside [mean², mean].
    square = evidence.total_square - rate * (count - 2 * total)
    square = np.clip(square, total**2 / count, total)
    corrected = replace(
        evidence,
        loss=(evidence.loss - rate * evidence.phi) / kept,
        square=(evidence.square - 2 * rate * evidence.loss + rate**2 * evidence.phi) / kept**2,
        total=total,
        total_square=square,
    )
    if not discount:
        return corrected
    variance = float(np.mean(square / count - (total / count) ** 2))
    return _scaled(corrected, variance / (variance + rate * (1 - rate) / kept**2))


def _scaled(evidence: Evidence, share: float) -> Evidence:
    """Return the evidence with every outcome counting for that share of one."""
    share = max(share, 1e-3)
    sums = ("gram", "phi", "loss", "square", "count", "total", "total_square")
    return replace(evidence, **{name: share * getattr(evidence, name) for name in sums})
