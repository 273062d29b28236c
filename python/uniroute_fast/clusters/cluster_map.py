"""From an embedding to clusters: the cluster map Phi.

A map is a list of heads, side by side. A head gives each embedding weights over its own clusters,
which add up to 1: all of it on the nearest centroid (`NearestHead`), or a softmax of linear scores
(`SoftmaxHead`). The predicted loss of an LLM is then the product of these weights and its profile.
`Familiarity` moves foreign prompts to each head's background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from uniroute_fast._checks.parts import Parts, above_zero, part
from uniroute_fast._checks.scalars import shown
from uniroute_fast.clusters.kmeans import assign
from uniroute_fast.clusters.nearest import nearest_centroid
from uniroute_fast.errors import ArtifactError, InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Weights below this share of the largest are left out: routing then reads a few rows of the
#: profiles in place of all. ``bench/floor.py`` prints what it does to Area.
FLOOR = 1 / 64


#: Foreign shares below this one change nothing, as in Rust.
NEGLIGIBLE = 1 / 64


@dataclass(frozen=True, eq=False)
class NearestHead:
    """All weight on the nearest of K centroids.

    Attributes
    ----------
    centroids : float32[K, D]
    """

    centroids: NDArray[np.float32]

    @property
    def n_clusters(self) -> int:
        """K."""
        return len(self.centroids)

    def phi(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weights, float32[N, K]: one 1 in each row."""
        weights = np.zeros((len(embeddings), self.n_clusters), dtype=np.float32)
        weights[np.arange(len(embeddings)), assign(embeddings, self.centroids)] = 1
        return weights


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
        return SoftmaxHead(
            np.vstack([self.weights, row]),
            np.append(self.bias, np.float32(score)),
            background=True,
        )

    @property
    def n_clusters(self) -> int:
        """K."""
        return len(self.weights)

    def closeness(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log sum exp of the scores, float32[N]: how close prompts are to the clusters."""
        scores = embeddings @ self.weights.T + self.bias
        top = scores.max(axis=1)
        return np.asarray(top + np.log(np.exp(scores - top[:, None]).sum(axis=1)))

    def phi(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weights, float32[N, K]."""
        scores = embeddings @ self.weights.T + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores[scores < FLOOR] = 0
        scores /= scores.sum(axis=1, keepdims=True)
        return np.asarray(scores, dtype=np.float32)


Head: TypeAlias = NearestHead | SoftmaxHead


@dataclass(frozen=True, eq=False)
class Familiarity:
    """How near a prompt is to those that the map was fitted on.

    Attributes
    ----------
    landmarks : float32[L, D]
        Centroids, many more than a head has: together they lie close to every familiar prompt.
    distance : float
        Squared distance to the nearest landmark at which a prompt is half foreign.
    """

    landmarks: NDArray[np.float32]
    distance: float

    def foreign(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how foreign prompts are, float32[N], 0 to 1: see `foreign_shares`. O(N L D)."""
        _, squared = nearest_centroid(embeddings, self.landmarks)
        return foreign_shares(squared, self.distance)


def foreign_shares(squared: NDArray[np.float32], distance: float) -> NDArray[np.float32]:
    """Return r⁸ / (1 + r⁸) for r = squared / distance, float32[N]: how foreign prompts are.

    Half at the distance, and shares below `NEGLIGIBLE` are 0. Routing computes the same in Rust.
    """
    # Farther ones are as foreign; the power stays finite.
    ratio = np.minimum(squared / np.float32(distance), np.float32(4))
    fourth = np.square(np.square(ratio))
    share = np.square(fourth) / (1 + np.square(fourth))
    return np.where(share < NEGLIGIBLE, np.float32(0), share)


def moved_to_background(
    phi: NDArray[np.float32], sizes: Sequence[int], foreign: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return phi float32[N, K_total] with a share of each head's weight on its last cluster."""
    moved = phi * (1 - foreign[:, None])
    moved[:, np.cumsum(sizes) - 1] += foreign[:, None]
    return moved


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """Heads side by side.

    Parameters
    ----------
    heads : sequence of Head
        At least one; all for embeddings of the same dimension.
    familiarity : Familiarity, optional
        For softmax heads that all have a background, to which foreign prompts are moved.

    Examples
    --------
    >>> import numpy as np
    >>> two = ClusterMap([NearestHead(np.eye(2, dtype=np.float32))])
    >>> two.phi(np.array([[0.1, 0.9]], dtype=np.float32))
    array([[0., 1.]], dtype=float32)
    """

    heads: Sequence[Head]
    familiarity: Familiarity | None = None

    @property
    def sizes(self) -> list[int]:
        """Clusters of each head."""
        return [head.n_clusters for head in self.heads]

    @property
    def n_clusters(self) -> int:
        """Clusters of all heads together, K_total."""
        return sum(self.sizes)

    @property
    def backgrounds(self) -> frozenset[int]:
        """The heads' backgrounds, where they have one."""
        ends = np.cumsum(self.sizes) - 1
        of = [isinstance(head, SoftmaxHead) and head.background for head in self.heads]
        return frozenset(ends[of].tolist())

    @property
    def dim(self) -> int:
        """Dimensions of the embeddings, D."""
        head = self.heads[0]
        return int((head.centroids if isinstance(head, NearestHead) else head.weights).shape[1])

    def phi(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cluster weights of embeddings float32[N, D], float32[N, K_total].

        O(N K D). Routing computes the same in Rust.

        Raises
        ------
        InvalidArgumentError
            Embeddings of another shape, or not finite.
        """
        embeddings = np.asarray(embeddings, dtype=np.float32)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim:
            raise InvalidArgumentError(
                f"embeddings: shape {embeddings.shape}; expected (N, {self.dim})"
            )
        if not np.isfinite(embeddings).all():
            row = int(np.argmin(np.isfinite(embeddings).all(axis=1)))
            raise InvalidArgumentError(f"embeddings[{row}] has a value that is not finite")
        phi = np.hstack([head.phi(embeddings) for head in self.heads])
        if self.familiarity is None:
            return phi
        return moved_to_background(phi, self.sizes, self.familiarity.foreign(embeddings))

    def to_native(self) -> list[Any]:
        """Return the parts as the router in Rust takes them."""
        parts: list[Any] = [
            ("nearest", head.centroids)
            if isinstance(head, NearestHead)
            else ("softmax", head.weights, head.bias, FLOOR)
            for head in self.heads
        ]
        if self.familiarity is not None:
            parts.append(("familiarity", self.familiarity.landmarks, self.familiarity.distance))
        return parts

    def to_parts(self) -> Parts:
        """Return what `from_parts` restores the map from."""
        arrays: dict[str, NDArray[Any]] = {}
        kinds = []
        for i, head in enumerate(self.heads):
            if isinstance(head, NearestHead):
                kinds.append("nearest")
                arrays[f"head{i}.centroids"] = head.centroids
            else:
                kinds.append("softmax+background" if head.background else "softmax")
                arrays[f"head{i}.weights"] = head.weights
                arrays[f"head{i}.bias"] = head.bias
        meta: dict[str, Any] = {"heads": kinds}
        if self.familiarity is not None:
            arrays["landmarks"] = self.familiarity.landmarks
            meta["familiarity"] = self.familiarity.distance
        return arrays, meta

    @classmethod
    def from_parts(cls, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> ClusterMap:
        """Restore a map from `to_parts`.

        Raises
        ------
        ArtifactError
            A part is missing or unknown, or not as the others ask.
        """
        heads: list[Head] = []
        dim = None
        try:
            kinds = meta["heads"]
            if not isinstance(kinds, list) or not kinds:
                raise ArtifactError(
                    f"cluster map: heads are {shown(kinds)}; expected a list of kinds"
                )
            for i, kind in enumerate(kinds):
                if kind == "nearest":
                    heads.append(NearestHead(part(arrays, f"head{i}.centroids", (None, dim))))
                elif kind in ("softmax", "softmax+background"):
                    weights = part(arrays, f"head{i}.weights", (None, dim))
                    bias = part(arrays, f"head{i}.bias", (len(weights),))
                    heads.append(SoftmaxHead(weights, bias, kind == "softmax+background"))
                else:
                    raise ArtifactError(f"cluster map: head {i} is of unknown kind {shown(kind)!r}")
                dim = cls(heads).dim
            familiarity = None
            if "familiarity" in meta:
                landmarks = part(arrays, "landmarks", (None, dim))
                distance = above_zero("cluster map: distance to landmarks", meta["familiarity"])
                familiarity = Familiarity(landmarks, distance)
        except KeyError as error:
            raise ArtifactError(f"cluster map: part {error} is missing") from error
        if familiarity is not None and not all(
            isinstance(head, SoftmaxHead) and head.background for head in heads
        ):
            raise ArtifactError("cluster map: landmarks, but a head without a background")
        return cls(heads, familiarity)
