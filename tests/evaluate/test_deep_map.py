"""The paper's two-layer map: its gradient, what it learns, and how it could serve."""

import numpy as np
import pytest

from uniroute_fast.evaluate import deep_map
from uniroute_fast.evaluate.deep_map import (
    _backward,
    _Dense,
    _forward,
    _Norm,
    _slope,
    learn_deep_map,
)


def log_loss(dense, norms, x, losses, psi):
    scores = _forward(dense, norms, x)
    phi = np.exp(scores - scores.max(axis=1, keepdims=True))
    gamma = phi / phi.sum(axis=1, keepdims=True) @ psi
    return -np.nanmean(losses * np.log(gamma) + (1 - losses) * np.log(1 - gamma))


def test_gradient_is_that_of_the_log_loss():
    rng = np.random.default_rng(0)
    x, psi = rng.normal(size=(20, 5)), rng.uniform(0.1, 0.9, size=(3, 4))
    losses = (rng.random((20, 4)) < 0.4).astype(float)
    losses[rng.random(losses.shape) < 0.2] = np.nan
    dense = [_Dense(5, 6, rng), _Dense(6, 7, rng), _Dense(7, 3, rng)]
    norms = [_Norm(5), _Norm(6), _Norm(7)]
    _backward(dense, norms, _slope(_forward(dense, norms, x), losses, psi))
    for part in (*dense, *norms):
        for parameter, gradient in zip(
            part.parameters, [g.copy() for g in part.gradients], strict=True
        ):
            at = tuple(rng.integers(n) for n in parameter.shape)
            keep, h = parameter[at], 1e-6
            values = []
            for moved in (keep + h, keep - h):
                parameter[at] = moved
                values.append(log_loss(dense, norms, x, losses, psi))
            parameter[at] = keep
            expected = (values[0] - values[1]) / (2 * h)
            assert gradient[at] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_it_learns_what_no_linear_map_can():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6000, 2)).astype(np.float32)
    group = (x[:, 0] * x[:, 1] > 0).astype(int)  # Opposite quadrants.
    rates = np.array([[0.1, 0.9, 0.2, 0.8], [0.9, 0.1, 0.8, 0.2]])
    losses = (rng.random((6000, 4)) < rates[group]).astype(float)
    # Four clusters are the quadrants.
    labels = learn_deep_map(x[:5000], losses[:5000], 4).phi(x).argmax(axis=1)
    means = np.stack(
        [losses[:5000][labels[:5000] == k].mean(axis=0) for k in range(labels.max() + 1)]
    )
    assert np.nanmean(np.abs(means[labels[5000:]] - rates[group[5000:]])) < 0.15


def test_same_seed_same_map_and_its_last_layer_is_a_softmax_head():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    losses = rng.random((200, 3))
    one, two = (learn_deep_map(x, losses, 5, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.phi(x), two.phi(x))
    np.testing.assert_array_equal(one.head.phi(one.hidden(x)), one.phi(x))
    assert one.hidden(x).shape == (200, deep_map.WIDTH)
