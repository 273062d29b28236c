"""Fitting a profiler on training prompts: with seen LLMs, or without.

Settings are chosen by the paper's protocol: route seen LLMs as if they were new. Some of them play
the new ones. The prior is fitted to the others, each new one is profiled from a few hundred of the
training prompts, and the rest of the prompts are routed among them. The settings with the largest
mean area under the deferral curve are kept. No prompt and no LLM from outside the training data
takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.bayes import fit_prior
from uniroute_fast.cluster_map import ClusterMap, NearestHead, SoftmaxHead, assign, kmeans
from uniroute_fast.deferral import area, checked_costs, deferral_curve
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evidence import checked_losses, observe
from uniroute_fast.profiling import AnyProfiler, BayesProfiler, MeansProfiler, bayes_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray


#: Clusters of the hard map that serves where no LLM was seen: fine ones under coarse ones.
FINE, COARSE = 100, 20

#: Sharpness of the soft map, in units of one over the mean squared distance to a centroid.
SHARPNESS = 12.0

#: What is chosen from.
CLUSTERS = (12, 24, 48)
SPREADS = (0.3, 1.0, 3.0)
TRUSTS = (0.5, 0.75, 1.0)

#: What is used where too few LLMs were seen to choose.
DEFAULT_CLUSTERS, DEFAULT_SPREAD, DEFAULT_TRUST = 24, 1.0, 0.75

#: Fewest seen LLMs, and prompts that all were run on, to choose by.
MIN_SEEN, MIN_STAGE = 6, 60

#: Rehearsals: how many, with how many labels for a new LLM, prompts to route, and LLMs.
REHEARSALS, LABELS, ROUTED, PLAYERS = 8, 400, 2_000, 300


def fit_profiler(
    embeddings: NDArray[np.float32],
    seen_losses: ArrayLike | None = None,
    seen_costs: ArrayLike | None = None,
    *,
    n_clusters: int | None = None,
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
    n_clusters : int, optional
        1 to N. Default: chosen by routing seen LLMs, or 100 where there are none (fewer where
        prompts are few).
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
    if seen_losses is None:
        return _fit_means(embeddings, n_clusters, seed)
    losses = checked_losses(seen_losses, len(embeddings))
    if losses.shape[1] < 2:  # One LLM says nothing of how LLMs differ.
        return _fit_means(embeddings, n_clusters, seed)
    empty = np.isnan(losses).all(axis=0)
    if empty.any():
        raise InvalidArgumentError(
            f"seen_losses[:, {int(np.argmax(empty))}] has no outcome, expected one or more"
        )
    if seen_costs is None:
        seen_costs = np.zeros(losses.shape[1])
    costs = checked_costs(seen_costs, losses.shape[1])
    return _fit_bayes(embeddings, losses, costs, n_clusters, seed)


def _fit_means(embeddings: NDArray[np.float32], n_clusters: int | None, seed: int) -> MeansProfiler:
    count = n_clusters or max(1, min(FINE, len(embeddings) // 5))
    fine = kmeans(embeddings, count, seed)
    coarse = kmeans(embeddings, max(1, min(COARSE, count // 5)), seed)
    return MeansProfiler(ClusterMap([NearestHead(fine)]), assign(fine, coarse))


def _fit_bayes(
    embeddings: NDArray[np.float32],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    n_clusters: int | None,
    seed: int,
) -> BayesProfiler:
    run = ~np.isnan(losses)
    sizes = [n_clusters] if n_clusters else _sizes(len(losses))
    maps = [_soft_map(embeddings, size, seed) for size in sizes]
    # Rehearsals need prompts that all players were run on.
    players = np.random.default_rng(seed).permutation(np.flatnonzero(run.mean(axis=0) >= 0.5))
    players = players[:PLAYERS]
    stage = np.flatnonzero(run[:, players].all(axis=1))
    if len(players) >= MIN_SEEN and len(stage) >= MIN_STAGE:
        best, spread, trust = _rehearse(
            [m.phi(embeddings[stage]) for m in maps],
            losses[np.ix_(stage, players)],
            costs[players],
            seed,
        )
    else:
        best = min(range(len(sizes)), key=lambda i: abs(sizes[i] - DEFAULT_CLUSTERS))
        spread, trust = DEFAULT_SPREAD, DEFAULT_TRUST
    prior = fit_prior(observe(maps[best].phi(embeddings), losses))
    return BayesProfiler(maps[best], prior, spread, trust)


def _soft_map(embeddings: NDArray[np.float32], n_clusters: int, seed: int) -> ClusterMap:
    """Return a softmax head around k-means centroids, as sharp as `SHARPNESS` says."""
    centroids = kmeans(embeddings, n_clusters, seed)
    offsets = embeddings - centroids[assign(embeddings, centroids)]
    width = float(np.einsum("nd,nd->n", offsets, offsets).mean())
    return ClusterMap([SoftmaxHead.around(centroids, SHARPNESS / max(width, 1e-6))])


def _sizes(n_prompts: int) -> list[int]:
    fitting = [size for size in CLUSTERS if size <= n_prompts // 10]
    return fitting or [max(1, n_prompts // 10)]


def _rehearse(
    phis: list[NDArray[np.float32]],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    seed: int,
) -> tuple[int, float, float]:
    """Return the map (by index), spread and trust with the largest mean area."""
    areas = np.zeros((len(phis), len(SPREADS), len(TRUSTS)))
    for scene in _scenes(losses.shape, seed):
        quality = 1 - losses[np.ix_(scene.routed, scene.new)]
        for i, phi in enumerate(phis):
            prior = fit_prior(observe(phi[scene.rest], losses[np.ix_(scene.rest, scene.old)]))
            evidence = observe(phi[scene.labelled], losses[np.ix_(scene.labelled, scene.new)])
            for j, spread in enumerate(SPREADS):
                for k, trust in enumerate(TRUSTS):
                    profiles = bayes_profiles(evidence, prior, spread, trust)
                    predicted = phi[scene.routed] @ profiles.psi
                    curve = deferral_curve(predicted, quality, costs[scene.new])
                    areas[i, j, k] += area(curve, costs[scene.new])
    i, j, k = (int(index) for index in np.unravel_index(int(np.argmax(areas)), areas.shape))
    return i, SPREADS[j], TRUSTS[k]


@dataclass(frozen=True)
class _Scene:
    """Who plays what in one rehearsal: prompts, and LLMs."""

    labelled: NDArray[np.intp]
    rest: NDArray[np.intp]
    routed: NDArray[np.intp]
    new: NDArray[np.intp]
    old: NDArray[np.intp]


def _scenes(shape: tuple[int, int], seed: int) -> Iterator[_Scene]:
    rng = np.random.default_rng(seed)
    n_labels, n_new = min(LABELS, shape[0] // 3), max(2, shape[1] // 3)
    for _ in range(REHEARSALS):
        prompts, models = rng.permutation(shape[0]), rng.permutation(shape[1])
        rest = prompts[n_labels:]
        yield _Scene(prompts[:n_labels], rest, rest[:ROUTED], models[:n_new], models[n_new:])
