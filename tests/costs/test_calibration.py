"""From budgets and quality targets to cost weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf
from uniroute_fast import errors

DIM = 3


def build(seed: int, models: int, clusters: int, *, soft: bool) -> tuple[uf.Router, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(clusters, DIM)).astype(np.float32)
    head = ("softmax", weights, np.zeros(clusters), 0.0) if soft else ("nearest", weights)
    router = uf.Router(None, [head])
    names = [f"m{i}" for i in range(models)]
    router.insert(names, rng.integers(1, 20, models) / 4, rng.random((clusters, models)))
    return router, rng.normal(size=(60, DIM)).astype(np.float32)


def cost_at(router: uf.Router, x: np.ndarray, weight: float) -> float:
    return 1000 * router.route_batch(embeddings=x, cost_weight=weight).cost.mean()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), models=st.integers(1, 12), soft=st.booleans(), at=st.floats(0, 1)
)
def test_a_budget_is_met_exactly_by_the_mix_and_kept_to_by_the_weight(
    seed: int, models: int, soft: bool, at: float
) -> None:
    router, x = build(seed, models, 5, soft=soft)
    cheapest, dearest = cost_at(router, x, 1e9), cost_at(router, x, 0.0)
    budget = cheapest + at * (dearest - cheapest)
    found = router.calibrate(embeddings=x, budget=budget * (1 + 1e-12), n_bootstrap=5)
    low, high = cost_at(router, x, found.low), cost_at(router, x, found.high)
    assert found.share * low + (1 - found.share) * high == pytest.approx(budget)
    assert found.cost == pytest.approx(budget)
    assert cost_at(router, x, found.cost_weight) <= budget * (1 + 1e-9)
    # Nothing lies between the two sides: they are neighbours on the frontier.
    assert found.low <= found.high
    between = np.linspace(found.low, found.high, 20)
    costs = [cost_at(router, x, w) for w in between]
    assert all(np.isclose(c, low) or np.isclose(c, high) for c in costs)


@pytest.mark.parametrize("soft", [False, True])
def test_the_frontier_is_what_routing_gives_at_every_weight(soft: bool) -> None:
    router, x = build(3, 15, 6, soft=soft)
    gamma = router.predict_loss(embeddings=x).astype(np.float64)
    frontier = router.calibrate(embeddings=x, budget=1e6, n_bootstrap=5).frontier
    assert frontier.cost_weight[0] == 0
    assert (np.diff(frontier.cost_weight) > 0).all()
    ends = [*frontier.cost_weight[1:], 2 * frontier.cost_weight[-1]]
    for start, end, cost, quality in zip(
        frontier.cost_weight, ends, frontier.cost, frontier.quality, strict=True
    ):
        routed = router.route_batch(embeddings=x, cost_weight=(start + end) / 2)
        assert 1000 * routed.cost.mean() == pytest.approx(cost)
        assert 1 - gamma[np.arange(60), routed.index].mean() == pytest.approx(quality)


def test_quality_targets_predicted_and_measured() -> None:
    router, x = build(5, 10, 6, soft=True)
    best = router.calibrate(embeddings=x, quality_drop=0.0, n_bootstrap=5)
    assert best.quality == pytest.approx(best.frontier.quality[0])
    drop = router.calibrate(embeddings=x, quality_drop=0.03, n_bootstrap=5)
    assert drop.quality == pytest.approx(best.quality - 0.03)
    assert drop.cost < best.cost
    gamma = router.predict_loss(embeddings=x)
    kept = router.route_batch(embeddings=x, cost_weight=drop.cost_weight)
    assert 1 - gamma[np.arange(60), kept.index].mean() >= drop.quality - 1e-6
    target = router.calibrate(embeddings=x, quality=drop.quality, n_bootstrap=5)
    assert target.cost == pytest.approx(drop.cost)
    # Where outcomes are given, they count and not the predictions.
    losses = np.random.default_rng(0).integers(0, 2, gamma.shape).astype(float)
    losses[7, 3] = np.nan
    keep = np.arange(60) != 7
    measured = router.calibrate(embeddings=x, quality=0.4, losses=losses, n_bootstrap=5)
    mixed = 0.0
    for share, weight in [(measured.share, measured.low), (1 - measured.share, measured.high)]:
        index = router.route_batch(embeddings=x[keep], cost_weight=weight).index
        mixed += share * (1 - losses[keep][np.arange(59), index].mean())
    assert mixed == pytest.approx(measured.quality)
    assert measured.quality >= 0.4 - 1e-9


def test_mixed_weights_come_in_the_right_shares() -> None:
    router, x = build(8, 12, 5, soft=False)
    ends = router.calibrate(embeddings=x, budget=1e6, n_bootstrap=5).frontier.cost
    found = router.calibrate(embeddings=x, budget=ends[:2].mean(), n_bootstrap=5)
    assert 0 < found.share < 1
    weights = found.cost_weights(1001, seed=1)
    assert set(weights) == {found.low, found.high}
    assert abs((weights == found.low).sum() - found.share * 1001) <= 1
    np.testing.assert_array_equal(weights, found.cost_weights(1001, seed=1))


def test_the_interval_covers_what_new_prompts_cost() -> None:
    router, _ = build(11, 20, 8, soft=True)
    rng = np.random.default_rng(12)
    inside = 0
    for _ in range(100):
        x = rng.normal(size=(80, DIM)).astype(np.float32)
        new = rng.normal(size=(80, DIM)).astype(np.float32)
        found = router.calibrate(embeddings=x, budget=1800, n_bootstrap=200, confidence=0.9)
        weights = found.cost_weights(80, seed=2)
        cost = 1000 * router.route_batch(embeddings=new, cost_weight=weights).cost.mean()
        inside += found.interval[0] <= cost <= found.interval[1]
    # 90 expected; binomial, 4 standard deviations.
    assert inside >= 78


def test_disabled_models_are_left_out() -> None:
    router, x = build(9, 6, 5, soft=False)
    cheapest = router.models[int(router.costs.argmin())]
    router.disable_model(cheapest)
    found = router.calibrate(embeddings=x, budget=1000 * np.sort(router.costs)[1], n_bootstrap=5)
    routed = router.route_batch(embeddings=x, cost_weight=found.cost_weight)
    assert cheapest not in routed.models


def test_bad_targets_are_refused() -> None:
    router, x = build(1, 4, 5, soft=False)
    for message, arguments in {
        "0 of them": {},
        "2 of them": {"budget": 1.0, "quality": 0.5},
        "budget: -1": {"budget": -1},
        "budget: nan": {"budget": float("nan")},
        "cheapest models cost": {"budget": 1e-9},
        "quality: 1.5": {"quality": 1.5},
        "best that can be had": {"quality": 1.0},
        "confidence": {"budget": 1e9, "confidence": 1.0},
        "n_bootstrap": {"budget": 1e9, "n_bootstrap": 0},
        "columns": {"budget": 1e9, "losses": np.zeros((60, 3))},
        "rows": {"budget": 1e9, "losses": np.zeros((3, 4))},
        "every prompt lacks": {"budget": 1e9, "losses": np.full((60, 4), np.nan)},
    }.items():
        with pytest.raises(errors.InvalidArgumentError, match=message):
            router.calibrate(embeddings=x, **arguments)
