"""The cluster map of the paper's experiments: two hidden layers before the softmax, in NumPy.

For studies: routing serves maps that are linear in the embedding. To serve this one, let an
embedder return `DeepMap.hidden`: the last layer is then a `SoftmaxHead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.clusters.cluster_map import SoftmaxHead, hard_map
from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.evaluate.learned_map import MARGIN
from uniroute_fast.profiles.evidence import observe
from uniroute_fast.profiles.shrinkage import shrunk_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Settings of the paper's experiments: width, step, batch and epochs. Longer runs overfit.
WIDTH, STEP, BATCH, EPOCHS = 128, 0.005, 64, 5

#: Adam's decay rates and guard, and how fast the running moments of a normalisation follow.
DECAYS, GUARD, FOLLOW = (0.9, 0.999), 1e-8, 0.1

#: Added to variances before division by them.
LITTLE = 1e-5


@dataclass(frozen=True, eq=False)
class DeepMap:
    """Two rectified linear layers and a softmax head.

    Attributes
    ----------
    layers : sequence of (float32[D_in, D_out], float32[D_out])
        Weights and biases, normalisation folded in.
    head : SoftmaxHead
    """

    layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
    head: SoftmaxHead

    def hidden(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the last layer sees, float32[N, 128]."""
        x = embeddings
        for weights, bias in self.layers:
            x = np.maximum(x @ weights + bias, 0)
        return np.asarray(x, dtype=np.float32)

    def phi(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cluster weights, float32[N, K]."""
        return self.head.phi(self.hidden(embeddings))


def learn_deep_map(
    embeddings: NDArray[np.float32],
    losses: NDArray[np.float64],
    n_clusters: int,
    seed: int = 0,
) -> DeepMap:
    """Train BN-[FC128-BN-ReLU]x2-FC-softmax to predict the losses of seen LLMs.

    Parameters are those of `uniroute_fast.evaluate.learned_map.learn_map`, and so is the
    objective: the log loss of ``phi(x) @ psi``, psi the mean losses in k-means clusters.
    Minimised by Adam.

    Notes
    -----
    O(N (D + 128 + K + S) 128) an epoch. Jitkrittum et al., arXiv 2502.08773, appendix on training.
    """
    rng = np.random.default_rng(seed)
    centroids = kmeans(embeddings, n_clusters, seed)
    hard = hard_map(centroids).phi(embeddings)
    psi = np.clip(shrunk_means(observe(hard, losses, gram=False), 1.0), MARGIN, 1 - MARGIN)
    widths = [embeddings.shape[1], WIDTH, WIDTH, n_clusters]
    dense = [_Dense(a, b, rng) for a, b in pairwise(widths)]
    norms = [_Norm(width) for width in widths[:-1]]
    parts: list[_Dense | _Norm] = [*dense, *norms]
    optimiser = _Adam([parameter for part in parts for parameter in part.parameters])
    x = embeddings.astype(np.float64)
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        # A batch of one has no variance to normalise by.
        for rows in np.array_split(order, max(1, len(x) // BATCH)):
            slope = _slope(_forward(dense, norms, x[rows]), losses[rows], psi)
            _backward(dense, norms, slope)
            optimiser.step([gradient for part in parts for gradient in part.gradients])
    return _folded(dense, norms)


def _forward(
    dense: Sequence[_Dense], norms: Sequence[_Norm], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scores of a batch."""
    x = norms[0].forward(x)
    for layer, norm in zip(dense, norms[1:], strict=False):
        x = norm.forward(layer.forward(x))
        norm.active = x > 0
        x = x * norm.active
    return dense[-1].forward(x)


def _slope(
    scores: NDArray[np.float64], losses: NDArray[np.float64], psi: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the gradient of the mean log loss with respect to the scores."""
    phi = np.exp(scores - scores.max(axis=1, keepdims=True))
    phi /= phi.sum(axis=1, keepdims=True)
    gamma = np.clip(phi @ psi, MARGIN, 1 - MARGIN)
    run = ~np.isnan(losses)
    error = np.where(run, gamma - np.where(run, losses, 0.0), 0.0) / max(int(run.sum()), 1)
    to_phi = (error / (gamma * (1 - gamma))) @ psi.T
    return np.asarray(phi * (to_phi - np.einsum("nk,nk->n", phi, to_phi)[:, None]))


def _backward(dense: Sequence[_Dense], norms: Sequence[_Norm], slope: NDArray[np.float64]) -> None:
    slope = dense[-1].backward(slope)
    for layer, norm in zip(dense[-2::-1], norms[:0:-1], strict=True):
        slope = layer.backward(norm.backward(slope * norm.active))
    norms[0].backward(slope)


def _folded(dense: Sequence[_Dense], norms: Sequence[_Norm]) -> DeepMap:
    """Return the map with every normalisation folded into the layer beside it."""
    scale, shift = norms[0].affine()
    layers = []
    for layer, norm in zip(dense, norms[1:], strict=False):
        weights, bias = layer.parameters
        weights, bias = scale[:, None] * weights, shift @ weights + bias
        after, offset = norm.affine()
        layers.append(
            ((weights * after).astype(np.float32), (bias * after + offset).astype(np.float32))
        )
        scale, shift = np.ones_like(after), np.zeros_like(after)
    weights, bias = dense[-1].parameters
    head = SoftmaxHead(np.ascontiguousarray(weights.T, dtype=np.float32), bias.astype(np.float32))
    return DeepMap(layers, head)


class _Dense:
    """A linear layer."""

    def __init__(self, n_in: int, n_out: int, rng: np.random.Generator) -> None:
        limit = np.sqrt(6 / (n_in + n_out))
        self.parameters = [rng.uniform(-limit, limit, (n_in, n_out)), np.zeros(n_out)]
        self.gradients = [np.zeros_like(p) for p in self.parameters]
        self._x = np.zeros((0, n_in))

    def forward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        self._x = x
        return np.asarray(x @ self.parameters[0] + self.parameters[1])

    def backward(self, slope: NDArray[np.float64]) -> NDArray[np.float64]:
        self.gradients = [self._x.T @ slope, slope.sum(axis=0)]
        return np.asarray(slope @ self.parameters[0].T)


class _Norm:
    """Batch normalisation, which keeps running moments to serve with."""

    def __init__(self, width: int) -> None:
        self.parameters = [np.ones(width), np.zeros(width)]
        self.gradients = [np.zeros(width), np.zeros(width)]
        self.active = np.zeros((0, width), dtype=bool)
        self._mean, self._variance = np.zeros(width), np.ones(width)
        self._z = np.zeros((0, width))
        self._spread = np.ones(width)

    def forward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, variance = x.mean(axis=0), x.var(axis=0)
        self._mean += FOLLOW * (mean - self._mean)
        self._variance += FOLLOW * (variance - self._variance)
        self._spread = np.sqrt(variance + LITTLE)
        self._z = (x - mean) / self._spread
        return np.asarray(self.parameters[0] * self._z + self.parameters[1])

    def backward(self, slope: NDArray[np.float64]) -> NDArray[np.float64]:
        self.gradients = [(slope * self._z).sum(axis=0), slope.sum(axis=0)]
        along = slope * self.parameters[0]
        centred = along - along.mean(axis=0) - self._z * (along * self._z).mean(axis=0)
        return np.asarray(centred / self._spread)

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and shift with the running moments."""
        scale = self.parameters[0] / np.sqrt(self._variance + LITTLE)
        return scale, self.parameters[1] - scale * self._mean


class _Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015."""

    def __init__(self, parameters: Sequence[NDArray[np.float64]]) -> None:
        self._parameters = parameters
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]
        self._steps = 0

    def step(self, gradients: Sequence[NDArray[np.float64]]) -> None:
        self._steps += 1
        early = [1 - decay**self._steps for decay in DECAYS]
        for p, m, v, g in zip(self._parameters, self._first, self._second, gradients, strict=True):
            m += (1 - DECAYS[0]) * (g - m)
            v += (1 - DECAYS[1]) * (g**2 - v)
            p -= STEP * (m / early[0]) / (np.sqrt(v / early[1]) + GUARD)
