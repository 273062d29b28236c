"""What the prompts of each cluster are like: a few of them, for a person who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.parts import part
from uniroute_fast.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.clusters.cluster_map import ClusterMap

#: Characters kept of a prompt.
LENGTH = 160

#: Prompts kept of a cluster at most.
MOST_PROMPTS = 100

#: Prompts looked at, evenly spaced, of those that a router is fitted on.
SAMPLE = 20_000


@dataclass(frozen=True, eq=False)
class Examples:
    """What is kept of the prompts that a router was fitted on.

    Attributes
    ----------
    prompts : list of list of str, one list for each of the K clusters
        The beginnings of a few prompts, the most typical first; empty where none were kept.
    phi : float32[K_1, K]
        Mean cluster weights of the prompts of each cluster of the first head.
    """

    prompts: list[list[str]]
    phi: NDArray[np.float32]

    @classmethod
    def from_parts(cls, prompts: Any, phi: NDArray[Any], sizes: Sequence[int]) -> Examples:
        """Restore what a file holds, for a map whose heads have ``sizes`` clusters.

        Raises
        ------
        ArtifactError
            It is not what `of` makes.
        """
        clusters = sum(sizes)
        if not isinstance(prompts, list) or len(prompts) != clusters:
            raise ArtifactError(
                f"examples: expected a list of prompts for each of {clusters} clusters"
            )
        for k, kept in enumerate(prompts):
            if not isinstance(kept, list) or len(kept) > MOST_PROMPTS:
                raise ArtifactError(
                    f"examples: cluster {k} has no list of prompts, {MOST_PROMPTS} at most"
                )
            if not all(isinstance(text, str) and len(text) <= LENGTH for text in kept):
                raise ArtifactError(
                    f"examples: a prompt of cluster {k} is no text of {LENGTH} characters at most"
                )
        phi = part({"examples.phi": phi}, "examples.phi", (sizes[0], clusters))
        shares = np.add.reduceat(phi, np.cumsum([0, *sizes[:-1]]), axis=1)
        # Zeros where the prompts that were looked at had none of the cluster.
        empty = ~phi.any(axis=1)
        if empty.all() or (phi < 0).any() or (np.abs(shares[~empty] - 1) > 1e-2).any():
            raise ArtifactError("part 'examples.phi' has a row whose weights do not add up to 1")
        return cls(prompts, phi)

    @classmethod
    def of(
        cls,
        cluster_map: ClusterMap,
        embeddings: NDArray[np.float32],
        texts: Sequence[str] | None,
        count: int,
    ) -> Examples:
        """Find the prompts nearest to the weighted mean embedding of each cluster.

        Parameters
        ----------
        cluster_map : ClusterMap
        embeddings : float32[N, D]
        texts : sequence of str, N of them, or None
        count : int
            How many to keep for each cluster; the same text is kept once.

        Notes
        -----
        O(N K D), for 20,000 of the prompts at most.
        """
        step = -(-len(embeddings) // SAMPLE)
        embeddings = embeddings[::step]
        texts = None if texts is None else texts[::step]
        phi = cluster_map.phi(embeddings)
        first = phi[:, : cluster_map.sizes[0]]
        labels = first.argmax(axis=1)
        means = np.zeros((first.shape[1], phi.shape[1]), np.float32)
        for k in np.unique(labels):
            means[k] = phi[labels == k].mean(axis=0)
        prompts: list[list[str]] = [[] for _ in range(phi.shape[1])]
        if texts is not None and count:
            for k, kept in enumerate(prompts):
                for row in _nearest(embeddings, phi[:, k]):
                    text = texts[int(row)][:LENGTH]
                    if text not in kept:
                        kept.append(text)
                    if len(kept) == count:
                        break
        return cls(prompts, means)


def _nearest(embeddings: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the rows that weigh something, the nearest to their weighted mean first."""
    members = np.flatnonzero(weights > 0)
    own, weight = embeddings[members], weights[members, None]
    offsets = own - (own * weight).sum(axis=0) / max(float(weight.sum()), 1e-30)
    distance = np.einsum("nd,nd->n", offsets, offsets)
    # A prompt that half belongs to another cluster is not typical of this one.
    return members[np.argsort(distance / weight[:, 0], kind="stable")]
