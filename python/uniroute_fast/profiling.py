"""From an LLM's losses on a few labelled prompts to its profile: one predicted loss a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cluster_counts(
    labels: NDArray[np.integer], losses: NDArray[np.float64], n_clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of losses and the number of outcomes, per cluster and LLM.

    Parameters
    ----------
    labels : int[N]
        Cluster of each prompt, in ``range(n_clusters)``.
    losses : float64[N, M]
        NaN = not run: counted in neither.
    n_clusters : int

    Returns
    -------
    sums, counts : float64[K, M]
    """
    one_hot = np.zeros((n_clusters, len(labels)))
    one_hot[labels, np.arange(len(labels))] = 1.0
    run = ~np.isnan(losses)
    return one_hot @ np.where(run, losses, 0.0), one_hot @ run


def shrunk_means(
    labels: NDArray[np.integer],
    losses: NDArray[np.float64],
    n_clusters: int,
    strength: float = 0.0,
) -> NDArray[np.float64]:
    """Return cluster means of the losses, pulled towards each LLM's overall mean.

    Parameters
    ----------
    labels : int[N]
    losses : float64[N, M]
        NaN = not run.
    n_clusters : int
    strength : float
        How many outcomes the overall mean counts for, 0 or more. 0: the paper's plain cluster
        means (eq. 12), where an empty cluster takes the overall mean.

    Returns
    -------
    float64[K, M]
        An LLM without any outcome has NaN throughout.

    Notes
    -----
    O(N K + K M). With few prompts a cluster, plain means choose the luckiest LLM in place of the
    best: the minimum over many noisy estimates is biased.
    """
    sums, counts = cluster_counts(labels, losses, n_clusters)
    return _pull(sums, counts, _overall(sums, counts), strength)


def hierarchical_means(
    labels: NDArray[np.integer],
    losses: NDArray[np.float64],
    parents: NDArray[np.integer],
    strength: float = 24.0,
) -> NDArray[np.float64]:
    """Return means of fine clusters pulled towards their coarse cluster's, itself so pulled.

    Parameters
    ----------
    labels : int[N]
        Fine cluster of each prompt.
    losses : float64[N, M]
        NaN = not run.
    parents : int[K]
        Coarse cluster of each fine cluster.
    strength : float
        How many outcomes the level above counts for.

    Returns
    -------
    float64[K, M]
        One row a fine cluster.
    """
    sums, counts = cluster_counts(labels, losses, len(parents))
    n_coarse = int(parents.max()) + 1
    member = np.zeros((n_coarse, len(parents)))
    member[parents, np.arange(len(parents))] = 1.0
    coarse = _pull(member @ sums, member @ counts, _overall(sums, counts), strength)
    return _pull(sums, counts, coarse[parents], strength)


def _overall(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = sums.sum(axis=0) / counts.sum(axis=0)
    return mean


def _pull(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    towards: NDArray[np.float64],
    strength: float,
) -> NDArray[np.float64]:
    total = counts + strength
    filled = np.where(total > 0, total, 1.0)
    mean: NDArray[np.float64] = np.where(total > 0, (sums + strength * towards) / filled, towards)
    return mean


class Profiler:
    """Provisional: cluster means shrunk to the overall mean."""

    def __init__(self, strength: float = 24.0) -> None:
        self.strength = strength

    def profile(self, phi, losses):
        labels = phi.argmax(axis=1)
        return shrunk_means(labels, losses, phi.shape[1], self.strength).astype(np.float32)

    def to_parts(self):
        return {"strength": self.strength}, {}

    @classmethod
    def from_parts(cls, params, tensors):
        return cls(params["strength"])


def fit_profiler(embeddings, losses, *, n_clusters=None, seed=0):
    from uniroute_fast.cluster_map import kmeans

    centroids = kmeans(embeddings, n_clusters or min(24, len(embeddings)), seed)
    return [("nearest", centroids)], Profiler()
