"""Outcomes that arrive later: the same profiles as all at once; kept, forgotten, by threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast.profiles.evidence import observe
from uniroute_fast.profiles.records import Records, Tally

NAMES = ["a", "b", "c", "d"]
COSTS = [1.0, 2.0, 3.0, 4.0]


def prompts() -> list[str]:
    starts = [
        "what is {} plus {}",
        "add {} to {}",
        "which river passes {} and {}",
        "rhyme {} on {}",
    ]
    words = ["seven", "rain", "paris", "twelve", "autumn", "nine", "lisbon", "snow"]
    return [s.format(a, b) for s in starts for a in words for b in words if a != b]


def outcomes(texts: list[str], models: int, seed: int) -> np.ndarray:
    """Losses that depend on the kind of prompt and the LLM, some of them missing."""
    rng = np.random.default_rng(seed)
    kinds = np.array([text.split()[0] for text in texts])
    rates = {kind: rng.random(models) for kind in np.unique(kinds)}
    losses = (rng.random((len(texts), models)) < np.stack([rates[k] for k in kinds])).astype(float)
    losses[rng.random(losses.shape) < 0.1] = np.nan
    return losses


@pytest.fixture(scope="module", params=["means", "bayes"])
def routers(request: pytest.FixtureRequest) -> tuple[uf.Router, list[str], np.ndarray]:
    """Two ways of profiling, and outcomes to profile by."""
    texts = prompts()
    seen = uf.Outcomes(outcomes(texts, 9, 1)) if request.param == "bayes" else None
    return uf.Router.fit(texts, seen=seen), texts, outcomes(texts, 4, 2)


def fresh(router: uf.Router) -> uf.Router:
    """Return the router as it was fitted, without models."""
    other = uf.Router(router.embedder, router.heads())
    learner = router.learner
    other.learner.profiler, other.learner.examples = learner.profiler, learner.examples
    return other


def in_batches(
    router: uf.Router, texts: list[str], losses: np.ndarray, batches: int, **more: object
) -> None:
    """Observe every outcome, in random order."""
    rows, columns = np.nonzero(~np.isnan(losses))
    order = np.random.default_rng(3).permutation(len(rows))
    for part in np.array_split(order, batches):
        router.observe_many(
            [texts[i] for i in rows[part]],
            [NAMES[m] for m in columns[part]],
            losses[rows[part], columns[part]],
            **more,
        )


@pytest.mark.parametrize("batches", [1, 9])
def test_feedback_gives_what_profiling_with_all_outcomes_gives(
    routers: tuple[uf.Router, list[str], np.ndarray], batches: int
) -> None:
    fitted, texts, losses = routers
    at_once, later = fresh(fitted), fresh(fitted)
    at_once.add_models(NAMES, COSTS, texts, losses)
    cut = 40
    later.add_models(NAMES, COSTS, texts[:cut], losses[:cut])
    assert np.abs(later.profiles - at_once.profiles).max() > 0.01
    version = later.version
    in_batches(later, texts[cut:], losses[cut:], batches)
    assert later.version == version + batches
    np.testing.assert_allclose(later.profiles, at_once.profiles, atol=1e-6)
    np.testing.assert_allclose(later.standard_errors(), at_once.standard_errors(), atol=1e-6)


def test_an_outcome_touches_one_model_unless_it_tips_the_choice_for_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from uniroute_fast.profiles.profilers import MeansProfiler

    texts = prompts()
    router = uf.Router.fit(texts)
    losses = outcomes(texts, 4, 2)
    profiled: list[int] = []
    looked_at: list[int] = []
    profile, errors = MeansProfiler.profile, MeansProfiler.errors

    def counting_profile(self, evidence, setting=None):
        profiled.append(evidence.n_models)
        return profile(self, evidence, setting)

    def counting_errors(self, evidence):
        looked_at.append(evidence.n_models)
        return errors(self, evidence)

    monkeypatch.setattr(MeansProfiler, "profile", counting_profile)
    monkeypatch.setattr(MeansProfiler, "errors", counting_errors)
    cut = 120
    router.add_models(NAMES, COSTS, texts[:cut], losses[:cut])
    assert (profiled, looked_at) == ([4], [4])
    router.observe(texts[cut], "b", True)
    assert (profiled[1:], looked_at[1:]) == ([1], [1])
    # What was loaded is looked at once.
    router.save(tmp_path / "pool.uniroute")
    again = uf.Router.load(tmp_path / "pool.uniroute")
    profiled.clear()
    looked_at.clear()
    for text in texts[cut + 1 : cut + 4]:
        again.observe(text, "c", 0.0)
    assert (profiled, looked_at) == ([4, 1, 1], [4, 1, 1])
    # Other outcomes than before choose another strength: all follow.
    before = again.profiles
    strengths = set(again.learner.records._settings.values())
    contrary = (np.arange(len(texts)) % 2).astype(float)
    for _ in range(30):
        again.observe_many(texts, "a", contrary)
    assert set(again.learner.records._settings.values()) != strengths
    assert 4 in profiled[3:]
    assert (again.profiles != before).any(axis=0).all()


def test_weights_count_outcomes_and_one_is_like_many(
    routers: tuple[uf.Router, list[str], np.ndarray],
) -> None:
    fitted, texts, losses = routers
    single, batch, weighted = fresh(fitted), fresh(fitted), fresh(fitted)
    for router in (single, batch, weighted):
        router.add_models(NAMES, COSTS, texts, losses)
    for _ in range(3):
        single.observe(texts[0], "b", 1.0)
    batch.observe_many([texts[0]] * 3, "b", 1.0)
    weighted.observe(texts[0], "b", 1.0, weight=3.0)
    np.testing.assert_allclose(single.profiles, batch.profiles, atol=1e-6)
    np.testing.assert_allclose(single.profiles, weighted.profiles, atol=1e-6)
    # By its embedding it is another prompt to those who know prompts by their text, so only nearly.
    x = fitted.embedder.embed(texts[:1])
    batch.observe(None, "c", 0.0, embeddings=x[0])
    assert (batch.profiles[:, 2] != single.profiles[:, 2]).any()


def test_feedback_raises_what_it_should_and_shrinks_errors(
    routers: tuple[uf.Router, list[str], np.ndarray],
) -> None:
    fitted, texts, losses = routers
    router = fresh(fitted)
    router.add_models(NAMES, COSTS, texts[:30], losses[:30])
    before, errors_before = router.predict_loss(texts[:1])[0], router.standard_errors()
    assert not errors_before.flags.writeable
    router.observe_many(texts[:40] * 3, "c", np.ones(120))
    after, errors_after = router.predict_loss(texts[:1])[0], router.standard_errors()
    assert after[2] > before[2]
    assert errors_after[:, 2].sum() < errors_before[:, 2].sum()
    cluster = router.route(texts[0]).cluster
    router.observe_many([cluster] * 500, "c", np.zeros(500))
    assert router.predict_loss(texts[:1])[0, 2] < after[2]


def test_forgetting_halves_after_a_half_life(
    routers: tuple[uf.Router, list[str], np.ndarray],
) -> None:
    fitted, texts, losses = routers
    router = fresh(fitted)
    router.add_models(NAMES, COSTS, texts, losses)
    before = router.learner.records["a"]
    router.observe_many(texts[:10], "a", np.ones(10), half_life=10.0)
    kept = router.learner.records["a"].count - 0.5 ** (np.arange(10) / 10).sum() - before.count / 2
    weights = (0.5 ** (np.arange(10) / 10)).sum()
    assert router.learner.records["a"].count == pytest.approx(before.count / 2 + weights), kept
    # One at a time is the same as together.
    other = fresh(fitted)
    other.add_models(NAMES, COSTS, texts, losses)
    for text in texts[:10]:
        other.observe(text, "a", 1.0, half_life=10.0)
    np.testing.assert_allclose(router.profiles, other.profiles, atol=1e-6)
    # A changed LLM is followed within a few half-lives.
    router.observe_many(texts, "a", np.zeros(len(texts)), half_life=20.0)
    assert router.predict_loss(texts)[:, 0].mean() < 0.1


def test_records_are_saved_and_may_be_left_out(
    routers: tuple[uf.Router, list[str], np.ndarray], tmp_path: Path
) -> None:
    fitted, texts, losses = routers
    router = fresh(fitted)
    router.add_models(NAMES, COSTS, texts[:60], losses[:60])
    in_batches(router, texts[60:90], losses[60:90], 3)
    router.insert(["ready"], [9.0], np.full((router.n_clusters, 1), 0.3))
    router.remove_model("b")
    router.save(tmp_path / "full")
    router.save(tmp_path / "slim", records=False)
    full, slim = (uf.Router.load(tmp_path / name) for name in ("full", "slim"))
    np.testing.assert_array_equal(full.standard_errors(), router.standard_errors())
    assert np.isnan(full.standard_errors()[:, -1]).all()
    for one in (router, full):
        one.observe_many(texts[:50], "c", np.ones(50))
    np.testing.assert_array_equal(full.profiles, router.profiles)
    assert np.isnan(slim.standard_errors()).all()
    assert slim.route(texts[0]).model in router.models
    with pytest.raises(errors.InvalidArgumentError, match="nothing is recorded of the outcomes"):
        slim.observe(texts[0], "c", 1.0)
    assert slim.version == uf.Router.load(tmp_path / "slim").version
    # What is saved again is the same file.
    uf.Router.load(tmp_path / "slim").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "slim").read_bytes()


def test_records_follow_the_pool(routers: tuple[uf.Router, list[str], np.ndarray]) -> None:
    fitted, texts, losses = routers
    router = fresh(fitted)
    router.add_models(NAMES, COSTS, texts, losses)
    router.remove_model("a")
    router.insert(["a"], [1.0], np.full((router.n_clusters, 1), 0.3))
    router.set_profile("b", np.full(router.n_clusters, 0.3))
    for name in ("a", "b"):
        with pytest.raises(errors.InvalidArgumentError, match="nothing is recorded"):
            router.observe(texts[0], name, 1.0)
    other = fresh(fitted)
    other.replace(router)
    before = other.profiles
    router.observe(texts[0], "c", 1.0)
    np.testing.assert_array_equal(other.profiles, before)
    other.observe(texts[0], "c", 1.0)
    np.testing.assert_array_equal(other.profiles, router.profiles)


def test_bad_feedback_is_refused_and_changes_nothing(
    routers: tuple[uf.Router, list[str], np.ndarray],
) -> None:
    fitted, texts, losses = routers
    router = fresh(fitted)
    router.add_models(NAMES, COSTS, texts, losses)
    version, two = router.version, texts[:2]
    for match, call in {
        "models: no model named": lambda: router.observe_many(two, "zz", 1.0),
        "^model: no model named": lambda: router.observe(two[0], "zz", 1.0),
        r'^model: no model named "a\\nb" in': lambda: router.observe(two[0], "a\nb", 1.0),
        "^prompt: 9999": lambda: router.observe(9999, "a", 1.0),
        "^prompt: -1": lambda: router.observe(-1, "a", 1.0),
        "^prompt: a bool": lambda: router.observe(True, "a", 1.0),
        "^prompt: a timedelta64": lambda: router.observe(np.timedelta64(1, "s"), "a", 1.0),
        "^loss: a timedelta64": lambda: router.observe(two[0], "a", np.timedelta64(1, "s")),
        "^prompt: a bytes": lambda: router.observe(b"two", "a", 1.0),
        "^prompt, embeddings": lambda: router.observe(None, "a", 1.0),
        r"embeddings: shape \(2, 3\)": lambda: router.observe(
            None, "a", 1.0, embeddings=np.ones((2, 3))
        ),
        "losses: 1.5 in row 1": lambda: router.observe_many(two, "a", [0.0, 1.5]),
        "losses: nan": lambda: router.observe_many(two, "a", [np.nan, 0.0]),
        "losses: shape": lambda: router.observe_many(two, "a", [0.0, 1.0, 1.0]),
        "losses: dtype": lambda: router.observe_many(two, "a", ["x", "y"]),
        "weights: 0": lambda: router.observe_many(two, "a", 1.0, [0.0, 1.0]),
        "weights: 1e.308 in row 1; expected numbers above 0, 1e.09": lambda: router.observe_many(
            two, "a", 1.0, [1.0, 1e308]
        ),
        "models: 1 names": lambda: router.observe_many(two, ["a"], 1.0),
        "models: a int": lambda: router.observe_many(two, ["a", 3], 1.0),
        "half_life": lambda: router.observe_many(two, "a", 1.0, half_life=0),
        "prompts: a single str": lambda: router.observe_many("two", "a", 1.0),
        "prompts, embeddings": lambda: router.observe_many(None, "a", 1.0),
        "prompts: 9999": lambda: router.observe_many([9999], "a", 1.0),
        "cannot be embedded": lambda: router.observe("", "a", 1.0),
    }.items():
        with pytest.raises(errors.UniRouteError, match=match):
            call()
    assert not router.observe_many(["", " "], "a", 1.0).any()
    assert router.observe_many([], "a", []).shape == (0,)
    assert router.version == version
    used = router.observe_many(["", texts[0]], ["a", "b"], [1.0, 0.0])
    assert used.tolist() == [False, True]
    plain = uf.Router(None, [("nearest", np.eye(2, dtype=np.float32))])
    plain.insert(["a"], [1.0], np.zeros((2, 1)))
    with pytest.raises(errors.InvalidArgumentError, match="without fitting"):
        plain.observe(0, "a", 1.0)


def test_threads_lose_no_outcome_while_others_route(
    routers: tuple[uf.Router, list[str], np.ndarray],
) -> None:
    fitted, texts, losses = routers
    at_once, shared = fresh(fitted), fresh(fitted)
    at_once.add_models(NAMES, COSTS, texts, losses)
    cut = 100
    shared.add_models(NAMES, COSTS, texts[:cut], losses[:cut])
    done, versions = threading.Event(), []

    def route() -> None:
        while not done.is_set():
            versions.append(shared.route(texts[0]).version)

    def feed(rows: np.ndarray) -> None:
        for i in rows:
            run = np.flatnonzero(~np.isnan(losses[i]))
            shared.observe_many([texts[i]] * len(run), [NAMES[m] for m in run], losses[i, run])

    reader = threading.Thread(target=route)
    writers = [
        threading.Thread(target=feed, args=(rows,))
        for rows in np.array_split(np.arange(cut, len(texts)), 3)
    ]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert versions == sorted(versions)
    np.testing.assert_allclose(shared.profiles, at_once.profiles, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_may_give_feedback(
    routers: tuple[uf.Router, list[str], np.ndarray],
) -> None:
    fitted, texts, losses = routers
    router = fresh(fitted)
    router.add_models(NAMES, COSTS, texts, losses)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with router.learner.lock:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        router.observe(texts[0], "a", 1.0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    release.set()
    holder.join()


def test_a_tally_keeps_rows_only_until_a_matrix_is_smaller() -> None:
    rng = np.random.default_rng(0)
    phi = rng.random((60, 12)).astype(np.float32)
    losses = rng.random((60, 3))
    all_at_once = observe(phi, losses)
    tallies = dict(zip("xyz", Tally.each(observe(phi[:30], losses[:30]), 0), strict=True))
    shared = tallies["x"].gram
    assert all(t.gram is shared for t in tallies.values())
    most = 0
    for i in range(30, 60):
        new = observe(phi[i : i + 1], losses[i : i + 1, :1], gram=False)
        tallies["x"] = tallies["x"].plus(new, phi[i : i + 1], np.ones(1))
        most = max(most, len(tallies["x"].rows))
    assert most == 6
    found = Records(tallies).evidence(["y", "x"])
    assert len(found.gram) == 2
    np.testing.assert_allclose(found.gram[found.pattern[1]], all_at_once.gram[0])
    np.testing.assert_allclose(found.loss[:, 1], all_at_once.loss[:, 0])
    np.testing.assert_allclose(found.total_square[1], all_at_once.total_square[0])


def test_damaged_records_are_refused() -> None:
    evidence = observe(np.eye(4, dtype=np.float32), np.eye(4)[:, :2])
    x, y = Tally.each(evidence, 0)
    row = np.ones((1, 4), np.float32)
    later = observe(row, np.ones((1, 1)), gram=False)
    records = Records({"x": x, "y": y.plus(later, row, np.ones(1))})
    arrays = records.to_arrays(["x", "y"])
    assert "x" in Records.from_arrays(arrays, ["x", "y"])
    for name in arrays:
        with pytest.raises(errors.ArtifactError, match="records"):
            Records.from_arrays({k: v for k, v in arrays.items() if k != name}, ["x", "y"])
        with pytest.raises(errors.ArtifactError, match="records"):
            Records.from_arrays(arrays | {name: arrays[name][:-1]}, ["x", "y"])
    for broken in ({"model": np.array([0, -1])}, {"pattern": np.array([0, 7])}):
        with pytest.raises(errors.ArtifactError, match="index outside"):
            Records.from_arrays(arrays | broken, ["x", "y"])
    with pytest.raises(errors.ArtifactError, match="records"):
        Records.from_arrays(arrays, ["x"])
