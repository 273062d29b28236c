"""Profilers, restored from the parts of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.parts import above_zero, moderate_part, part
from uniroute_fast._checks.scalars import shown
from uniroute_fast.clusters.cluster_map import ClusterMap
from uniroute_fast.errors import ArtifactError
from uniroute_fast.profiles.bayes import Prior
from uniroute_fast.profiles.known_prompts import KnownPrompts
from uniroute_fast.profiles.profilers import AnyProfiler, BayesProfiler, MeansProfiler

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Settings of a `BayesProfiler`, as they are saved.
SETTINGS = ("spread", "trust", "inflation")


#: Most coarse clusters of stored means: a matrix of coarse and fine ones is made.
MOST_COARSE = 1024


def profiler_from_parts(
    cluster_map: ClusterMap, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]
) -> AnyProfiler:
    """Restore a profiler from its `to_parts`, for the cluster map that the file holds.

    Raises
    ------
    ArtifactError
        A part is missing or unknown, or not as the others ask.
    """
    try:
        if meta["profiler"] == "means":
            return _means_from_parts(cluster_map, arrays)
        if meta["profiler"] == "bayes":
            return _bayes_from_parts(cluster_map, arrays, meta)
    except KeyError as error:
        raise ArtifactError(f"profiler: part {error} is missing") from error
    raise ArtifactError(f"profiler: unknown kind {shown(meta['profiler'])!r}")


def _means_from_parts(cluster_map: ClusterMap, arrays: dict[str, NDArray[Any]]) -> MeansProfiler:
    heads = len(cluster_map.sizes)
    if heads != 1:
        raise ArtifactError(f"profiler: means of clusters over {heads} heads; expected one head")
    k = cluster_map.n_clusters
    parents = part(arrays, "parents", (k,), np.int64)
    end = min(k, MOST_COARSE)
    if not ((parents >= 0) & (parents < end)).all():
        raise ArtifactError(f"part 'parents' has a cluster that is not 0 to {end - 1}")
    return MeansProfiler(cluster_map, parents.astype(np.intp))


def _bayes_from_parts(
    cluster_map: ClusterMap, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]
) -> BayesProfiler:
    keys, factors = arrays["known.keys"], arrays["known.factors"]
    n_factors = factors.shape[1] if factors.ndim == 2 else 0
    keys = part(arrays, "known.keys", (keys.size,), np.int64).view(np.uint64)
    factors = moderate_part(arrays, "known.factors", (len(keys), n_factors), np.float32)
    if (keys[1:] <= keys[:-1]).any():
        raise ArtifactError("part 'known.keys' does not ascend")
    sizes, backgrounds = cluster_map.sizes, cluster_map.backgrounds
    if len(backgrounds) != len(sizes):
        raise ArtifactError("profiler: a head without a background; expected one in each")
    noises = meta["noise"]
    if not isinstance(noises, list) or len(noises) != len(sizes):
        raise ArtifactError(f"profiler: noise is {shown(noises)}; expected one number a head")
    priors = []
    for i, (noise, size) in enumerate(zip(noises, sizes, strict=True)):
        clusters = size - 1
        features = clusters + n_factors
        mean = moderate_part(arrays, f"prior{i}.mean", (features,))
        covariance = moderate_part(arrays, f"prior{i}.covariance", (features, features))
        if np.abs(covariance - covariance.T).max() > 1e-9 * np.abs(covariance).max():
            raise ArtifactError(f"part 'prior{i}.covariance' is not symmetric")
        try:
            np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError as error:
            raise ArtifactError(f"part 'prior{i}.covariance' is not positive definite") from error
        priors.append(Prior(mean, covariance, above_zero("profiler: noise", noise), clusters))
    mix = part(arrays, "mix", (cluster_map.n_clusters,), np.float64)
    shares = np.add.reduceat(mix, np.cumsum([0, *sizes[:-1]]))
    if (mix < 0).any() or (np.abs(shares - 1) > 1e-3).any() or (mix[backgrounds] > 1 - 1e-6).any():
        raise ArtifactError("part 'mix': each head's weights must be 0 to 1 and sum to 1")
    settings = {key: above_zero(f"profiler: {key}", meta[key]) for key in SETTINGS}
    if settings["trust"] > 1:
        raise ArtifactError(f"profiler: trust is {settings['trust']:g}; expected at most 1")
    return BayesProfiler(cluster_map, priors, KnownPrompts(keys, factors), mix, **settings)
