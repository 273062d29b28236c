"""Fitting a profiler on training prompts: with seen LLMs, or without.

Where LLMs were seen, settings are chosen by routing these as if they were new: see
`uniroute_fast.profiles.rehearsal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.arrays import as_costs, as_losses
from uniroute_fast.clusters.attributes import attribute_head
from uniroute_fast.clusters.cluster_map import ClusterMap, SoftmaxHead, hard_map
from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.clusters.nearest import nearest_centroid
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.profiles.bayes import fit_priors
from uniroute_fast.profiles.known_prompts import KnownPrompts
from uniroute_fast.profiles.profilers import AnyProfiler, BayesProfiler, MeansProfiler
from uniroute_fast.profiles.rehearsal import Area, Settings, choose

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


#: Clusters of the hard map that serves where no LLM was seen: fine ones under coarse ones.
FINE, COARSE = 100, 20

#: Clusters of the soft heads whose predictions are averaged.
SOFT = (12, 24, 48)

#: Most clusters of the head that attributes give.
ATTRIBUTE_CLUSTERS = 24

#: Sharpness of the soft heads, in units of one over the mean squared distance to a centroid.
SHARPNESS = 8.0

#: A prompt less close to the clusters than this share of the training prompts gives more than half
#: of its weight to the background: its profile falls back to the overall mean.
FARTHEST_SHARE = 0.02

#: Landmarks, by which prompts out of distribution are found: how many at most, one for how many
#: prompts at least, and from how many distinct prompts on.
LANDMARKS, PROMPTS_A_LANDMARK, MIN_LANDMARKED = 400, 5, 100

#: Prompts stand in a few places where half of them are closer to a landmark than this share of
#: their variance.
TIGHT = 1e-6

#: Parts of the training prompts; each is held against landmarks of the others.
FOLDS = 3


def fit_profiler(
    embeddings: NDArray[np.float32],
    seen_losses: ArrayLike | None = None,
    seen_costs: ArrayLike | None = None,
    *,
    keys: NDArray[np.uint64] | None = None,
    n_clusters: int | None = None,
    attributes: NDArray[np.float64] | None = None,
    seed: int = 0,
    area: Area | None = None,
) -> AnyProfiler:
    """Fit a profiler on training prompts.

    Parameters
    ----------
    embeddings : float32[N, D]
        Of the training prompts.
    seen_losses : float[N, S], optional
        Losses in [0, 1] of already evaluated LLMs on the same prompts, NaN = not run. One LLM
        alone counts as none: a prior needs two.
    seen_costs : float[S], optional
        Their costs. With them, settings are chosen for the area under the deferral curve; without,
        for quality alone.
    keys : uint64[N], optional
        Of the training prompts: see `uniroute_fast.profiles.known_prompts.prompt_keys`. With them,
        outcomes of new LLMs on these prompts count for more than on others.
    n_clusters : int, optional
        1 to N. Default: 12, 24 and 48 side by side where LLMs were seen, 100 where there are none;
        fewer where prompts are few.
    attributes : float64[N, A], optional
        Of the training prompts, in [0, 1]: clusters are then of these, 24 at most by default.
    seed : int
        Same seed and inputs, same profiler.
    area : callable, optional
        What routing by some predictions is worth, by which settings are chosen:
        `uniroute_fast.evaluate.area_of`. Default: settings are not chosen but those that serve
        where few LLMs were seen.

    Raises
    ------
    InvalidArgumentError
        Shapes or values that cannot be used; the message names the argument.
    MissingExtraError
        faiss is not installed (extra ``fit``).
    """
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or not embeddings.size:
        raise InvalidArgumentError(f"embeddings: shape {embeddings.shape}; expected (N, D)")
    if n_clusters is not None and not 1 <= n_clusters <= len(embeddings):
        raise InvalidArgumentError(
            f"n_clusters: {n_clusters}; expected 1 to {len(embeddings)}, the number of prompts"
        )
    head = None
    if attributes is not None:
        head = attribute_head(embeddings, attributes, n_clusters or ATTRIBUTE_CLUSTERS, seed)
    if seen_losses is None:
        return _fit_means(embeddings, n_clusters, head, seed)
    losses = as_losses("seen_losses", seen_losses, len(embeddings))
    if losses.shape[1] < 2:  # One LLM says nothing of how LLMs differ.
        return _fit_means(embeddings, n_clusters, head, seed)
    empty = np.isnan(losses).all(axis=0)
    if empty.any():
        raise InvalidArgumentError(
            f"seen_losses: column {int(np.argmax(empty))} has no outcome; expected one or more"
        )
    if seen_costs is None:
        seen_costs = np.zeros(losses.shape[1])
    costs = as_costs("seen_costs", seen_costs, losses.shape[1])
    if head is None:
        sizes = [n_clusters] if n_clusters else _soft_sizes(len(losses))
        heads = [_soft_head(embeddings, size, seed) for size in sizes]
    else:
        heads = [_with_background(head, embeddings)]
    return _fit_bayes(
        ClusterMap([head.part() for head in heads]), embeddings, losses, costs, keys, seed, area
    )


def _fit_means(
    embeddings: NDArray[np.float32], n_clusters: int | None, head: SoftmaxHead | None, seed: int
) -> MeansProfiler:
    if head is not None:
        return MeansProfiler(ClusterMap([head.part()]), np.zeros(len(head.bias), np.intp))
    count = n_clusters or max(1, min(FINE, len(embeddings) // 5))
    fine = kmeans(embeddings, count, seed)
    coarse = kmeans(embeddings, max(1, min(COARSE, count // 5)), seed)
    parents, _ = nearest_centroid(fine, coarse)
    return MeansProfiler(hard_map(fine), parents.astype(np.intp))


def _fit_bayes(
    cluster_map: ClusterMap,
    embeddings: NDArray[np.float32],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    keys: NDArray[np.uint64] | None,
    seed: int,
    area: Area | None,
) -> BayesProfiler:
    phi = cluster_map.phi(embeddings)
    distinct, index = _distinct(embeddings)
    distances = _distances_to_others(distinct, seed)
    if distances is not None:
        distances = distances[index]
    settings = Settings()
    if area is not None:
        settings = choose(phi, cluster_map.sizes, losses, costs, distances, seed, area)
    if distances is not None and settings.familiar is not None:
        distance = float(np.quantile(distances, settings.familiar))
        landmarks = _landmarks(distinct, seed)
        cluster_map = ClusterMap([*cluster_map.heads(), ("familiarity", landmarks, distance)])
        phi = cluster_map.phi(embeddings)
    priors, factors = fit_priors(phi, cluster_map.sizes, losses)
    if keys is None:
        keys, factors = np.zeros(0, np.uint64), factors[:0]
    # A prompt that was given several times is known by all that its copies say.
    keys, copy_of = np.unique(keys, return_inverse=True)
    known = np.zeros((len(keys), factors.shape[1]))
    np.add.at(known, copy_of, factors)
    known /= np.bincount(copy_of)[:, None]
    return BayesProfiler(
        cluster_map,
        priors,
        KnownPrompts(keys, known.astype(np.float32)),
        phi.mean(axis=0, dtype=np.float64),
        settings.spread,
        settings.trust,
        settings.inflation,
    )


def _soft_head(embeddings: NDArray[np.float32], n_clusters: int, seed: int) -> SoftmaxHead:
    """Return a softmax head around k-means centroids, as sharp as `SHARPNESS` says."""
    centroids = kmeans(embeddings, n_clusters, seed)
    _, squared = nearest_centroid(embeddings, centroids)
    width = float(squared.mean(dtype=np.float64))
    head = SoftmaxHead.around(centroids, SHARPNESS / max(width, 1e-6))
    return _with_background(head, embeddings)


def _with_background(head: SoftmaxHead, embeddings: NDArray[np.float32]) -> SoftmaxHead:
    return head.with_background(float(np.quantile(head.closeness(embeddings), FARTHEST_SHARE)))


def _distinct(
    embeddings: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the distinct embeddings, and which of them each one is."""
    # By one number each, of a random direction: rows are slow to sort.
    direction = np.random.default_rng(0).normal(size=embeddings.shape[1])
    _, first, index = np.unique(embeddings @ direction, return_index=True, return_inverse=True)
    return embeddings[first], index.reshape(-1)


def _distances_to_others(distinct: NDArray[np.float32], seed: int) -> NDArray[np.float32] | None:
    """Return each prompt's squared distance to the nearest landmark of others, float32[N].

    None where there are too few prompts, or they stand in a few places: any other one would be out
    of distribution. The clusters of the heads are so wide that prompts of a task never seen before
    may lie in one of them.
    """
    if len(distinct) < MIN_LANDMARKED:
        return None
    fold = np.random.default_rng(seed).permutation(len(distinct)) % FOLDS
    distances = np.empty(len(distinct), np.float32)
    for own in (fold == f for f in range(FOLDS)):
        landmarks = _landmarks(distinct[~own], seed)
        _, distances[own] = nearest_centroid(distinct[own], landmarks)
    spread = float(distinct.var(axis=0, dtype=np.float64).sum())
    return distances if np.median(distances) > TIGHT * spread else None


def _landmarks(distinct: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    count = min(LANDMARKS, len(distinct) // PROMPTS_A_LANDMARK)
    return kmeans(distinct, count, seed, restarts=1)


def _soft_sizes(n_prompts: int) -> list[int]:
    fitting = [size for size in SOFT if size <= n_prompts // 10]
    return fitting or [max(1, n_prompts // 10)]
