"""A pool that changes while it serves: switches, metadata, snapshots, log, replacement."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors

DIM, CLUSTERS = 5, 7


def centroids() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(CLUSTERS, DIM)).astype(np.float32)


def soft() -> list[tuple]:
    rng = np.random.default_rng(1)
    return [
        ("softmax", rng.normal(size=(CLUSTERS, DIM)).astype(np.float32), np.zeros(CLUSTERS), 0.1)
    ]


MAPS = {"hard": [("nearest", centroids())], "soft": soft()}


def pool(n: int, heads: str = "hard", seed: int = 2) -> uf.Router:
    rng = np.random.default_rng(seed)
    router = uf.Router(None, MAPS[heads])
    losses = rng.random((CLUSTERS, n), dtype=np.float32)
    router.insert([f"m{i}" for i in range(n)], rng.random(n), losses)
    return router


def queries(n: int = 50) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, DIM)).astype(np.float32)


def best(gamma: np.ndarray, costs: np.ndarray, allowed: np.ndarray, weight: float) -> np.ndarray:
    """The rule in float64 over the allowed models; ties to lower cost, then to lower index."""
    objective = np.where(allowed, gamma.astype(np.float64) + weight * costs, np.inf)
    order = np.lexsort((np.arange(len(costs)), costs))
    return order[np.argmin(objective[:, order], axis=1)]


@pytest.mark.parametrize("heads", MAPS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 5.0])
def test_disabled_models_are_listed_but_never_chosen(heads: str, weight: float) -> None:
    router, x = pool(600, heads), queries()
    rng = np.random.default_rng(4)
    off = rng.choice(600, 500, replace=False)
    for m in off:
        router.disable_model(f"m{m}")
    enabled = np.ones(600, bool)
    enabled[off] = False
    np.testing.assert_array_equal(router.enabled, enabled)
    assert len(router.models) == 600
    gamma = router.predict_loss(embeddings=x)
    expected = best(gamma, router.costs, enabled, weight)
    np.testing.assert_array_equal(
        router.route_batch(embeddings=x, cost_weight=weight).index, expected
    )
    for m in off:
        router.enable_model(f"m{m}")
    expected = best(gamma, router.costs, np.ones(600, bool), weight)
    np.testing.assert_array_equal(
        router.route_batch(embeddings=x, cost_weight=weight).index, expected
    )


def test_a_pool_of_disabled_models_says_so() -> None:
    router, x = pool(2), queries(3)
    router.disable_model("m0")
    router.disable_model("m1")
    router.disable_model("m1")  # Once more changes nothing.
    with pytest.raises(errors.NoCandidateError, match="disabled 2"):
        router.route(embeddings=x[0])
    decisions = router.route_batch(embeddings=x)
    assert decisions.status == ["no_candidate"] * 3
    assert decisions.models == [None] * 3
    router.enable_model("m1")
    decision = router.route(embeddings=x[0])
    assert decision.model == "m1"
    assert decision.alternatives == []
    assert [(e.model, e.reasons) for e in decision.excluded] == [("m0", ["disabled"])]


def test_metadata_is_set_field_by_field_and_saved(tmp_path: Path) -> None:
    router = pool(3)
    router.set_metadata("m1", tags=["tools", "region:eu"], context_length=8192, latency=0.7)
    router.set_metadata("m1", input_price=2.5, output_price=10, latency=None)
    router.disable_model("m2")
    path = tmp_path / "pool.uniroute"
    router.save(path)
    for known in (
        router,
        uf.Router.load(path),
        pickle.loads(pickle.dumps(router)),
        router.snapshot(),
    ):
        info = known.info("m1")
        assert info.tags == ["region:eu", "tools"]
        assert (info.context_length, info.latency) == (8192, None)
        assert (info.input_price, info.output_price) == (2.5, 10.0)
        assert (info.index, info.cost, info.enabled) == (1, router.costs[1], True)
        assert not known.info("m2").enabled
        assert known.info("m0").tags == []
    # Metadata moves with its model.
    router.remove_model("m0")
    assert router.info("m1").index == 0
    assert router.info("m1").tags == ["region:eu", "tools"]
    assert not router.info("m2").enabled


def test_bad_metadata_is_refused_and_changes_nothing() -> None:
    router = pool(2)
    for error, message, call in [
        (errors.UnknownModelError, "nobody", lambda: router.set_metadata("nobody", tags=["a"])),
        (errors.UnknownModelError, "nobody", lambda: router.disable_model("nobody")),
        (errors.UnknownModelError, "nobody", lambda: router.info("nobody")),
        (errors.InvalidArgumentError, "latency: -1", lambda: router.set_metadata("m0", latency=-1)),
        (errors.InvalidArgumentError, "NaN", lambda: router.set_metadata("m0", input_price=np.nan)),
        (errors.InvalidArgumentError, "tags", lambda: router.set_metadata("m0", tags=[""])),
        (errors.ArgumentTypeError, "single str", lambda: router.set_metadata("m0", tags="eu")),
        (
            errors.InvalidArgumentError,
            "context_length",
            lambda: router.set_metadata("m0", context_length=-5),
        ),
        (errors.ArgumentTypeError, "colour", lambda: router.set_metadata("m0", colour=1)),
        (errors.ArgumentTypeError, "Router", lambda: router.replace("pool.uniroute")),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert router.version == 1


def test_a_snapshot_stays_as_it_was() -> None:
    router, x = pool(40), queries()
    before = router.snapshot()
    decisions = before.route_batch(embeddings=x, cost_weight=0.2)
    router.remove_model("m7")
    router.disable_model("m8")
    router.set_cost("m9", 0.0)
    router.replace(pool(3, "soft", seed=9))
    assert before.version == 1
    assert len(before.models) == 40
    again = before.route_batch(embeddings=x, cost_weight=0.2)
    np.testing.assert_array_equal(again.index, decisions.index)
    assert before.route(embeddings=x[0], cost_weight=0.2).model == decisions.models[0]
    np.testing.assert_array_equal(before.phi(embeddings=x).sum(axis=1), 1)
    assert "40 models" in repr(before)


def test_the_log_tells_what_changed_and_is_bounded() -> None:
    router = pool(20)
    router.set_cost("m3", 0.5)
    router.disable_model("m3")
    router.enable_model("m3")
    router.set_metadata("m3", tags=["eu"])
    router.set_profile("m3", np.zeros(CLUSTERS, np.float32))
    router.remove_model("m3")
    router.replace(pool(2))
    changes = router.changes()
    assert [c.action for c in changes] == [
        "add", "cost", "disable", "enable", "metadata", "profile", "remove", "replace",
    ]  # fmt: skip
    assert [c.version for c in changes] == list(range(1, 9))
    assert changes[0].count == 20
    assert changes[0].models == [f"m{i}" for i in range(8)]
    assert changes[1].models == ["m3"]
    assert abs(changes[-1].time - time.time()) < 60
    assert [c.action for c in router.changes(since=6)] == ["remove", "replace"]
    for _ in range(1100):
        router.set_cost("m1", 1.0)
    assert len(router.changes()) == 1024
    # A change that failed is none.
    with pytest.raises(errors.UnknownModelError):
        router.set_cost("nobody", 1.0)
    assert router.changes()[-1].models == ["m1"]


def test_replacing_takes_over_embedder_map_and_models() -> None:
    texts = [f"{w} {i}" for i in range(40) for w in ("sum", "poem", "river")]
    losses = np.random.default_rng(5).random((len(texts), 2))
    first = uf.Router.fit(texts, n_clusters=2)
    first.add_models(["a", "b"], [1, 2], texts, losses)
    second = uf.Router.fit(texts[:60], n_clusters=3)
    second.add_models(["c", "d"], [1, 2], texts, losses)
    version = first.version
    first.replace(second)
    assert first.models == ["c", "d"]
    assert first.n_clusters == 3
    assert first.embedder is second.embedder
    assert first.version == version + 1
    np.testing.assert_array_equal(first.predict_loss(texts), second.predict_loss(texts))
    # It is a router of its own again.
    first.add_model("e", cost=1, texts=texts, losses=losses[:, 0])
    assert second.models == ["c", "d"]


@pytest.mark.parametrize("heads", MAPS)
def test_every_decision_under_change_is_that_of_a_published_snapshot(heads: str) -> None:
    router, x = pool(500, heads), queries(8)
    published = {router.version: router.snapshot()}
    seen: list[list[uf.Decision]] = [[], []]
    stop = threading.Event()
    failures: list[BaseException] = []

    def read(decisions: list[uf.Decision]) -> None:
        try:
            i = 0
            while not stop.is_set():
                decisions.append(router.route(embeddings=x[i % 8], cost_weight=0.1))
                i += 1
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(decisions,)) for decisions in seen]
    for reader in readers:
        reader.start()
    rng = np.random.default_rng(6)
    for i in range(150):
        match i % 5:
            case 0:
                losses = rng.random((CLUSTERS, 1), dtype=np.float32) * 0.1
                router.insert([f"new{i}"], rng.random(1), losses)
            case 1:
                router.set_cost(f"m{rng.integers(300)}", float(rng.random()))
            case 2:
                router.disable_model(f"m{rng.integers(300)}")
            case 3:
                router.enable_model(f"m{rng.integers(300)}")
            case _:
                router.remove_model(f"m{499 - i // 5}")
        published[router.version] = router.snapshot()
        time.sleep(0.001)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures, failures
    assert sorted(published) == list(range(1, 152))
    for decisions in seen:
        assert decisions
        versions = [d.version for d in decisions]
        assert versions == sorted(versions), "a reader went back in time"
        for i, decision in enumerate(decisions):
            if i % 7 and i > 500:
                continue
            snapshot = published[decision.version]
            again = snapshot.route(embeddings=x[i % 8], cost_weight=0.1)
            assert (again.model, again.index, again.predicted_loss, again.cost) == (
                decision.model, decision.index, decision.predicted_loss, decision.cost,
            )  # fmt: skip
            gamma = snapshot.predict_loss(embeddings=x[[i % 8]])
            expected = best(gamma, snapshot.costs, snapshot.enabled, 0.1)
            assert decision.index == expected[0]
