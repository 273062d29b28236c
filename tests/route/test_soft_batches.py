"""Large batches over soft maps: the pool packed for them decides as single prompts do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf

DIM = 12
# Batches of this size over 256 models pack the pool; see rust/core/src/route/packed.rs.
LARGE = 2100
RNG = np.random.default_rng


def softmax(k: int, floor: float, steep: float) -> tuple:
    rng = RNG(k)
    weights = steep * rng.standard_normal((k, DIM))
    return ("softmax", weights.astype(np.float32), np.zeros(k, np.float32), floor)


HEADS = {
    "few clusters count": [softmax(64, 1 / 64, 2.0)],
    "all clusters count": [softmax(40, 0.0, 0.1)],
    "several heads": [
        softmax(24, 1 / 64, 1.0),
        ("nearest", RNG(1).standard_normal((9, DIM)).astype(np.float32)),
        softmax(33, 0.0, 3.0),
    ],
}


def router_of(heads: list[tuple], kind: str, models: int) -> uf.Router:
    rng = RNG(models)
    clusters = sum(len(head[1]) for head in heads)
    losses, costs = rng.random((clusters, models)), 10 ** rng.uniform(-3, 1, models)
    if kind == "ties":
        losses, costs = np.round(4 * losses) / 4, rng.choice([0.1, 0.2, 5.0], models)
    if kind == "alike":
        losses = rng.random(models) + 0.02 * rng.standard_normal((clusters, models))
    router = uf.Router(None, heads)
    router.insert([f"m{i}" for i in range(models)], costs, losses.astype(np.float32))
    return router


def by_definition(router: uf.Router, x: np.ndarray, cost_weight, enabled: np.ndarray):
    """Winners and their predicted losses from the predicted losses of all models."""
    gamma = router.predict_loss(embeddings=x)
    costs = np.array([router.info(name).cost for name in router.models])
    objective = gamma.astype(np.float64) + np.broadcast_to(cost_weight, len(x))[:, None] * costs
    objective[:, ~enabled] = np.inf
    order = np.lexsort((np.arange(len(costs)), costs))
    winners = order[objective[:, order].argmin(1)]
    return winners, gamma[np.arange(len(x)), winners]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kind", ["unrelated", "ties", "alike"])
@pytest.mark.parametrize("models", [256, 700])
def test_large_batches_decide_by_the_definition(heads, kind, models):
    router = router_of(HEADS[heads], kind, models)
    x = RNG(5).standard_normal((LARGE, DIM)).astype(np.float32)
    enabled = np.ones(models, bool)
    for disabled in (0, models // 3):
        for m in range(disabled):  # Fewer enabled ones than it takes are packed all the same.
            router.disable_model(f"m{m}")
            enabled[m] = False
        for cost_weight in (0.0, 0.05, 1e12, RNG(6).random(LARGE)):
            decisions = router.route_batch(embeddings=x, cost_weight=cost_weight)
            winners, losses = by_definition(router, x, cost_weight, enabled)
            np.testing.assert_array_equal(decisions.index, winners)
            np.testing.assert_array_equal(decisions.predicted_loss, losses)
        one = router.route(embeddings=x[:1], cost_weight=0.05)
        many = router.route_batch(embeddings=x, cost_weight=0.05)
        assert (one.index, one.cluster) == (many.index[0], many.cluster[0])


def test_a_change_of_the_pool_is_seen_by_the_next_large_batch():
    router = router_of(HEADS["few clusters count"], "unrelated", 300)
    x = RNG(7).standard_normal((LARGE, DIM)).astype(np.float32)
    assert len(set(router.route_batch(embeddings=x).index)) > 1
    router.insert(["best"], [0.0], np.full((64, 1), -1.0, np.float32))
    assert set(router.route_batch(embeddings=x).models) == {"best"}
    router.remove_model("best")
    assert "best" not in router.route_batch(embeddings=x).models


def test_constrained_rows_are_answered_among_the_others():
    router = router_of(HEADS["few clusters count"], "unrelated", 300)
    x = RNG(8).standard_normal((LARGE, DIM)).astype(np.float32)
    only = uf.Constraints(allow=["m7"])
    constraints = [only if i % 3 == 0 else None for i in range(LARGE)]
    decisions = router.route_batch(embeddings=x, constraints=constraints)
    free = router.route_batch(embeddings=x)
    for i, name in enumerate(decisions.models):
        assert name == ("m7" if i % 3 == 0 else free.models[i])


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "amx"])
def test_every_instruction_set_decides_alike(isa):
    if isa not in uf._native.available_isas():
        pytest.skip(f"this CPU has no {isa}")
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from test_soft_batches import DIM, HEADS, LARGE, by_definition, router_of
x = np.random.default_rng(9).standard_normal((LARGE, DIM)).astype(np.float32)
for heads in HEADS.values():
    router = router_of(heads, "ties", 300)
    for weight in (0.0, 0.03):
        decisions = router.route_batch(embeddings=x, cost_weight=weight)
        winners, losses = by_definition(router, x, weight, np.ones(300, bool))
        assert (decisions.index == winners).all() and (decisions.predicted_loss == losses).all()
        print(decisions.predicted_loss.tobytes().hex())
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "UNIROUTE_ISA": each},
        ).stdout
        for each in (isa, "portable")
    ]
    assert runs[0] == runs[1]
