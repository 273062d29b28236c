"""Means of clusters, pulled towards those of larger ones: no prior from seen LLMs is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.profiles.evidence import Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray


def shrunk_means(evidence: Evidence, strength: float = 0.0) -> NDArray[np.float64]:
    """Return cluster means of the losses, pulled towards each LLM's overall mean.

    Parameters
    ----------
    evidence : Evidence
        Under a hard map.
    strength : float
        How many outcomes the overall mean counts for, 0 or more. 0: the paper's plain cluster
        means (eq. 12), where an empty cluster takes the overall mean.

    Returns
    -------
    float64[K, M]

    Notes
    -----
    O(K M). With few prompts a cluster, plain means choose the luckiest LLM in place of the best:
    the minimum over many noisy estimates is biased.
    """
    return _pulled(evidence.loss, evidence.phi, evidence.mean, strength)


def hierarchical(
    loss: NDArray[np.float64],
    count: NDArray[np.float64],
    parents: NDArray[np.intp],
    strength: float,
) -> NDArray[np.float64]:
    """Return means of fine clusters pulled towards their coarse cluster's, itself so pulled.

    Parameters
    ----------
    loss, count : float64[K, M]
        Sums of losses and numbers of outcomes: ``loss`` and ``phi`` of `Evidence`.
    parents : intp[K]
        Coarse cluster of each fine cluster.
    strength : float
        How many outcomes the level above counts for.

    Returns
    -------
    float64[K, M]
    """
    member = _membership(parents)
    overall = loss.sum(axis=0) / count.sum(axis=0)
    coarse = _pulled(member @ loss, member @ count, overall, strength)
    return _pulled(loss, count, coarse[parents], strength)


def left_out_error(
    evidence: Evidence, parents: NDArray[np.intp], strength: float
) -> NDArray[np.float64]:
    """Return each LLM's squared errors of `hierarchical`, every outcome predicted from the others.

    An outcome y in fine cluster k is predicted by a + b y with the same a, b for all outcomes of
    that cluster and LLM, so that sums of y and y² are enough. O(K M).
    """
    loss, count = evidence.loss, evidence.phi
    member = _membership(parents)
    coarse_loss, coarse_count = (member @ loss)[parents], (member @ count)[parents]
    # Prediction from all other outcomes = (sum above, less y) and so on up the hierarchy: linear
    # in y, with constants a and slopes b from the top down.
    others = np.maximum(count.sum(axis=0) - 1, 1.0)
    a, b = loss.sum(axis=0) / others, -1 / others
    for total, number in ((coarse_loss, coarse_count), (loss, count)):
        weight = np.maximum(number - 1, 0.0) + strength
        a, b = (total + strength * a) / weight, (-1 + strength * b) / weight
    # Sum of (y - a - b y)² over the cluster's outcomes.
    slope = 1 - b
    squares = slope**2 * evidence.square - 2 * slope * a * loss + a**2 * count
    return np.asarray(np.where(count > 0, squares, 0.0).sum(axis=0))


def _membership(parents: NDArray[np.intp]) -> NDArray[np.float64]:
    member = np.zeros((int(parents.max()) + 1, len(parents)))
    member[parents, np.arange(len(parents))] = 1.0
    return member


def _pulled(
    loss: NDArray[np.float64],
    count: NDArray[np.float64],
    towards: NDArray[np.float64],
    strength: float,
) -> NDArray[np.float64]:
    total = count + strength
    filled = np.where(total > 0, total, 1.0)
    return np.where(total > 0, (loss + strength * towards) / filled, towards)
