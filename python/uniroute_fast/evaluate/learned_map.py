"""The learned cluster map of the paper: a softmax head trained on the outcomes of seen LLMs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.clusters.cluster_map import SoftmaxHead, hard_map
from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.profiles.evidence import observe
from uniroute_fast.profiles.shrinkage import shrunk_means

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Sharpness of the head that training starts from.
START_SHARPNESS = 20.0

#: Predicted losses are kept this far from 0 and 1, where their logarithm has no bound.
MARGIN = 1e-3

#: Share of the prompts that decide when to stop, how often they are asked, and how long a run
#: without gain is borne.
HELD_OUT, EVERY, PATIENCE = 0.15, 5, 3


def learn_map(
    embeddings: NDArray[np.float32],
    losses: NDArray[np.float64],
    n_clusters: int,
    seed: int = 0,
    max_iterations: int = 200,
) -> SoftmaxHead:
    """Train a softmax head to predict the losses of seen LLMs.

    Minimises the log loss of ``phi(x) @ psi`` over training prompts and seen LLMs, where psi are
    the LLMs' mean losses in k-means clusters and the head starts at their centroids. Training
    stops when the log loss of held-out prompts stops falling: the paper finds that it overfits.

    Parameters
    ----------
    embeddings : float32[N, D]
        Of training prompts.
    losses : float64[N, S]
        Of seen LLMs, in [0, 1]; NaN = not run.
    n_clusters : int
        1 to N.
    seed : int
    max_iterations : int
        Of L-BFGS.

    Returns
    -------
    SoftmaxHead

    Raises
    ------
    MissingExtraError
        scipy or faiss is not installed (extra ``fit``).

    Notes
    -----
    O(N K (D + S)) an iteration. Jitkrittum et al., arXiv 2502.08773, section 5.2, with a linear
    map in place of the two hidden layers of their experiments.
    """
    minimize = imported("scipy.optimize", "fit", "learning a map").minimize
    centroids = kmeans(embeddings, n_clusters, seed)
    start = SoftmaxHead.around(centroids, START_SHARPNESS)
    held = np.random.default_rng(seed).permutation(len(losses)) < HELD_OUT * len(losses)
    hard = hard_map(centroids).phi(embeddings[~held])
    psi = np.clip(shrunk_means(observe(hard, losses[~held], gram=False), 1.0), MARGIN, 1 - MARGIN)

    objective = _objective(embeddings[~held], losses[~held], psi)
    validate = _objective(embeddings[held], losses[held], psi)
    best = _EarlyStop(validate, _pack(start))
    minimize(
        objective,
        _pack(start),
        jac=True,
        method="L-BFGS-B",
        callback=best,
        options={"maxiter": max_iterations},
    )
    theta = best.parameters.reshape(n_clusters, -1).astype(np.float32)
    return SoftmaxHead(np.ascontiguousarray(theta[:, :-1]), np.ascontiguousarray(theta[:, -1]))


def _pack(head: SoftmaxHead) -> NDArray[np.float64]:
    return np.column_stack([head.weights, head.bias]).astype(np.float64).ravel()


def _objective(
    embeddings: NDArray[np.float32], losses: NDArray[np.float64], psi: NDArray[np.float64]
) -> Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]:
    """Return the mean log loss and its gradient as a function of the head's parameters."""
    x = np.column_stack([embeddings, np.ones(len(embeddings), np.float32)])
    run = ~np.isnan(losses)
    y, count = np.where(run, losses, 0.0), max(int(run.sum()), 1)

    def evaluate(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = parameters.reshape(len(psi), -1).astype(np.float32)
        phi = SoftmaxHead(theta[:, :-1], theta[:, -1]).phi(embeddings)
        gamma = np.clip(phi @ psi, MARGIN, 1 - MARGIN)
        loss = -np.where(run, y * np.log(gamma) + (1 - y) * np.log(1 - gamma), 0.0).sum() / count
        slope = np.where(run, (gamma - y) / (gamma * (1 - gamma)), 0.0) / count
        to_phi = slope @ psi.T
        to_scores = phi * (to_phi - np.einsum("nk,nk->n", phi, to_phi)[:, None])
        return float(loss), (to_scores.T @ x).astype(np.float64).ravel()

    return evaluate


class _EarlyStop:
    """Keeps the parameters with the lowest held-out loss, and stops when there is no more gain."""

    def __init__(
        self,
        validate: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
        start: NDArray[np.float64],
    ) -> None:
        self.parameters = start
        self._validate = validate
        self._best = validate(start)[0]
        self._step = self._since = 0

    def __call__(self, parameters: NDArray[np.float64]) -> None:
        self._step += 1
        if self._step % EVERY:
            return
        loss = self._validate(parameters)[0]
        if loss < self._best:
            self._best, self.parameters, self._since = loss, parameters.copy(), 0
        else:
            self._since += 1
            if self._since == PATIENCE:
                raise StopIteration  # Which ends the optimiser's run.
