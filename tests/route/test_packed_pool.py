"""Winners over mixtures of clusters: equal to the definition, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import uniroute_fast as uf


def definition(phi, psi, costs, cost_weight, n):
    """Sum cluster by cluster in float32, add costs in float64, sort."""
    weights = np.broadcast_to(cost_weight, len(phi))
    winners = np.empty((len(phi), n), np.uint32)
    losses = np.empty((len(phi), n), np.float32)
    for i, row in enumerate(phi):
        gamma = np.zeros(psi.shape[1], np.float32)
        for weight, profile in zip(row, psi, strict=True):
            gamma = gamma + weight * profile
        objective = gamma.astype(np.float64) + weights[i] * costs
        order = np.lexsort((np.arange(len(costs)), costs, objective))[:n]
        winners[i], losses[i] = order, gamma[order]
    return winners, losses


def profiles(kind, rng, k, m):
    psi = rng.random((k, m))
    costs = 10 ** rng.uniform(-3, 2, m)
    match kind:
        case "ties":
            return np.round(psi * 4) / 4, rng.choice([0.1, 0.2, 5.0], m)
        case "alike":
            return rng.random((1, m)) + 0.05 * rng.standard_normal((k, m)), costs
        case "large":
            return psi * 1e6 - 5e5, costs
        case "beyond the bound":
            return psi * 1e15, costs
    return psi, costs


def mixtures(kind, rng, n, k):
    logits = rng.standard_normal((n, k)) * (5 if kind == "peaked" else 0.5)
    phi = np.exp(logits)
    phi /= phi.sum(1, keepdims=True)
    match kind:
        case "one cluster":
            phi = np.eye(k)[rng.integers(0, k, n)]
        case "sparse":
            phi *= rng.random((n, k)) < 0.1  # Some rows are all zeros.
        case "two heads":
            phi *= 2
    return phi.astype(np.float32)


@pytest.mark.parametrize("kind", ["uniform", "ties", "alike", "large", "beyond the bound"])
@pytest.mark.parametrize("mixture", ["flat", "peaked", "one cluster", "sparse", "two heads"])
def test_equals_the_definition(kind, mixture):
    rng = np.random.default_rng(len(kind) * 31 + len(mixture))
    for k, m in [(1, 1), (3, 17), (24, 300), (65, 1500)]:
        psi, costs = profiles(kind, rng, k, m)
        psi = psi.astype(np.float32)
        phi = mixtures(mixture, rng, 20, k)
        pool = uf.decisions.PackedPool(psi, costs)
        for cost_weight in (0.0, 0.5, 1e14, rng.random(20)):
            for n in {1, min(3, m), min(16, m), min(20, m)}:
                expected = definition(phi, psi, costs, cost_weight, n)
                winners, losses = pool.best(phi, cost_weight, n)
                np.testing.assert_array_equal(winners, expected[0])
                np.testing.assert_array_equal(losses, expected[1])


def test_most_llms_are_ruled_out_beforehand():
    rng = np.random.default_rng(0)
    pool = uf.decisions.PackedPool(rng.random((64, 2000)), rng.random(2000))
    counts = pool.count_candidates(rng.dirichlet(np.ones(64), 500))
    assert counts.min() >= 1
    assert counts.mean() < 10


def test_threads_change_nothing():
    rng = np.random.default_rng(1)
    pool = uf.decisions.PackedPool(rng.random((24, 400)), rng.random(400))
    phi = mixtures("flat", rng, 3000, 24)
    before = uf.get_num_threads()
    try:
        results = []
        for threads in (1, 4):
            uf.set_num_threads(threads)
            results.append(pool.best(phi, 0.3)[0])
    finally:
        uf.set_num_threads(before)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phi": [[1.0]]}, "phi: 1 columns"),
        ({"phi": [[1.0, -1.0]]}, "phi: -1 in row 0"),
        ({"phi": [[1.0, np.nan]]}, "phi: NaN in row 0"),
        ({"phi": [[1.0, 0.0]], "n": 0}, "best: 0"),
        ({"phi": [[1.0, 0.0]], "n": 4}, "best: 4"),
        ({"phi": [[1.0, 0.0]], "cost_weight": -1.0}, "cost_weights: -1"),
        ({"phi": [[1.0, 0.0]], "cost_weight": [1.0, 2.0]}, "cost_weights: 2 values"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, message):
    pool = uf.decisions.PackedPool(np.zeros((2, 3)), np.zeros(3))
    with pytest.raises(uf.errors.InvalidArgumentError, match=message):
        pool.best(**arguments)


def test_bad_profiles_are_refused_by_name():
    with pytest.raises(uf.errors.InvalidArgumentError, match="psi: NaN for cluster 0, LLM 1"):
        uf.decisions.PackedPool([[0.0, np.nan]], [1.0, 1.0])
    with pytest.raises(uf.errors.InvalidArgumentError, match="costs: inf for LLM 0"):
        uf.decisions.PackedPool([[0.0]], [np.inf])
    with pytest.raises(uf.errors.InvalidArgumentError, match="psi: "):
        uf.decisions.PackedPool(np.zeros((2, 0)), [])
