"""Are standard errors as large as the errors? Measured on clusters of prompts, and put right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from uniroute_fast.profiles.bayes import Posterior

#: Fewest prompts of a cluster to compare by, and the share of intervals that should hold the truth.
MIN_PROMPTS, COVERAGE = 20, 0.9

#: Standard errors either side that a Gaussian interval of that share takes.
Z = 1.6449


def cluster_errors(
    posteriors: Sequence[Posterior],
    sizes: Sequence[int],
    phi: NDArray[np.float32],
    losses: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Compare predicted with actual mean losses over the prompts of each cluster.

    Parameters
    ----------
    posteriors : sequence of Posterior
        One for each head.
    sizes : sequence of int
        Clusters of each head, a background among them.
    phi : float32[N, K_total]
        Of prompts that the profiles do not know.
    losses : float64[N, M]
        Complete.
    mean : float64[M]
        Of each LLM over its labelled prompts: what the background predicts.

    Returns
    -------
    float64[n, 3]
        For each LLM and each cluster of 20 prompts or more (those that weigh most on it): the
        squared error, the predicted variance, and the variance of the actual mean, a sample.
    """
    found: list[NDArray[np.float64]] = []
    for profile, head in zip(posteriors, np.split(phi, np.cumsum(sizes)[:-1], axis=1), strict=True):
        count = len(profile.mean)
        labels = head.argmax(axis=1)
        for k in np.flatnonzero(np.bincount(labels, minlength=count)[:count] >= MIN_PROMPTS):
            members = labels == k
            weights = head[members].mean(axis=0, dtype=np.float64)
            predicted = weights[:count] @ profile.mean + weights[count:].sum() * mean
            by_pattern = np.einsum(
                "k,pkl,l->p", weights[:count], profile.covariance, weights[:count]
            )
            variance = by_pattern[profile.pattern] * profile.scale**2
            actual = losses[members].mean(axis=0)
            # Two more outcomes, one of them a failure: a sample without any has an error, too.
            n = members.sum()
            smoothed = (n * actual + 1) / (n + 2)
            sampling = smoothed * (1 - smoothed) / n
            found.append(np.column_stack([(predicted - actual) ** 2, variance, sampling]))
    return np.concatenate(found) if found else np.zeros((0, 3))


def coverage(errors: NDArray[np.float64], inflation: float = 1.0) -> float:
    """Return the share of errors that 90% intervals hold, standard errors inflated so much."""
    squared, variance, sampling = errors.T
    return float(np.mean(squared <= Z**2 * (inflation**2 * variance + sampling)))


def inflation(rehearsals: Iterable[NDArray[np.float64]]) -> float:
    """Return the factor on standard errors with which 90% intervals hold 90% of the errors.

    The median over rehearsals: the errors of one are not independent, as all of its LLMs meet the
    same prompts, and one in which they were unusual ones should not decide.

    1 to 4; 1 where there is nothing to compare.
    """
    factors = [_inflation(errors) for errors in rehearsals if len(errors)]
    return float(np.clip(np.median(factors), 1.0, 4.0)) if factors else 1.0


def _inflation(errors: NDArray[np.float64]) -> float:
    squared, variance, sampling = errors.T
    needed = np.sqrt(np.maximum(squared / Z**2 - sampling, 0.0) / variance)
    return float(np.quantile(needed, COVERAGE))
