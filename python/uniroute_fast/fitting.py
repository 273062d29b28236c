"""Fitting a profiler on training prompts: with seen LLMs, or without.

Settings are chosen by the paper's protocol: route seen LLMs as if they were new. Some of them play
the new ones. The prior is fitted to the others, each new one is profiled from a few hundred of the
training prompts, and prompts that the prior did not see are routed among them. The settings with
the largest mean area under the deferral curve are kept. No prompt and no LLM from outside the
training data takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.attributes import attribute_head
from uniroute_fast.bayes import Prior, fit_prior, residual_factors
from uniroute_fast.calibration import cluster_errors, inflation
from uniroute_fast.cluster_map import (
    ClusterMap,
    Familiarity,
    NearestHead,
    SoftmaxHead,
    assign,
    kmeans,
)
from uniroute_fast.deferral import area, deferral_curve
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evidence import observe
from uniroute_fast.outcomes import as_costs, as_losses
from uniroute_fast.profiling import (
    AnyProfiler,
    BayesProfiler,
    KnownPrompts,
    MeansProfiler,
    averaged,
    head_posteriors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
FOREIGN = 0.02

#: Landmarks that tell foreign prompts: how many at most, one for how many prompts at least, and from
#: how many distinct prompts on. A fifth of these is held out, and a prompt farther from all landmarks
#: than the share `FAMILIAR` of them is more than half foreign.
LANDMARKS, PROMPTS_A_LANDMARK, MIN_LANDMARKED, FAMILIAR = 400, 5, 100, 0.95

#: Prompts that landmarks are drawn from, at most.
LANDMARKED = 50_000

#: Factors of what seen LLMs tell of a prompt beyond its clusters: one for eight LLMs, at most 4.
LLMS_A_FACTOR, MOST_FACTORS = 8, 4

#: Factor on the prior's covariance, and trust: what is chosen from, and what is used where too few
#: LLMs were seen to choose.
SPREADS, DEFAULT_SPREAD = (0.5, 1.0, 2.0), 1.0
TRUSTS, DEFAULT_TRUST = (0.5, 0.75, 1.0), 0.75

#: Factor on standard errors where too few LLMs were seen to measure it.
DEFAULT_INFLATION = 1.5

#: Fewest seen LLMs, and prompts that all were run on, to choose by.
MIN_SEEN, MIN_STAGE = 6, 60

#: Rehearsals: how many, with how many labels for a new LLM, and how many LLMs at most.
REHEARSALS, LABELS, PLAYERS = 24, 400, 300


def fit_profiler(
    embeddings: NDArray[np.float32],
    seen_losses: ArrayLike | None = None,
    seen_costs: ArrayLike | None = None,
    *,
    keys: NDArray[np.uint64] | None = None,
    n_clusters: int | None = None,
    attributes: NDArray[np.float64] | None = None,
    seed: int = 0,
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
        Of the training prompts: see `uniroute_fast.profiling.prompt_keys`. With them, outcomes of
        new LLMs on these prompts count for more than on others.
    n_clusters : int, optional
        1 to N. Default: 12, 24 and 48 side by side where LLMs were seen, 100 where there are none;
        fewer where prompts are few.
    attributes : float64[N, A], optional
        Of the training prompts, in [0, 1]: clusters are then of these, 24 at most by default.
    seed : int
        Same seed and inputs, same profiler.

    Raises
    ------
    InvalidArgumentError
        Shapes or values that cannot be used; the message names the argument.
    MissingExtraError
        faiss is not installed (extra ``fit``).
    """
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or not embeddings.size:
        raise InvalidArgumentError(f"embeddings has shape {embeddings.shape}, expected (N, D)")
    if n_clusters is not None and not 1 <= n_clusters <= len(embeddings):
        raise InvalidArgumentError(
            f"n_clusters is {n_clusters}, expected 1 to {len(embeddings)}, the number of prompts"
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
            f"seen_losses[:, {int(np.argmax(empty))}] has no outcome, expected one or more"
        )
    if seen_costs is None:
        seen_costs = np.zeros(losses.shape[1])
    costs = as_costs("seen_costs", seen_costs, losses.shape[1])
    if head is None:
        sizes = [n_clusters] if n_clusters else _soft_sizes(len(losses))
        heads = [_soft_head(embeddings, size, seed) for size in sizes]
    else:
        heads = [_with_background(head, embeddings)]
    cluster_map = ClusterMap(heads, _familiarity(embeddings, seed))
    return _fit_bayes(cluster_map, embeddings, losses, costs, keys, seed)


def _fit_means(
    embeddings: NDArray[np.float32], n_clusters: int | None, head: SoftmaxHead | None, seed: int
) -> MeansProfiler:
    if head is not None:
        return MeansProfiler(ClusterMap([head]), np.zeros(head.n_clusters, np.intp))
    count = n_clusters or max(1, min(FINE, len(embeddings) // 5))
    fine = kmeans(embeddings, count, seed)
    coarse = kmeans(embeddings, max(1, min(COARSE, count // 5)), seed)
    return MeansProfiler(ClusterMap([NearestHead(fine)]), assign(fine, coarse))


def _fit_bayes(
    cluster_map: ClusterMap,
    embeddings: NDArray[np.float32],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    keys: NDArray[np.uint64] | None,
    seed: int,
) -> BayesProfiler:
    phi = cluster_map.phi(embeddings)
    # Rehearsals need prompts that all players were run on.
    run = ~np.isnan(losses)
    players = np.random.default_rng(seed).permutation(np.flatnonzero(run.mean(axis=0) >= 0.5))
    players = players[:PLAYERS]
    stage = np.flatnonzero(run[:, players].all(axis=1))
    if len(players) >= MIN_SEEN and len(stage) >= MIN_STAGE:
        stage_losses = losses[np.ix_(stage, players)]
        spread, trust, inflated = _rehearse(
            phi[stage], cluster_map.sizes, stage_losses, costs[players], seed
        )
    else:
        spread, trust, inflated = DEFAULT_SPREAD, DEFAULT_TRUST, DEFAULT_INFLATION
    priors, factors = _fit_priors(phi, cluster_map.sizes, losses)
    if keys is None:
        keys, factors = np.zeros(0, np.uint64), factors[:0]
    keys, first = np.unique(keys, return_index=True)
    known = KnownPrompts(keys, factors[first].astype(np.float32))
    return BayesProfiler(
        cluster_map, priors, known, spread, trust, inflated, phi.mean(axis=0, dtype=np.float64)
    )


def _fit_priors(
    phi: NDArray[np.float32], sizes: Sequence[int], losses: NDArray[np.float64]
) -> tuple[list[Prior], NDArray[np.float64]]:
    """Return a prior for each head, and the residual factors of the prompts, float64[N, R]."""
    rank = min(MOST_FACTORS, losses.shape[1] // LLMS_A_FACTOR)
    # Without the last cluster of each head, its background.
    heads = [head[:, :-1] for head in np.split(phi, np.cumsum(sizes)[:-1], axis=1)]
    factors = residual_factors(heads[len(heads) // 2], losses, rank)
    priors = [
        fit_prior(observe(np.hstack([head, factors]), losses), head.shape[1]) for head in heads
    ]
    return priors, factors


def _soft_head(embeddings: NDArray[np.float32], n_clusters: int, seed: int) -> SoftmaxHead:
    """Return a softmax head around k-means centroids, as sharp as `SHARPNESS` says."""
    centroids = kmeans(embeddings, n_clusters, seed)
    offsets = embeddings - centroids[assign(embeddings, centroids)]
    width = float(np.einsum("nd,nd->n", offsets, offsets).mean())
    head = SoftmaxHead.around(centroids, SHARPNESS / max(width, 1e-6))
    return _with_background(head, embeddings)


def _with_background(head: SoftmaxHead, embeddings: NDArray[np.float32]) -> SoftmaxHead:
    return head.with_background(float(np.quantile(head.closeness(embeddings), FOREIGN)))


def _familiarity(embeddings: NDArray[np.float32], seed: int) -> Familiarity | None:
    """Return what tells foreign prompts; None where there are too few distinct ones to learn from.

    Clusters of a head are so wide that prompts of a task never seen before may lie in one of them.
    """
    distinct = np.unique(embeddings, axis=0)
    if len(distinct) < MIN_LANDMARKED:
        return None
    chosen = np.random.default_rng(seed).permutation(len(distinct))[:LANDMARKED]
    held, kept = np.split(distinct[chosen], [len(chosen) // 5])
    landmarks = kmeans(kept, min(LANDMARKS, len(kept) // PROMPTS_A_LANDMARK), seed, restarts=1)
    offsets = held - landmarks[assign(held, landmarks)]
    distance = float(np.quantile(np.einsum("nd,nd->n", offsets, offsets), FAMILIAR))
    return Familiarity(landmarks, distance) if distance > 0 else None


def _soft_sizes(n_prompts: int) -> list[int]:
    fitting = [size for size in SOFT if size <= n_prompts // 10]
    return fitting or [max(1, n_prompts // 10)]


def _rehearse(
    phi: NDArray[np.float32],
    sizes: Sequence[int],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    seed: int,
) -> tuple[float, float, float]:
    """Return the spread and trust with the largest mean area, and what makes errors honest."""
    areas = np.zeros((len(SPREADS), len(TRUSTS)))
    errors: list[list[NDArray[np.float64]]] = [[] for _ in SPREADS]
    for scene in _scenes(losses.shape, seed):
        old = losses[np.ix_(scene.learned, scene.old)]
        priors, factors = _fit_priors(phi[scene.learned], sizes, old)
        features = np.hstack([phi[scene.learned], factors])[: scene.n_labels]
        new = losses[np.ix_(scene.learned[: scene.n_labels], scene.new)]
        evidence = observe(features, new)
        quality = 1 - losses[np.ix_(scene.routed, scene.new)]
        for i, spread in enumerate(SPREADS):
            posteriors = head_posteriors(evidence, sizes, priors, spread)
            missed = cluster_errors(
                posteriors, sizes, phi[scene.routed], 1 - quality, evidence.mean
            )
            errors[i].append(missed)
            for j, trust in enumerate(TRUSTS):
                psi = averaged(posteriors, sizes, evidence.mean, trust)
                curve = deferral_curve(phi[scene.routed] @ psi, quality, costs[scene.new])
                areas[i, j] += area(curve, costs[scene.new])
    i, j = (int(index) for index in np.unravel_index(int(np.argmax(areas)), areas.shape))
    return SPREADS[i], TRUSTS[j], inflation(errors[i])


@dataclass(frozen=True)
class _Scene:
    """Who plays what in one rehearsal.

    The old LLMs are known on the prompts ``learned``, the new ones on the first ``n_labels`` of
    these, and the prompts ``routed`` are routed among the new ones.
    """

    learned: NDArray[np.intp]
    n_labels: int
    routed: NDArray[np.intp]
    new: NDArray[np.intp]
    old: NDArray[np.intp]


def _scenes(shape: tuple[int, int], seed: int) -> Iterator[_Scene]:
    rng = np.random.default_rng(seed)
    n_learned, n_new = 2 * shape[0] // 3, max(2, shape[1] // 3)
    for _ in range(REHEARSALS):
        prompts, models = rng.permutation(shape[0]), rng.permutation(shape[1])
        yield _Scene(
            prompts[:n_learned],
            min(LABELS, shape[0] // 4),
            prompts[n_learned:],
            models[:n_new],
            models[n_new:],
        )
