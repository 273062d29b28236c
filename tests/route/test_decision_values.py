"""Decisions as values: pickled, copied, shown."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors

SAID = [
    "model", "index", "predicted_loss", "cost", "cluster", "cost_weight", "coverage", "tokens",
    "fallback", "stayed", "version",
]  # fmt: skip
COLUMNS = ["index", "predicted_loss", "cost", "cluster", "coverage", "ok", "fallback", "stayed"]


@pytest.fixture(scope="module", params=["hard", "soft"])
def router(request: pytest.FixtureRequest) -> uf.Router:
    weights = np.eye(3, dtype=np.float32)
    head: Any = (
        ("nearest", weights)
        if request.param == "hard"
        else ("softmax", weights, np.zeros(3, np.float32), 0.0)
    )
    router = uf.Router(None, [head])
    rng = np.random.default_rng(0)
    router.insert([f"m{i}é" for i in range(7)], rng.random(7), rng.random((3, 7)))
    return router


def test_a_pickled_decision_says_what_the_decision_said(router: uf.Router) -> None:
    decision = router.route(
        embeddings=[1.0, 2.0, 3.0],
        cost_weight=0.3,
        tokens=17,
        constraints=uf.Constraints(deny=["m1*"]),
    )
    twin = pickle.loads(pickle.dumps(decision))
    assert {name: getattr(twin, name) for name in SAID} == {
        name: getattr(decision, name) for name in SAID
    }
    assert repr(twin) == repr(decision)
    again = pickle.loads(pickle.dumps(twin))
    assert again.model == decision.model
    for wanted in ("alternatives", "excluded"):
        with pytest.raises(errors.InvalidArgumentError, match=f"{wanted}: .*pickled"):
            getattr(twin, wanted)
    with pytest.raises(errors.InvalidArgumentError, match=r"contenders: .*pickled"):
        twin.contenders(0.1)
    [other, *_] = decision.alternatives
    restored = pickle.loads(pickle.dumps(other))
    assert (restored.model, restored.objective) == (other.model, other.objective)
    [stopped] = decision.excluded
    restored = pickle.loads(pickle.dumps(stopped))
    assert (restored.model, restored.reasons) == (stopped.model, stopped.reasons)


def test_a_copied_decision_is_the_decision(router: uf.Router) -> None:
    decision = router.route(embeddings=[1.0, 2.0, 3.0])
    decisions = router.route_batch(embeddings=np.eye(3))
    for value in (decision, decisions):
        assert copy.copy(value) is value
        assert copy.deepcopy([value])[0] is value


def test_pickled_decisions_are_the_same_columns(router: uf.Router) -> None:
    decisions = router.route_batch(
        embeddings=np.random.default_rng(1).normal(size=(50, 3)),
        cost_weight=np.linspace(0, 2, 50),
        constraints=[None, uf.Constraints(allow=["nobody"])] * 25,
        current_model=["m0é", None, "m3é", None, None] * 10,
        switch_cost=0.2,
    )
    assert 0 < decisions.ok.sum() < 50
    assert decisions.stayed.any()
    twin = pickle.loads(pickle.dumps(decisions))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(twin, name), getattr(decisions, name))
    assert (twin.models, twin.status) == (decisions.models, decisions.status)
    assert (len(twin), repr(twin)) == (50, repr(decisions))
    assert pickle.loads(pickle.dumps(twin)).models == decisions.models


def test_decisions_pickle_without_the_pool() -> None:
    router = uf.Router(None, [("nearest", np.zeros((1, 2), np.float32))])
    count = 5000
    router.insert([f"model {i}" for i in range(count)], np.ones(count), np.ones((1, count)))
    assert len(pickle.dumps(router.route(embeddings=[0, 0]))) < 500
    assert len(pickle.dumps(router.route_batch(embeddings=np.zeros((3, 2))))) < 2000


def test_a_worker_process_hands_decisions_back(router: uf.Router) -> None:
    x = np.random.default_rng(2).normal(size=(5, 3))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        decisions = workers.submit(_routed, router, x).result()
    assert decisions.models == router.route_batch(embeddings=x).models


def _routed(router: uf.Router, x: np.ndarray) -> Any:
    return router.route_batch(embeddings=x)


def test_a_router_shows_what_it_holds(router: uf.Router) -> None:
    assert repr(router) == (
        "Router(7 models: 'm0é', 'm1é', 'm2é', ...; 3 clusters; embedder none; version 1)"
    )
    fitted = uf.Router.fit(["one", "two", "three", "four"] * 5, n_clusters=2)
    assert repr(fitted) == (
        "Router(0 models: none yet; 2 clusters; embedder LexicalEmbedder; version 0)"
    )
