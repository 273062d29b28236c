"""Suggested probes: against the variance computed anew, and against probes drawn at random."""

import numpy as np
import pytest

import uniroute_fast as uf
from made_up import fit_profiler
from uniroute_fast.errors import InvalidArgumentError, UnknownModelError
from uniroute_fast.profiles.bayes import COMMON_LEVEL
from uniroute_fast.profiles.probes import choose_probes
from uniroute_fast.profiles.profilers import BayesProfiler


def outcomes(n=400, n_models=30, seed=0):
    """Prompts in 5 groups, two of which behave alike, and LLMs run on them."""
    rng = np.random.default_rng(seed)
    group = rng.integers(5, size=n)
    x = (np.eye(6)[group] + 0.1 * rng.normal(size=(n, 6))).astype(np.float32)
    rates = rng.uniform(0.1, 0.9, size=(5, n_models))
    rates[1] = rates[0]
    return x, (rng.random((n, n_models)) < rates[group]).astype(float), group


def variance_after(profiler: BayesProfiler, features, rows):
    """Mean variance of a standardised predicted loss after probes on those rows, from scratch."""
    found, start = [], 0
    factors = np.arange(profiler.map.n_clusters, features.shape[1])
    for size, prior in zip(profiler.map.sizes, profiler.priors, strict=True):
        k = prior.n_clusters
        x = features[:, np.concatenate([start + np.arange(k), factors])].astype(float)
        covariance = profiler.spread * prior.covariance
        covariance[:k, :k] += COMMON_LEVEL
        posterior = np.linalg.inv(np.linalg.inv(covariance) + x[rows].T @ x[rows] / prior.noise)
        clusters = x[:, :k]
        found.append(np.einsum("nk,kl,nl->n", clusters, posterior[:k, :k], clusters).mean())
        start += size
    return np.mean(found)


@pytest.fixture(scope="module")
def fitted():
    x, losses, group = outcomes()
    keys = np.arange(len(x), dtype=np.uint64)
    profiler = fit_profiler(x, losses, keys=keys)
    return profiler, profiler.features(profiler.map.phi(x), keys), group


def test_each_probe_is_the_best_next_one_and_its_error_is_that_from_scratch(fitted):
    profiler, features, _ = fitted
    rows, errors = choose_probes(profiler, features, 4)
    largest = np.abs(features[:, profiler.map.n_clusters :]).max(axis=1)
    ordinary = largest <= np.quantile(largest, 0.8)
    assert ordinary.mean() < 0.85
    for step in range(4):
        before = list(rows[:step])
        trials = [
            variance_after(profiler, features, [*before, j])
            if ordinary[j] and j not in before
            else np.inf
            for j in range(len(features))
        ]
        assert trials[rows[step]] == pytest.approx(min(trials), rel=1e-9)
        expected = 0.5 * profiler.inflation * np.sqrt(trials[rows[step]])
        assert errors[step + 1] == pytest.approx(expected, rel=1e-6)
    assert (np.diff(errors) < 0).all()


def test_extreme_prompts_are_asked_only_if_there_are_no_others(fitted):
    profiler, features, _ = fitted
    rows, _ = choose_probes(profiler, features, len(features))
    assert sorted(rows) == list(range(len(features)))


def test_probes_are_distinct_and_beat_chance(fitted):
    profiler, features, group = fitted
    rows, _ = choose_probes(profiler, features, 25)
    assert len(set(rows.tolist())) == 25
    assert set(group[rows]) == set(range(5))
    rng = np.random.default_rng(1)
    chance = [
        variance_after(profiler, features, rng.permutation(len(features))[:25]) for _ in range(20)
    ]
    assert variance_after(profiler, features, rows) < min(chance)


def test_what_is_known_is_not_asked_again(fitted):
    profiler, features, group = fitted
    first = np.flatnonzero(group == 2)[:60]
    known = profiler.observe(
        features[first, : profiler.map.n_clusters], np.zeros((60, 1)), keys=first.astype(np.uint64)
    )
    anew, _ = choose_probes(profiler, features, 8)
    after, errors = choose_probes(profiler, features, 8, known)
    assert (group[anew] == 2).any()
    assert not (group[after] == 2).any()
    assert errors[0] < choose_probes(profiler, features, 1)[1][0]


def test_without_seen_llms_probes_spread_over_clusters():
    x, _, group = outcomes()
    profiler = fit_profiler(x, n_clusters=5)
    rows, errors = choose_probes(profiler, profiler.map.phi(x), 5)
    assert sorted(group[rows]) == [0, 1, 2, 3, 4]
    assert (np.diff(errors) < 0).all()


def test_router_names_texts():
    texts = [f"{a} {b}" for a in ("add", "river", "rhyme") for b in ["one", "two", "three", "four"]]
    texts += ["", *texts]
    router = uf.Router.fit(texts, n_clusters=3)
    probes = router.suggest_probes(5)
    assert probes.texts == [texts[i] for i in probes.indices]
    assert "" not in probes.texts
    other = router.suggest_probes(3, ["river two", "add five", "rhyme one", "rhyme two"])
    assert len(other.indices) == 3
    back = router.suggest_probes(2, embeddings=router.embedder.embed(texts[:4]))
    assert back.texts is None
    router.add_model("m", cost=1.0, texts=texts, losses=np.zeros(len(texts)))
    again = router.suggest_probes(
        3, (t for t in ["river two", "add five", "rhyme one", "rhyme two"])
    )
    assert again.texts == other.texts
    known = router.suggest_probes(2, model="m")
    assert known.standard_error[0] < probes.standard_error[0]


def test_bad_requests_for_probes_are_named(tmp_path):
    texts = ["add one", "river two", "rhyme three", ""]
    router = uf.Router.fit(texts, n_clusters=2)
    for n in (0, 4):
        with pytest.raises(InvalidArgumentError, match=f"n: {n}; expected 1 to 3"):
            router.suggest_probes(n)
    with pytest.raises(InvalidArgumentError, match="exactly one"):
        router.suggest_probes(1, texts, embeddings=np.ones((1, 3)))
    with pytest.raises(InvalidArgumentError, match="texts: none can be embedded"):
        router.suggest_probes(1, ["", " "])
    with pytest.raises(UnknownModelError, match='model: no model named "x"'):
        router.suggest_probes(1, model="x")
    router.insert(["x"], [1.0], np.zeros((2, 1)))
    with pytest.raises(InvalidArgumentError, match="nothing is recorded of the outcomes of 'x'"):
        router.suggest_probes(1, model="x")
    router.save(tmp_path / "r.uniroute")
    loaded = uf.Router.load(tmp_path / "r.uniroute")
    with pytest.raises(InvalidArgumentError, match="does not hold the prompts it was fitted on"):
        loaded.suggest_probes(1)
    assert len(loaded.suggest_probes(1, texts).indices) == 1
