"""Whether prompts that are unlike those of the fit are noticed, and others are not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import datasets, errors

DIM, CLUSTERS = 8, 12
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(CLUSTERS, DIM)).astype(np.float32)
SHARES = RNG.dirichlet(np.full(CLUSTERS, 3.0))


def prompts(n: int, seed: int, shares: np.ndarray = SHARES, spread: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    which = rng.choice(CLUSTERS, n, p=shares)
    return (CENTRES[which] + rng.normal(0, spread, (n, DIM))).astype(np.float32)


def build(window: int = 500) -> uf.Router:
    router = uf.Router(None, [("nearest", CENTRES)])
    router.insert(["a", "b"], [1.0, 2.0], RNG.random((CLUSTERS, 2)))
    router.set_baseline(embeddings=prompts(4000, 1), window=window)
    return router


def test_prompts_like_those_of_the_baseline_raise_no_alarm() -> None:
    router = build()
    for seed in range(100, 300):
        report = router.drift(embeddings=prompts(500, seed))
        assert not report.alarm, (seed, report)


def test_the_statistics_are_those_of_their_definitions() -> None:
    router = build()
    old, new = prompts(4000, 1), prompts(700, 2, spread=0.3)

    def labels(x: np.ndarray) -> np.ndarray:
        return uf.nearest_centroid(x, CENTRES, return_distance=False)

    before, now = (np.bincount(labels(x), minlength=CLUSTERS) for x in (old, new))
    p = (before + 0.5) / (before.sum() + 0.5 * CLUSTERS)
    q = (now + 0.5) / (now.sum() + 0.5 * CLUSTERS)
    centre = np.stack([old[labels(old) == k].mean(axis=0) for k in range(CLUSTERS)])
    distances = [np.square(x - centre[labels(x)]).sum(axis=1) for x in (old, new)]
    report = router.drift(embeddings=new)
    assert report.psi == pytest.approx(np.sum((q - p) * np.log(q / p)))
    assert report.distance.expected == pytest.approx(distances[0].mean(), rel=1e-5)
    assert report.distance.mean == pytest.approx(distances[1].mean(), rel=1e-5)
    moved = (distances[1].mean() - distances[0].mean()) / distances[0].std()
    assert report.distance.deviations == pytest.approx(moved, rel=1e-4)
    assert report.reasons == ["distance"]
    by_cluster = {c.cluster: c for c in report.clusters}
    np.testing.assert_allclose([by_cluster[k].share for k in range(CLUSTERS)], q)
    np.testing.assert_allclose([by_cluster[k].expected for k in range(CLUSTERS)], p)
    assert [c.psi for c in report.clusters] == sorted(c.psi for c in report.clusters)[::-1]


def test_the_cluster_that_moved_comes_first() -> None:
    router = build()
    shares = SHARES.copy()
    shares[5] += 0.4
    report = router.drift(embeddings=prompts(500, 3, shares / shares.sum()))
    assert report.reasons == ["psi"]
    assert report.clusters[0].cluster == 5
    assert report.clusters[0].z > 5


def test_what_is_routed_is_counted_in_windows() -> None:
    router = build()
    assert not router.drift().complete
    x = prompts(499, 4)
    for one in x[:99]:
        router.route(embeddings=one)
    router.route_batch(embeddings=x[99:])
    router.snapshot().route_batch(embeddings=x)  # a snapshot's work is no traffic
    router.predict_loss(embeddings=x)
    router.drift(embeddings=x)
    report = router.drift()
    assert (report.prompts, report.complete) == (499, False)
    router.set_cost("a", 3.0)  # another version, the same traffic
    router.route(embeddings=x[0])
    report = router.drift()
    assert (report.prompts, report.complete, report.alarm) == (500, True, False)
    expected = router.drift(embeddings=np.concatenate([x, x[:1]]))
    assert report.psi == expected.psi
    assert report.distance.mean == pytest.approx(expected.distance.mean)
    assert report.cost > 0


def test_threads_count_every_prompt() -> None:
    router, x = build(window=2**30), prompts(200, 5)

    def work() -> None:
        for one in x:
            router.route(embeddings=one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert router.drift().prompts == 800


def test_costs_are_put_beside_those_of_the_old_mix() -> None:
    router = uf.Router(None, [("nearest", np.eye(2, dtype=np.float32))])
    router.insert(["cheap", "dear"], [1.0, 9.0], [[0.0, 0.5], [0.5, 0.0]])
    x = np.eye(2, dtype=np.float32)[[0] * 90 + [1] * 10]
    router.set_baseline(embeddings=x, window=100)
    router.route_batch(embeddings=x[::-1][:50].repeat(2, axis=0))
    report = router.drift()
    assert report.cost == pytest.approx((80 * 1 + 20 * 9) / 100)
    assert report.cost_in_baseline_mix == pytest.approx(0.9 * 1 + 0.1 * 9, rel=0.05)


def test_the_baseline_is_saved_and_counts_are_not(tmp_path: Path) -> None:
    router, x = build(window=60), prompts(60, 6)
    router.route_batch(embeddings=x)
    router.save(tmp_path / "pool.uniroute")
    again = uf.Router.load(tmp_path / "pool.uniroute")
    assert again.drift().prompts == 0
    assert repr(again.drift(embeddings=x)) == repr(router.drift(embeddings=x))
    again.route_batch(embeddings=x)
    assert again.drift().complete
    again.drop_baseline()
    with pytest.raises(errors.InvalidArgumentError, match="no baseline"):
        again.drift()


def test_routers_that_share_a_baseline_count_apart() -> None:
    one, other, x = build(), build(), prompts(100, 9)
    one.route_batch(embeddings=x)
    other.replace(one)
    assert other.drift().prompts == 0
    other.route_batch(embeddings=x[:30])
    assert (one.drift().prompts, other.drift().prompts) == (100, 30)


def test_prompts_that_cannot_be_embedded_are_told() -> None:
    texts = ["what is 3 + 4", "a poem about rain", "a poem on snow", "what is 9 - 5"] * 30
    router = uf.Router.fit(texts, n_clusters=2)
    router.add_models(["m"], [1.0], texts, np.zeros((120, 1)))
    router.route_batch([*texts[:60], "", " ", None])
    report = router.drift()
    assert (report.prompts, report.unroutable) == (60, 3)
    with pytest.raises(errors.UnroutableError):
        router.route("")
    assert router.drift().unroutable == 4


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda r: r.set_baseline(embeddings=np.zeros((0, DIM), np.float32)), "texts"),
        (lambda r: r.set_baseline(embeddings=prompts(9, 1), window=3), "window"),
        (lambda r: r.set_baseline(), "texts, embeddings"),
        (lambda r: r.drift(embeddings=np.full((3, DIM), np.nan)), "embeddings"),
    ],
)
def test_bad_input_leaves_the_baseline_as_it_was(
    call: Callable[[uf.Router], object], argument: str
) -> None:
    router = build()
    before = repr(router.drift(embeddings=prompts(99, 7)))
    with pytest.raises(errors.InvalidArgumentError, match=f"^{argument}"):
        call(router)
    assert repr(router.drift(embeddings=prompts(99, 7))) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_counts_on_its_own() -> None:
    router, x = build(window=2**30), prompts(100, 8)
    router.route_batch(embeddings=x)
    child = os.fork()
    if child == 0:
        router.route_batch(embeddings=x)
        os._exit(0 if router.drift().prompts == 200 else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert router.drift().prompts == 100


# --- on real prompts ---


@pytest.fixture(scope="module", params=["zeroeval", "mmlu_pro"])
def by_task(
    request: pytest.FixtureRequest, real_data: Callable[[str], Path]
) -> tuple[list[str], np.ndarray]:
    data = datasets.load(real_data(request.param))
    return list(data.texts), np.array(data.tasks)


def test_no_false_alarm_in_100_windows_of_new_prompts(
    by_task: tuple[list[str], np.ndarray],
) -> None:
    texts, _ = by_task
    rng = np.random.default_rng(0)
    order = rng.permutation(len(texts))
    fitted, new = np.split(order, [len(order) // 2])
    router = uf.Router.fit([texts[i] for i in fitted])
    alarms = []
    for _ in range(100):
        report = router.drift([texts[i] for i in rng.choice(new, 500, replace=False)])
        alarms += [repr(report)] * report.alarm
    assert not alarms


def test_a_task_left_out_of_the_fit_is_flagged_within_500_prompts(
    by_task: tuple[list[str], np.ndarray],
) -> None:
    texts, tasks = by_task
    rng = np.random.default_rng(1)
    for task in sorted(set(tasks))[:4]:
        known = rng.permutation(np.flatnonzero(tasks != task))
        router = uf.Router.fit([texts[i] for i in known])
        router.insert(["a"], [1.0], np.zeros((router.n_clusters, 1)))
        stream = rng.permutation(np.flatnonzero(tasks == task))[:500]
        if len(stream) < 500:
            stream = np.concatenate([stream, rng.permutation(known)[: 500 - len(stream)]])
        for i in rng.permutation(stream):
            router.route(texts[i])
        report = router.drift()
        assert report.complete, task
        assert report.alarm, task
