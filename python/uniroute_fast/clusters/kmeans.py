"""k-means: centroids of the clusters of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def kmeans(
    embeddings: NDArray[np.float32], n_clusters: int, seed: int = 0, restarts: int = 3
) -> NDArray[np.float32]:
    """Cluster embeddings with k-means and return the centroids.

    Parameters
    ----------
    embeddings : float32[N, D]
    n_clusters : int
        1 to N.
    seed : int
        Same seed and embeddings, same centroids.
    restarts : int
        How many runs: the best is taken, by the sum of squared distances.

    Returns
    -------
    float32[n_clusters, D]

    Raises
    ------
    InvalidArgumentError
        More clusters than embeddings, or none.
    MissingExtraError
        faiss is not installed (extra ``fit``).

    Notes
    -----
    O(restarts x iterations x N K D), 50 iterations at most; faiss does the work. It draws 256
    embeddings a centroid from larger sets.
    """
    if not 1 <= n_clusters <= len(embeddings):
        raise InvalidArgumentError(
            f"n_clusters: {n_clusters}; expected 1 to {len(embeddings)}, the number of prompts"
        )
    faiss = imported("faiss", "fit", "clustering")
    x = np.ascontiguousarray(embeddings, dtype=np.float32)
    search = faiss.Kmeans(
        x.shape[1], n_clusters, niter=50, nredo=restarts, seed=seed, min_points_per_centroid=1
    )
    search.train(x)
    return np.array(search.centroids, dtype=np.float32)
