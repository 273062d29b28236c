"""The routers that others would use, to be measured beside this one.

Each takes a `Trial` and returns the predicted losses of the unseen LLMs on its test prompts,
float64[N, U], or [U] where the rule is blind to the prompt; or a `BlindPlan`, where the rule is
not that of a cost weight.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.clusters.cluster_map import hard_map
from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.clusters.nearest import nearest_centroid
from uniroute_fast.errors import DatasetError
from uniroute_fast.evaluate.deep_map import learn_deep_map
from uniroute_fast.evaluate.deferral import BlindPlan, area, area_of, deferral_curve
from uniroute_fast.evaluate.learned_map import learn_map
from uniroute_fast.profiles.evidence import observe
from uniroute_fast.profiles.fit import fit_profiler
from uniroute_fast.profiles.shrinkage import hierarchical, shrunk_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from uniroute_fast.evaluate.trial import Trial
    from uniroute_fast.profiles.profilers import AnyProfiler, Profiler


#: What matrix factorisation chooses from.
RANKS, PENALTIES = (1, 2, 4, 8, 16), (1.0, 3.0, 10.0, 30.0, 100.0)

#: Weight decay of the multilayer perceptron.
MLP_PENALTY = 1.0


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
    return _nearest_weights(trial.test, trial.validation, k) @ trial.losses


def kmeans_paper(trial: Trial, n_clusters: int | None = None) -> NDArray[np.float64]:
    """UniRoute (K-Means) as published: plain means of the validation losses per cluster.

    ``n_clusters`` defaults to one for ten validation prompts, 24 at most; see `kmeans_tuned`.
    """
    hard = hard_map(_centroids(trial, n_clusters or clusters_for(len(trial.validation))))
    evidence = observe(hard.phi(trial.validation), trial.losses, gram=False)
    return hard.phi(trial.test) @ shrunk_means(evidence)


def kmeans_tuned(trial: Trial) -> NDArray[np.float64]:
    """UniRoute (K-Means) with the number of clusters that the paper's protocol chooses."""
    return kmeans_paper(trial, _tuned_clusters(trial))


def top3_clusters(trial: Trial, n_clusters: int | None = None) -> NDArray[np.float64]:
    """Average the plain means of the three nearest clusters."""
    centroids = _centroids(trial, n_clusters or clusters_for(len(trial.validation)))
    evidence = observe(hard_map(centroids).phi(trial.validation), trial.losses, gram=False)
    return _nearest_weights(trial.test, centroids, 3) @ shrunk_means(evidence)


def learned_map(trial: Trial, n_clusters: int | None = None) -> NDArray[np.float64]:
    """UniRoute (LearnedMap): the paper's cluster means, under a map learned from seen LLMs."""
    count = min(n_clusters or clusters_for(len(trial.validation)), len(trial.train))
    head = learn_map(trial.train, trial.seen_train, count, trial.seed)
    hard = hard_map(_centroids(trial, count)).phi(trial.validation)
    return head.phi(trial.test) @ shrunk_means(observe(hard, trial.losses, gram=False))


def learned_map_tuned(trial: Trial) -> NDArray[np.float64]:
    """UniRoute (LearnedMap), linear, with as many clusters as K-Means is tuned to."""
    return learned_map(trial, _tuned_clusters(trial))


def learned_map_deep(trial: Trial, n_clusters: int | None = None) -> NDArray[np.float64]:
    """UniRoute (LearnedMap) with the two hidden layers of the paper's experiments."""
    count = min(n_clusters or clusters_for(len(trial.validation)), len(trial.train))
    found = learn_deep_map(trial.train, trial.seen_train, count, trial.seed)
    hard = hard_map(_centroids(trial, count)).phi(trial.validation)
    return found.phi(trial.test) @ shrunk_means(observe(hard, trial.losses, gram=False))


def retrained_mlp(trial: Trial) -> NDArray[np.float64]:
    """Fit a multilayer perceptron to the validation labels of the unseen LLMs."""
    return _mlp(trial.validation, trial.losses, trial.test, trial.seed)


def retrained_mf(trial: Trial) -> NDArray[np.float64]:
    """Fit a low-rank linear model to the validation labels of the unseen LLMs."""
    return _matrix_factorisation(trial.validation, trial.losses, trial.test, trial.seed)


def clairvoyant_mlp(trial: Trial) -> NDArray[np.float64]:
    """Fit a multilayer perceptron to all LLMs' labels on training and validation prompts."""
    return _mlp(*_all_labels(trial), trial.test, trial.seed)[:, -trial.losses.shape[1] :]


def clairvoyant_mf(trial: Trial) -> NDArray[np.float64]:
    """Fit a low-rank linear model to all LLMs' labels on training and validation prompts."""
    predicted = _matrix_factorisation(*_all_labels(trial), trial.test, trial.seed)
    return predicted[:, -trial.losses.shape[1] :]


def hierarchical_shrinkage(
    trial: Trial, n_fine: int = 100, n_coarse: int = 20, strength: float = 24.0
) -> NDArray[np.float64]:
    """Shrink fine clusters' means to coarse clusters' means to the overall mean."""
    fine, coarse = _centroids(trial, n_fine), _centroids(trial, n_coarse)
    hard = hard_map(fine)
    evidence = observe(hard.phi(trial.validation), trial.losses, gram=False)
    parents, _ = nearest_centroid(fine, coarse)
    means = hierarchical(evidence.loss, evidence.phi, parents.astype(np.intp), strength)
    return hard.phi(trial.test) @ means


def uniroute(trial: Trial, n_clusters: int | None = None) -> NDArray[np.float64]:
    """Profile with what seen LLMs teach, on soft maps: this package's default.

    Like every method it may know the seen LLMs' outcomes on the validation prompts.
    ``n_clusters`` is that of `fit_profiler`.
    """
    profiler, keys = fitted(trial, n_clusters)
    return _route(profiler, trial, keys[len(trial.train) :])


def fitted(trial: Trial, n_clusters: int | None = None) -> tuple[AnyProfiler, NDArray[np.uint64]]:
    """Return the default's profiler, and the keys of the training and validation prompts."""
    prompts = np.vstack([trial.train, trial.validation])
    seen = np.vstack([trial.seen_train, trial.seen_validation])
    keys = np.arange(len(prompts), dtype=np.uint64)
    profiler = fit_profiler(
        prompts,
        seen,
        trial.seen_costs,
        keys=keys,
        n_clusters=n_clusters,
        seed=trial.seed,
        area=area_of,
    )
    return profiler, keys


def uniroute_unseen(trial: Trial) -> NDArray[np.float64]:
    """Profile without any seen LLM: this package's default where there are none."""
    return _route(fit_profiler(trial.train, seed=trial.seed, area=area_of), trial)


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


def _nearest_weights(
    x: NDArray[np.float32], points: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    """Return weights of 1/k on the k nearest points of each row, float64[N, P]."""
    k = min(k, len(points))
    closeness = x @ points.T - np.einsum("pd,pd->p", points, points) / 2
    nearest = np.argpartition(-closeness, k - 1, axis=1)[:, :k]
    weights = np.zeros(closeness.shape)
    np.put_along_axis(weights, nearest, 1 / k, axis=1)
    return weights


def _all_labels(trial: Trial) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return training and validation prompts with the losses of seen, then unseen LLMs."""
    assert trial.train_losses is not None
    return np.vstack([trial.train, trial.validation]), np.vstack(
        [
            np.hstack([trial.seen_train, trial.train_losses]),
            np.hstack([trial.seen_validation, trial.losses]),
        ]
    )


def _mlp(
    x: NDArray[np.float32], losses: NDArray[np.float64], test: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """Two hidden layers of 100, Adam 1e-3, batches of 64, the best of up to 10 epochs."""
    # A tenth of the prompts tells when to stop, and must be two of them or more.
    if len(x) < 11:
        raise DatasetError(
            f"{len(x)} labelled prompts are too few for a network: it takes 11 or more; give more "
            "prompts, or leave retrained_mlp and clairvoyant_mlp out of the methods"
        )
    unfinished = imported("sklearn.exceptions", "fit", "this method").ConvergenceWarning
    make = imported("sklearn.neural_network", "fit", "this method").MLPRegressor
    network = make(
        hidden_layer_sizes=(100, 100),
        batch_size=min(64, len(x) * 8 // 10),
        alpha=MLP_PENALTY,
        max_iter=10,
        early_stopping=True,
        n_iter_no_change=10,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Ten epochs are the setting, not a failure.
        warnings.simplefilter("ignore", unfinished)
        network.fit(x, losses)
    return np.asarray(network.predict(test), dtype=np.float64)


def _matrix_factorisation(
    x: NDArray[np.float32], losses: NDArray[np.float64], test: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """Losses as x' A B + b, of the rank and ridge penalty that predict held-out prompts best."""
    held = np.random.default_rng(seed).permutation(len(x)) < 0.2 * len(x)
    errors = {}
    for penalty in PENALTIES:
        predictions = _low_rank(x[~held], losses[~held], x[held], penalty, RANKS)
        for rank, predicted in zip(RANKS, predictions, strict=True):
            errors[penalty, rank] = np.square(predicted - losses[held]).sum()
    penalty, rank = min(errors, key=errors.__getitem__)
    return _low_rank(x, losses, test, penalty, (rank,))[0]


def _low_rank(
    x: NDArray[np.float32],
    losses: NDArray[np.float64],
    test: NDArray[np.float32],
    penalty: float,
    ranks: Sequence[int],
) -> list[NDArray[np.float64]]:
    """Reduced-rank ridge regression: the ridge fit, projected on its main components over LLMs."""
    centre, mean = x.mean(axis=0), losses.mean(axis=0)
    z = (x - centre).astype(np.float64)
    gram = z.T @ z + penalty * np.eye(x.shape[1])
    coefficients = np.linalg.solve(gram, z.T @ (losses - mean))
    _, _, components = np.linalg.svd(np.linalg.cholesky(gram).T @ coefficients, False)
    fit = (test - centre) @ coefficients
    return [mean + fit @ components[:rank].T @ components[:rank] for rank in ranks]


def _centroids(trial: Trial, n_clusters: int) -> NDArray[np.float32]:
    count = min(n_clusters, len(trial.train))
    centroids: NDArray[np.float32] = trial.shared(
        ("kmeans", count), lambda: kmeans(trial.train, count, trial.seed)
    )
    return centroids


def _tuned_clusters(trial: Trial) -> int:
    """Choose the number of clusters by routing seen LLMs: arXiv 2502.08773, appendix G.

    They are profiled from the training prompts, and route the validation prompts. Candidates are 3
    to one for fifty validation prompts.
    """
    rehearsal = replace(
        trial, validation=trial.train, losses=trial.seen_train, test=trial.validation
    )

    def rehearsed(count: int) -> float:
        curve = deferral_curve(
            kmeans_paper(rehearsal, count), 1 - trial.seen_validation, trial.seen_costs
        )
        return area(curve, trial.seen_costs)

    candidates = range(3, max(3, len(trial.validation) // 50) + 1)
    count: int = trial.shared("tuned clusters", lambda: max(candidates, key=rehearsed))
    return count


def clusters_for(n_val: int) -> int:
    """Return the number of clusters of the paper's methods: fewer where validation is small."""
    return max(1, min(24, n_val // 10))
