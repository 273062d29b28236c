"""From an embedding to clusters: the cluster map Phi, and the heads that fitting makes one of.

`ClusterMap` is the one that routing goes by. A head gives each embedding weights over its own
clusters, which add up to 1: all of it on the nearest centroid (`hard_map`), or a softmax of linear
scores (`SoftmaxHead`). The predicted loss of an LLM is the product of these weights and its
profile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._native import ClusterMap, shares_out_of_distribution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast._native import _Head

__all__ = ["FLOOR", "ClusterMap", "SoftmaxHead", "hard_map", "shares_out_of_distribution"]

#: Weights below this share of the largest are left out: routing then reads a few rows of the
#: profiles in place of all. ``bench/floor.py`` prints what it does to Area.
FLOOR = 1 / 64


def hard_map(centroids: NDArray[np.float32]) -> ClusterMap:
    """Return the map that gives all weight to the nearest of the centroids, float32[K, D]."""
    return ClusterMap([("nearest", centroids)])


@dataclass(frozen=True, eq=False)
class SoftmaxHead:
    """Weights softmax(``weights`` e + ``bias``) for an embedding e, without those below `FLOOR`.

    Attributes
    ----------
    weights : float32[K, D]
    bias : float32[K]
    background : bool
        The last cluster has the same score for every prompt. It takes the weight of prompts far
        from all others, and an LLM's profile there is its overall mean.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    background: bool = False

    @classmethod
    def around(cls, centroids: NDArray[np.float32], sharpness: float) -> SoftmaxHead:
        """Return the head whose scores are ``-sharpness / 2`` x squared distance to a centroid.

        The term that all clusters share is left out: it does not change a softmax.
        """
        half = np.einsum("kd,kd->k", centroids, centroids) / 2
        return cls(
            np.asarray(sharpness * centroids, dtype=np.float32),
            np.asarray(-sharpness * half, dtype=np.float32),
        )

    def with_background(self, score: float) -> SoftmaxHead:
        """Return the head with a background cluster of that score."""
        row = np.zeros((1, self.weights.shape[1]), dtype=np.float32)
        bias = np.append(self.bias, np.float32(score))
        return replace(self, weights=np.vstack([self.weights, row]), bias=bias, background=True)

    def closeness(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log sum exp of the scores, float32[N]: how close prompts are to the clusters."""
        scores = embeddings @ self.weights.T + self.bias
        top = scores.max(axis=1)
        return np.asarray(top + np.log(np.exp(scores - top[:, None]).sum(axis=1)))

    def part(self) -> _Head:
        """Return the head as `ClusterMap` takes it."""
        return ("softmax", self.weights, self.bias, FLOOR, self.background)

    def phi(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weights, float32[N, K], of the map with no other head."""
        return ClusterMap([self.part()]).phi(embeddings)
