"""The routers that others would use, to be measured beside this one.

Each takes a `Trial` and returns the predicted losses of the unseen LLMs on its test prompts,
float64[N, U], or [U] where the rule is blind to the prompt; or a `BlindPlan`, where the rule is
not that of a cost weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.cluster_map import NearestHead, assign, kmeans
from uniroute_fast.deferral import BlindPlan
from uniroute_fast.evidence import observe
from uniroute_fast.fitting import fit_profiler
from uniroute_fast.profiling import hierarchical, shrunk_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.evaluate.trial import Trial
    from uniroute_fast.profiling import Profiler


def best_single(trial: Trial) -> BlindPlan:
    """For each budget, send all prompts to the best LLM (on validation) that it pays for."""
    means = trial.losses.mean(axis=0)
    order = np.lexsort((means, trial.costs))
    record = np.minimum.accumulate(np.append(np.inf, means[order]))
    return BlindPlan(order[means[order] < record[:-1]], mixed=False)


def random_mixture(trial: Trial) -> BlindPlan:
    """Mix the cheapest LLM and the best one (on validation) at random, blind to the prompt."""
    means = trial.losses.mean(axis=0)
    cheapest = np.lexsort((means, trial.costs))[0]
    best = np.lexsort((trial.costs, means))[0]
    return BlindPlan(np.unique([cheapest, best]), mixed=True)


def zero_router(trial: Trial) -> NDArray[np.float64]:
    """Mix neighbours on the lower hull of (cost, mean validation loss), blind to the prompt.

    "Pareto-random router" of arXiv 2502.08773, appendix D.
    """
    means: NDArray[np.float64] = trial.losses.mean(axis=0)
    return means


def knn(trial: Trial, k: int = 30) -> NDArray[np.float64]:
    """Predict the mean loss over the ``k`` nearest validation prompts (eq. 4 of the paper)."""
    k = min(k, len(trial.validation))
    half = np.einsum("nd,nd->n", trial.validation, trial.validation) / 2
    closeness = trial.test @ trial.validation.T - half
    nearest = np.argpartition(-closeness, k - 1, axis=1)[:, :k]
    weights = np.zeros((len(trial.test), len(trial.validation)))
    np.put_along_axis(weights, nearest, 1 / k, axis=1)
    return weights @ trial.losses


def kmeans_paper(trial: Trial, n_clusters: int | None = None) -> NDArray[np.float64]:
    """UniRoute (K-Means) as published: plain means of the validation losses per cluster.

    ``n_clusters`` defaults to one for ten validation prompts, 24 at most.
    """
    head = NearestHead(_centroids(trial, n_clusters or clusters_for(len(trial.validation))))
    evidence = observe(head.phi(trial.validation), trial.losses, gram=False)
    return shrunk_means(evidence)[assign(trial.test, head.centroids)]


def hierarchical_shrinkage(
    trial: Trial, n_fine: int = 100, n_coarse: int = 20, strength: float = 24.0
) -> NDArray[np.float64]:
    """Shrink fine clusters' means to coarse clusters' means to the overall mean."""
    fine, coarse = NearestHead(_centroids(trial, n_fine)), _centroids(trial, n_coarse)
    evidence = observe(fine.phi(trial.validation), trial.losses, gram=False)
    parents = assign(fine.centroids, coarse)
    means = hierarchical(evidence.loss, evidence.phi, parents, strength)
    return means[assign(trial.test, fine.centroids)]


def uniroute(trial: Trial) -> NDArray[np.float64]:
    """Profile with what seen LLMs teach, on soft maps: this package's default.

    Like every method it may know the seen LLMs' outcomes on the validation prompts.
    """
    prompts = np.vstack([trial.train, trial.validation])
    seen = np.vstack([trial.seen_train, trial.seen_validation])
    keys = np.arange(len(prompts), dtype=np.uint64)
    profiler = fit_profiler(prompts, seen, trial.seen_costs, keys=keys, seed=trial.seed)
    return _route(profiler, trial, keys[len(trial.train) :])


def uniroute_unseen(trial: Trial) -> NDArray[np.float64]:
    """Profile without any seen LLM: this package's default where there are none."""
    return _route(fit_profiler(trial.train, seed=trial.seed), trial)


def _route(
    profiler: Profiler, trial: Trial, keys: NDArray[np.uint64] | None = None
) -> NDArray[np.float64]:
    phi = profiler.map.phi
    evidence = profiler.observe(phi(trial.validation), trial.losses, keys=keys)
    return phi(trial.test).astype(np.float64) @ profiler.profile(evidence).psi


def oracle(trial: Trial) -> NDArray[np.float64]:
    """Know the losses of every test prompt: nothing routes better."""
    assert trial.test_losses is not None
    return trial.test_losses


def _centroids(trial: Trial, n_clusters: int) -> NDArray[np.float32]:
    count = min(n_clusters, len(trial.train))
    centroids: NDArray[np.float32] = trial.shared(
        ("kmeans", count), lambda: kmeans(trial.train, count, trial.seed)
    )
    return centroids


def clusters_for(n_val: int) -> int:
    """Return the number of clusters of the paper's methods: fewer where validation is small."""
    return max(1, min(24, n_val // 10))
