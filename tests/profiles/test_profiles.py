"""Evidence, priors and profiles against formulas written out here."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_up import fit_profiler
from uniroute_fast.clusters.cluster_map import (
    FLOOR,
    ClusterMap,
    SoftmaxHead,
    hard_map,
    shares_out_of_distribution,
)
from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.clusters.nearest import nearest_centroid
from uniroute_fast.errors import ArtifactError, InvalidArgumentError
from uniroute_fast.evaluate.deferral import area_of
from uniroute_fast.profiles.bayes import COMMON_LEVEL, Prior, fit_prior, fit_priors, posterior
from uniroute_fast.profiles.evidence import Evidence, observe
from uniroute_fast.profiles.heads import head_posteriors, overall_mean
from uniroute_fast.profiles.intervals import cluster_errors, coverage, inflation
from uniroute_fast.profiles.known_prompts import prompt_keys
from uniroute_fast.profiles.profilers import BayesProfiler, MeansProfiler
from uniroute_fast.profiles.profilers_in_files import profiler_from_parts
from uniroute_fast.profiles.rehearsal import choose
from uniroute_fast.profiles.shrinkage import hierarchical, left_out_error, shrunk_means


def clustered(n=300, k=6, d=8, n_models=12, seed=0, missing=0.0):
    """Embeddings in k groups, and LLMs each with its own error rate in each group."""
    rng = np.random.default_rng(seed)
    group = rng.integers(k, size=n)
    x = (rng.normal(size=(k, d))[group] + 0.2 * rng.normal(size=(n, d))).astype(np.float32)
    rates = np.clip(rng.beta(2, 3, size=(k, 1)) + 0.15 * rng.normal(size=(k, n_models)), 0.05, 0.95)
    losses = (rng.random((n, n_models)) < rates[group]).astype(float)
    losses[rng.random(losses.shape) < missing] = np.nan
    return x, losses, group, rates


def one_hot(labels, k):
    return np.eye(k, dtype=np.float32)[labels]


# --- evidence ---


def test_evidence_is_sums_over_the_prompts_that_were_run():
    rng = np.random.default_rng(1)
    phi = rng.dirichlet(np.ones(3), size=20).astype(np.float32)
    losses, weights = rng.random((20, 4)), rng.random(20)
    losses[rng.random(losses.shape) < 0.3] = np.nan
    evidence = observe(phi, losses, weights)
    for m in range(4):
        run = ~np.isnan(losses[:, m])
        p, w, y = phi[run].astype(float), weights[run], losses[run, m]
        np.testing.assert_allclose(evidence.gram[evidence.pattern[m]], (p.T * w) @ p, rtol=1e-6)
        np.testing.assert_allclose(evidence.phi[:, m], w @ p)
        np.testing.assert_allclose(evidence.loss[:, m], (w * y) @ p)
        np.testing.assert_allclose(evidence.square[:, m], (w * y**2) @ p)
        np.testing.assert_allclose(evidence.count[m], w.sum(), rtol=1e-6)


def test_llms_with_the_same_missing_outcomes_share_a_pattern():
    losses = np.zeros((5, 4))
    losses[2, [1, 3]] = np.nan
    evidence = observe(np.ones((5, 1), np.float32), losses)
    assert evidence.pattern.tolist() == [0, 1, 0, 1]
    assert len(evidence.gram) == 2


def test_evidence_adds_up():
    _, losses, group, _ = clustered(missing=0.2)
    phi = one_hot(group, 6)
    parts = observe(phi[:100], losses[:100]).plus(observe(phi[100:], losses[100:]))
    whole = observe(phi, losses)
    np.testing.assert_allclose(parts.gram[parts.pattern], whole.gram[whole.pattern])
    np.testing.assert_allclose(parts.loss, whole.loss)
    np.testing.assert_allclose(parts.square, whole.square)


def test_evidence_joins_selects_and_restores():
    _, losses, group, _ = clustered(missing=0.2)
    phi = one_hot(group, 6)
    whole = observe(phi, losses)
    joined = observe(phi, losses[:, :5]).joined(observe(phi, losses[:, 5:]))
    picked = whole.select(np.array([7, 2]))
    restored = Evidence.from_arrays(whole.to_arrays())
    for a, b in ((joined, whole), (restored, whole), (picked, observe(phi, losses[:, [7, 2]]))):
        np.testing.assert_allclose(a.gram[a.pattern], b.gram[b.pattern])
        np.testing.assert_array_equal(a.phi, b.phi)
        np.testing.assert_array_equal(a.loss, b.loss)


@pytest.mark.parametrize(
    ("losses", "weights", "message"),
    [
        (np.full((4, 1), 1.5), None, "losses: 1.5 in row 0, column 0"),
        (np.array([[0], [-0.1], [0], [0]]), None, "losses: -0.1 in row 1, column 0"),
        (np.array([[0, np.nan]] * 4), None, "losses: column 1 has no outcome"),
        (np.zeros((3, 1)), None, "losses: 3 rows"),
        (np.zeros((4, 0)), None, r"losses: shape \(4, 0\)"),
        (np.zeros((4, 1)), np.ones(3), r"weights: shape \(3,\); expected \(4,\)"),
        (np.zeros((4, 1)), [1, -1, 1, 1], "weights: -1 in row 1"),
        (np.zeros((4, 1)), [1, 1, np.inf, 1], "weights: inf in row 2"),
        (np.zeros((4, 1)), [1, 1, 1, 1e300], "weights: 1e\\+300 in row 3; .* 1e\\+09 at most"),
        (np.zeros((4, 1)), np.zeros(4), "losses: column 0 has no outcome"),
    ],
)
def test_bad_outcomes_are_named(losses, weights, message):
    with pytest.raises(InvalidArgumentError, match=message):
        observe(np.ones((4, 1), np.float32), losses, weights)


# --- means ---


def test_shrunk_means_by_hand():
    losses = np.array([[0.0], [1.0], [1.0], [np.nan]])
    evidence = observe(one_hot(np.array([0, 0, 1, 2]), 4), losses, gram=False)
    plain = shrunk_means(evidence)[:, 0]
    overall = 2 / 3
    np.testing.assert_allclose(plain, [0.5, 1.0, overall, overall])  # Empty: the overall mean.
    pulled = shrunk_means(evidence, strength=2.0)[:, 0]
    np.testing.assert_allclose(
        pulled, [(1 + 2 * overall) / 4, (1 + 2 * overall) / 3] + [overall] * 2
    )


def test_hierarchical_means_by_hand():
    losses = np.array([[0.0], [1.0], [1.0]])
    evidence = observe(one_hot(np.array([0, 0, 1]), 3), losses, gram=False)
    parents, strength = np.array([0, 0, 1]), 2.0
    overall = 2 / 3
    coarse = [(2 + strength * overall) / (3 + strength), overall]
    expected = [(1 + 2 * coarse[0]) / 4, (1 + 2 * coarse[0]) / 3, coarse[1]]
    found = hierarchical(evidence.loss, evidence.phi, parents, strength)[:, 0]
    np.testing.assert_allclose(found, expected)


@given(st.integers(0, 10_000), st.floats(0.5, 200.0))
@settings(max_examples=40, deadline=None)
def test_left_out_error_equals_leaving_each_outcome_out(seed, strength):
    rng = np.random.default_rng(seed)
    n, k = 14, 5
    labels, parents = rng.integers(k, size=n), rng.integers(2, size=k)
    parents[0] = 1
    losses = rng.random((n, 2))
    losses[rng.random(losses.shape) < 0.2] = np.nan
    losses[:2] = rng.random((2, 2))
    evidence = observe(one_hot(labels, k), losses, gram=False)
    expected = np.zeros(2)
    for i, m in np.argwhere(~np.isnan(losses)):
        without = losses.copy()
        without[i, m] = np.nan
        rest = observe(one_hot(labels, k), without, gram=False)
        found = hierarchical(rest.loss, rest.phi, parents, strength)
        expected[m] += (losses[i, m] - found[labels[i], m]) ** 2
    assert left_out_error(evidence, parents, strength) == pytest.approx(expected)


# --- Bayes ---


def test_posterior_under_a_hard_map_is_the_textbook_formula():
    """mu + S (S + R)^-1 (y - mu), R = diag(v / n_k), in standardised units."""
    _, losses, group, _ = clustered(n=200)
    phi = one_hot(group, 6)
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6)) / 3
    prior = Prior(rng.normal(size=6) / 4, root @ root.T + 0.05 * np.eye(6), 0.8, 6)
    found = posterior(observe(phi, losses), prior)
    s = prior.covariance + COMMON_LEVEL
    count = np.bincount(group, minlength=6)
    for m in range(losses.shape[1]):
        n, y = len(losses), losses[:, m]
        level = (y.sum() + 1) / (n + 2)
        scale = np.sqrt((((y - level) ** 2).sum() + 0.5) / (n + 2))
        z = np.bincount(group, (y - level) / scale, minlength=6) / count
        gain = s @ np.linalg.inv(s + np.diag(prior.noise / count))
        mean = prior.mean + gain @ (z - prior.mean)
        np.testing.assert_allclose(found.mean[:, m], level + scale * mean)
        error = scale * np.sqrt(np.diag(s - gain @ s))
        np.testing.assert_allclose(found.standard_error[:, m], error)


def test_posterior_of_missing_outcomes_is_that_of_the_rows_that_were_run():
    x, losses, _, _ = clustered(missing=0.3)
    phi = SoftmaxHead.around(kmeans(x, 5), 8.0).phi(x)
    prior = fit_prior(observe(phi, losses))
    together = posterior(observe(phi, losses), prior)
    for m in range(losses.shape[1]):
        run = ~np.isnan(losses[:, m])
        alone = posterior(observe(phi[run], losses[run, m : m + 1]), prior)
        np.testing.assert_allclose(together.mean[:, m], alone.mean[:, 0], rtol=1e-9)
        np.testing.assert_allclose(
            together.standard_error[:, m], alone.standard_error[:, 0], rtol=1e-9
        )


def test_weight_two_counts_as_the_prompt_twice():
    _, losses, group, _ = clustered(n=60)
    phi, weights = one_hot(group, 6), np.ones(60)
    weights[:10] = 2
    prior = Prior(np.zeros(6), 0.2 * np.eye(6), 0.9, 6)
    weighted = posterior(observe(phi, losses, weights), prior)
    repeated = posterior(
        observe(np.vstack([phi, phi[:10]]), np.vstack([losses, losses[:10]])), prior
    )
    np.testing.assert_allclose(weighted.mean, repeated.mean)


def test_prior_recovers_the_law_that_llms_were_drawn_from():
    rng = np.random.default_rng(3)
    k, n_models, n = 4, 400, 800
    root = np.array([[0.4, 0, 0, 0], [0.2, 0.3, 0, 0], [0, 0.1, 0.2, 0], [-0.2, 0, 0, 0.1]])
    group = rng.integers(k, size=n)
    psi = root @ rng.normal(size=(k, n_models))
    # Graded losses about a half, small enough that none leaves [0, 1].
    losses = np.clip(0.5 + 0.08 * (psi[group] + rng.normal(size=(n, n_models))), 0, 1)
    prior = fit_prior(observe(one_hot(group, k), losses), iterations=40)
    # Levels are taken out and scales divided out LLM by LLM: compare what is left, a shape.
    share = np.bincount(group, minlength=k) / n
    centre = np.eye(k) - share
    expected = centre @ root @ root.T @ centre.T
    found = centre @ prior.covariance @ centre.T
    np.testing.assert_allclose(
        found / np.trace(found), expected / np.trace(expected), rtol=0, atol=0.02
    )


def test_few_labels_with_a_prior_beat_as_many_without():
    """The point of the prior: a new LLM of the same law, profiled from few prompts."""
    _, losses, group, rates = clustered(n=2000, n_models=60, seed=5)
    phi = one_hot(group, 6)
    prior = fit_prior(observe(phi, losses[:, :40]))
    few = observe(phi[:40], losses[:40, 40:])
    with_prior = np.abs(posterior(few, prior).mean - rates[:, 40:]).mean()
    without = np.abs(shrunk_means(few) - rates[:, 40:]).mean()
    assert with_prior < 0.8 * without


# --- fitting ---


@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_fit_with_seen_llms(missing):
    x, losses, group, rates = clustered(n=600, n_models=24, missing=missing)
    profiler = fit_profiler(x, losses[:, :16], np.arange(1.0, 17.0))
    assert isinstance(profiler, BayesProfiler)
    phi = profiler.map.phi(x)
    profiles = profiler.profile(profiler.observe(phi[:200], losses[:200, 16:]))
    assert profiles.psi.shape == (profiler.map.n_clusters, 8)
    predicted = phi[200:] @ profiles.psi
    blind = np.abs(profiles.mean - rates[group[200:], 16:]).mean()
    assert np.abs(predicted - rates[group[200:], 16:]).mean() < 0.7 * blind


def test_fit_without_seen_llms():
    x, losses, group, rates = clustered(n=600)
    profiler = fit_profiler(x, n_clusters=6)
    assert isinstance(profiler, MeansProfiler)
    phi = profiler.map.phi(x)
    assert ((phi == 0) | (phi == 1)).all()
    profiles = profiler.profile(profiler.observe(phi[:300], losses[:300]))
    blind = np.abs(profiles.mean - rates[group[300:]]).mean()
    assert np.abs(phi[300:] @ profiles.psi - rates[group[300:]]).mean() < 0.7 * blind


def test_fit_is_repeatable():
    x, losses, _, _ = clustered(n=400)
    one, two = (fit_profiler(x, losses, seed=3) for _ in range(2))
    for a, b in zip(one.to_parts()[0].values(), two.to_parts()[0].values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.to_parts()[1] == two.to_parts()[1]


@pytest.mark.parametrize("n_seen", [0, 1, 2, 3, 7])
def test_any_number_of_seen_llms_will_do(n_seen):
    x, losses, _, _ = clustered(n=120)
    profiler = fit_profiler(x, losses[:, :n_seen] if n_seen else None)
    profiles = profiler.profile(profiler.observe(profiler.map.phi(x), losses))
    assert np.isfinite(profiles.psi).all()
    assert (profiles.standard_error > 0).all()


def test_labels_that_weigh_next_to_nothing_leave_standard_errors_those_of_the_prior():
    x, losses, _, _ = clustered(n=200)
    profiler = fit_profiler(x, losses[:, :8])
    phi = profiler.map.phi(x)
    light = profiler.observe(phi, losses[:, 8:], np.full(len(x), 1e-12))
    errors = profiler.profile(light).standard_error
    assert np.isfinite(errors).all()
    # Losses lie in [0, 1]: of what is not known at all, half of that; inflated by rehearsals.
    assert errors.max() < profiler.inflation
    assert errors.min() > 0.1


def test_one_outcome_leaves_an_llm_uncertain_where_none_was_seen():
    x, losses, _, _ = clustered(n=200)
    profiler = fit_profiler(x)
    phi = profiler.map.phi(x)
    for weight in (1e-12, 1.0):
        evidence = profiler.observe(phi[:1], np.zeros((1, 1)), np.array([weight]))
        assert profiler.profile(evidence).standard_error.min() > 0.3
    many = profiler.profile(profiler.observe(phi, losses))
    assert many.standard_error.max() < 0.3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_prompts_will_do(n):
    x, losses, _, _ = clustered(n=max(n, 2))
    profiler = fit_profiler(x[:n], losses[:n])
    profiles = profiler.profile(profiler.observe(profiler.map.phi(x[:n]), losses[:n]))
    assert np.isfinite(profiles.psi).all()


@pytest.mark.parametrize("seen", [True, False])
def test_a_profiler_comes_back_from_its_parts(seen):
    x, losses, _, _ = clustered(n=200)
    profiler = fit_profiler(x, losses[:, :8] if seen else None)
    back = profiler_from_parts(profiler.map, *profiler.to_parts())
    far = 1.5 * x[:20]
    np.testing.assert_array_equal(profiler.map.phi(far), back.map.phi(far))
    evidence = profiler.observe(profiler.map.phi(x), losses)
    np.testing.assert_array_equal(profiler.profile(evidence).psi, back.profile(evidence).psi)


def test_parts_that_are_missing_or_unknown_are_named():
    x, losses, _, _ = clustered(n=100)
    profiler = fit_profiler(x, losses)
    arrays, meta = profiler.to_parts()
    for name in arrays:
        without = {key: value for key, value in arrays.items() if key != name}
        with pytest.raises(ArtifactError, match=re.escape(name)):
            profiler_from_parts(profiler.map, without, meta)
    with pytest.raises(ArtifactError, match="unknown kind 'magic'"):
        profiler_from_parts(profiler.map, arrays, meta | {"profiler": "magic"})


@pytest.mark.parametrize("seen", [True, False])
def test_parts_that_do_not_fit_the_others_are_named(seen):
    x, losses, _, _ = clustered(n=200)
    keys = np.arange(200, dtype=np.uint64)
    profiler = fit_profiler(x, losses[:, :8] if seen else None, keys=keys if seen else None)
    arrays, meta = profiler.to_parts()
    for name in arrays:
        for change in (lambda a: a[:-1], lambda a: a[None], lambda a: a.astype(np.float16)):
            with pytest.raises(ArtifactError, match=r"part '.*' is .*; expected finite"):
                profiler_from_parts(profiler.map, arrays | {name: change(arrays[name])}, meta)
    softmax = ("softmax", np.zeros((3, x.shape[1])), np.zeros(3), FLOOR)
    others = ([softmax], [*profiler.map.heads()[: len(profiler.map.sizes)], softmax])
    for heads in others:
        with pytest.raises(ArtifactError, match=r"background|'parents'|over 2 heads"):
            profiler_from_parts(ClusterMap(heads), arrays, meta)


def test_values_that_no_fit_gives_are_named():
    x, losses, _, _ = clustered(n=500)
    keys = np.arange(500, dtype=np.uint64)
    profiler = fit_profiler(x, losses[:, :8], keys=keys)
    arrays, meta = profiler.to_parts()
    for key in ("spread", "trust", "inflation"):
        for value in (0, -1.0, float("nan"), float("inf"), "0.5", None, [1.0]):
            with pytest.raises(ArtifactError, match=f"profiler: {key} is"):
                profiler_from_parts(profiler.map, arrays, meta | {key: value})
    with pytest.raises(ArtifactError, match="trust is 1e\\+300"):
        profiler_from_parts(profiler.map, arrays, meta | {"trust": 1e300})
    for noise in (1.0, [0.5], [0.0] * 3, [-1.0] * 3, ["1"] * 3, None):
        with pytest.raises(ArtifactError, match="noise is"):
            profiler_from_parts(profiler.map, arrays, meta | {"noise": noise})
    covariance = arrays["prior1.covariance"]
    for changed in (0 * covariance, -covariance):
        with pytest.raises(ArtifactError, match=r"prior1\.covariance' is not positive"):
            profiler_from_parts(profiler.map, arrays | {"prior1.covariance": changed}, meta)
    for name in ("known.keys", "mix"):
        with pytest.raises(ArtifactError, match=name):
            profiler_from_parts(profiler.map, arrays | {name: -1 - arrays[name]}, meta)
    for name in ("known.keys", "known.factors"):
        for changed in (arrays[name].reshape(-1)[0], arrays[name].reshape(-1)[:500]):
            if changed.shape != arrays[name].shape:
                with pytest.raises(ArtifactError, match=name):
                    profiler_from_parts(profiler.map, arrays | {name: changed}, meta)
    profiler = fit_profiler(x)
    arrays, meta = profiler.to_parts()
    for cluster in (-1, len(arrays["parents"]), 2**62):
        with pytest.raises(ArtifactError, match="parents"):
            profiler_from_parts(
                profiler.map, arrays | {"parents": 0 * arrays["parents"] + cluster}, meta
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 0}, "n_clusters: 0; expected 1 to 50"),
        ({"n_clusters": 51}, "n_clusters: 51"),
        ({"seen_losses": np.full((50, 3), 2.0)}, "losses: 2 in row 0, column 0"),
        ({"seen_losses": np.full((50, 3), np.nan)}, r"seen_losses: column 0 has no outcome"),
        ({"seen_losses": np.zeros((50, 3)), "seen_costs": [1, 2]}, r"costs: shape \(2,\)"),
    ],
)
def test_bad_fits_are_named(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        fit_profiler(np.ones((50, 4), np.float32), **arguments)


# --- cluster maps ---


def test_soft_map_approaches_the_hard_map_as_it_sharpens():
    x, *_ = clustered(n=100)
    centroids = kmeans(x, 6)
    sharp = SoftmaxHead.around(centroids, 1e4).phi(x)
    np.testing.assert_array_equal(sharp.argmax(axis=1), nearest_centroid(x, centroids)[0])
    assert sharp.max(axis=1).min() > 0.999


def test_heads_stand_side_by_side():
    x, *_ = clustered(n=40)
    hard, soft = hard_map(kmeans(x, 4)), SoftmaxHead.around(kmeans(x, 3), 2.0)
    both = ClusterMap([*hard.heads(), soft.part()])
    np.testing.assert_array_equal(both.phi(x), np.hstack([hard.phi(x), soft.phi(x)]))
    assert both.sizes == [4, 3]


def test_map_refuses_embeddings_it_cannot_use():
    head = hard_map(np.eye(3, dtype=np.float32))
    with pytest.raises(InvalidArgumentError, match=r"shape \(2, 4\); expected \(N, 3\)"):
        head.phi(np.zeros((2, 4), np.float32))
    with pytest.raises(InvalidArgumentError, match="embeddings: NaN in row 1, column 1"):
        head.phi(np.array([[0, 0, 0], [0, np.nan, 0]], np.float32))


# --- prompts that seen LLMs were run on ---


def test_outcomes_on_known_prompts_tell_more():
    """LLMs of the same clusters differ in level only; prompts differ in difficulty."""
    rng = np.random.default_rng(8)
    n, n_models = 400, 80
    x = rng.normal(size=(n, 4)).astype(np.float32)
    ability, difficulty = rng.normal(size=(1, n_models)), rng.normal(size=(n, 1)) * 2
    rate = 1 / (1 + np.exp(ability - difficulty + 1.5 * ability * (x[:, :1] > 0)))
    losses = (rng.random((n, n_models)) < rate).astype(float)
    keys = prompt_keys(row.tobytes() for row in x)
    profiler = fit_profiler(x, losses[:, :60], keys=keys)
    phi, few = profiler.map.phi(x), rng.permutation(n)[:40]
    known = profiler.observe(phi[few], losses[few, 60:], keys=keys[few])
    unknown = profiler.observe(phi[few], losses[few, 60:])
    # The truth that a map without the prompts' own difficulty can know: means by side.
    side = np.where(x[:, :1] > 0, rate[x[:, 0] > 0].mean(axis=0), rate[x[:, 0] <= 0].mean(axis=0))
    errors = [
        np.abs(phi @ profiler.profile(e).psi - side[:, 60:] + 0.0).mean() for e in (known, unknown)
    ]
    assert profiler.profile(known).standard_error.mean() < (
        profiler.profile(unknown).standard_error.mean()
    )
    assert errors[0] < errors[1]


def test_keys_tell_prompts_apart_and_know_them_again():
    keys = prompt_keys([b"one", b"two", b"one", b""])
    assert keys[0] == keys[2]
    assert len(set(keys.tolist())) == 3


# --- prompts out of distribution ---


def test_prompts_out_of_distribution_fall_back_to_the_overall_mean():
    x, losses, _, _ = clustered(n=600, n_models=24)
    profiler = fit_profiler(x, losses[:, :16])
    profiles = profiler.profile(profiler.observe(profiler.map.phi(x), losses[:, 16:]))
    far = np.zeros((1, x.shape[1]), np.float32) - 5 * x.mean(axis=0)
    outside = np.abs(profiler.map.phi(far) @ profiles.psi - profiles.mean).max()
    at_home = np.abs(profiler.map.phi(x) @ profiles.psi - profiles.mean).max()
    assert outside < 0.25 * at_home


def test_background_takes_the_weight_of_prompts_far_from_all_centroids():
    head = SoftmaxHead.around(np.eye(3, dtype=np.float32), 10.0).with_background(3.0)
    phi = head.phi(np.array([[1, 0, 0], [-1, -1, -1]], np.float32))
    assert phi[0].argmax() == 0
    assert phi[1, 3] > 0.99
    assert ClusterMap([head.part()]).backgrounds == [3]


def test_prompts_between_familiar_ones_are_out_of_distribution():
    # The centroid of a wide cluster lies where no prompt does: on a ring, in its middle.
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 2 * np.pi, 800)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.02 * rng.normal(size=(800, 2))
    x = ring.astype(np.float32)
    # Too few LLMs to rehearse with, which might choose to protect nothing.
    losses = (rng.random((800, 5)) < 0.5 + 0.3 * x[:, :1]).astype(float)
    cluster_map = fit_profiler(x, losses, n_clusters=1).map
    middle = np.zeros((1, 2), np.float32)
    assert cluster_map.phi(middle)[0, 1] > 0.99
    plain = ClusterMap(cluster_map.heads()[:1])
    assert plain.phi(middle)[0, 1] < 0.5
    new = np.column_stack([np.cos(angle + 0.5), np.sin(angle + 0.5)]).astype(np.float32)
    unchanged = cluster_map.phi(new) == plain.phi(new)
    assert unchanged.mean() > 0.8


def test_shares_out_of_distribution_are_those_of_the_definition():
    landmarks = np.array([[0.0], [10.0]], np.float32)
    x = np.array([[0.0], [1.0], [8.0], [13.0], [1e18]], np.float32)
    shares = shares_out_of_distribution(nearest_centroid(x, landmarks)[1], 4.0)
    np.testing.assert_allclose(shares, [0, 0, 0.5, 2.25**8 / (1 + 2.25**8), 1], atol=2e-5)
    head = SoftmaxHead(np.zeros((2, 1), np.float32), np.array([0, -9], np.float32), background=True)
    phi = ClusterMap([head.part(), head.part(), ("familiarity", landmarks, 4.0)]).phi(x)
    np.testing.assert_allclose(phi[:, [1, 3]], np.column_stack([shares, shares]))
    np.testing.assert_allclose(phi[:, :2].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("far_ones_gain", [True, False])
def test_protection_of_prompts_out_of_distribution_has_a_price_that_is_kept_low(far_ones_gain):
    # Two kinds of LLMs, each of which is right where the other is wrong; 4% of the prompts lie far
    # from the others, and there either no LLM is right or choosing well gains the most.
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=900)
    far = rng.random(900) < 0.04
    phi = np.column_stack([group == 0, group == 1, np.zeros(900)]).astype(np.float32)
    chance = np.where(group[:, None] == np.arange(16) % 2, 0.1, 0.9)
    if far_ones_gain:
        chance[~far] = 0.5
    else:
        chance[far] = 1.0
    losses = (rng.random((900, 16)) < chance).astype(float)
    distances = np.where(far, 9.0, rng.uniform(0.5, 1.0, 900)).astype(np.float32)
    familiar = choose(phi, [3], losses, np.zeros(16), distances, 0, area_of).familiar
    assert familiar is None if far_ones_gain else familiar == 0.95
    assert choose(phi, [3], losses, np.zeros(16), None, 0, area_of).familiar is None


def has_landmarks(cluster_map):
    return cluster_map.heads()[-1][0] == "familiarity"


def test_prompts_in_a_few_places_have_no_landmarks():
    x, losses, _, _ = clustered(n=400)
    assert has_landmarks(fit_profiler(x, losses).map)
    rng = np.random.default_rng(1)
    templates = x[rng.integers(5, size=400)] + 1e-4 * rng.normal(size=x.shape).astype(np.float32)
    assert not has_landmarks(fit_profiler(templates, losses).map)


def test_few_distinct_prompts_have_no_landmarks():
    x, losses, _, _ = clustered(n=99)
    assert not has_landmarks(fit_profiler(x, losses).map)
    x, losses = np.tile(x, (3, 1)), np.tile(losses, (3, 1))
    assert not has_landmarks(fit_profiler(x, losses).map)


# --- calibration ---


def test_inflation_makes_intervals_hold_nine_tenths_of_the_errors():
    rng = np.random.default_rng(4)
    variance, sampling = rng.uniform(0.5, 2, 20_000), rng.uniform(0.1, 0.5, 20_000)
    squared = (rng.normal(size=20_000) * np.sqrt(4 * variance + sampling)) ** 2
    errors = np.column_stack([squared, variance, sampling])
    assert coverage(errors) < 0.75
    factor = inflation([errors])
    assert factor == pytest.approx(2.0, rel=0.05)
    assert coverage(errors, factor) == pytest.approx(0.9, abs=0.005)
    assert inflation([errors[:0]]) == inflation([]) == 1.0


def test_one_unusual_rehearsal_does_not_decide_about_intervals():
    rng = np.random.default_rng(5)
    squared = rng.normal(size=1000) ** 2
    usual = np.column_stack([4 * squared, np.ones(1000), np.zeros(1000)])
    unusual = usual * [9, 1, 1]
    assert inflation([usual, usual, unusual]) == inflation([usual])
    assert inflation([unusual]) == pytest.approx(min(3 * inflation([usual]), 4))


def test_cluster_errors_compare_by_cluster_and_llm():
    _, losses, group, _ = clustered(n=400, n_models=5)
    phi = np.hstack([one_hot(group, 6), np.zeros((400, 1), np.float32)])
    evidence = observe(phi[:200, :6], losses[:200])
    found = posterior(evidence, Prior(np.zeros(6), 0.3 * np.eye(6), 0.8, 6))
    errors = cluster_errors([found], [7], phi[200:], losses[200:], evidence.mean)
    big = np.flatnonzero(np.bincount(group[200:], minlength=6) >= 20)
    assert len(errors) == 5 * len(big)
    actual = losses[200:][group[200:] == big[0]].mean(axis=0)
    np.testing.assert_allclose(errors[:5, 0], (found.mean[big[0]] - actual) ** 2)
    np.testing.assert_allclose(errors[:5, 1], found.standard_error[big[0]] ** 2)


def test_intervals_of_new_llms_hold_about_nine_tenths():
    x, losses, _, _ = clustered(n=3000, n_models=60, seed=9)
    profiler = fit_profiler(x[:2000], losses[:2000, :40])
    phi, sizes = profiler.map.phi(x), profiler.map.sizes
    evidence = profiler.observe(phi[:300], losses[:300, 40:])
    posteriors = head_posteriors(evidence, sizes, profiler.priors, profiler.spread)
    errors = cluster_errors(posteriors, sizes, phi[2000:], losses[2000:, 40:], evidence.mean)
    assert 0.8 < coverage(errors, profiler.inflation) <= 1.0


def test_an_llm_tried_on_hard_prompts_is_not_a_worse_one_for_it():
    x, losses, group, rates = clustered(n=2400, n_models=20)
    profiler = fit_profiler(x[:1200], losses[:1200, :12])
    new, truth = losses[1200:, 12:], rates[:, 12:].mean(axis=0)
    hardest = np.argsort(rates[:, :12].mean(axis=1))[3:]
    for rows in (np.isin(group[1200:], hardest), np.ones(1200, bool)):
        phi = profiler.map.phi(x[1200:][rows][:150])
        evidence = profiler.observe(phi, new[rows][:150])
        posteriors = head_posteriors(evidence, profiler.map.sizes, profiler.priors, profiler.spread)
        told = overall_mean(evidence, posteriors, profiler.map.sizes, profiler.mix)
        if rows.all():
            # Nothing to correct where the labelled prompts are like all.
            assert np.abs(told - evidence.mean).max() < 0.03
        else:
            missed = np.abs(evidence.mean - truth).mean()
            assert missed > 0.05
            assert np.abs(told - truth).mean() < 0.6 * missed


# --- what seen LLMs tell of a prompt beyond its clusters ---


def hard_and_easy(n=600, n_models=8, shared=0.3, seed=0):
    """Losses of LLMs in 4 clusters, where some prompts are harder for all of them than others."""
    rng = np.random.default_rng(seed)
    group = rng.integers(4, size=n)
    rates = np.clip(np.linspace(0.3, 0.7, 4)[:, None] + 0.05 * rng.normal(size=(4, n_models)), 0, 1)
    hardness = shared * rng.choice([-1, 1], size=n)
    losses = (rng.random((n, n_models)) < rates[group] + hardness[:, None]).astype(float)
    # Two heads, each with a background that has no weight.
    coarse = one_hot(group // 2, 3)
    return np.hstack([coarse, one_hot(group, 5)]), [3, 5], losses, rates, hardness


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_factors_average_zero_in_every_cluster(missing):
    phi, sizes, losses, _, hardness = hard_and_easy()
    losses[np.random.default_rng(1).random(losses.shape) < missing] = np.nan
    priors, factors = fit_priors(phi, sizes, losses)
    assert [len(prior.mean) for prior in priors] == [2 + 4, 4 + 4]
    np.testing.assert_allclose(phi.T @ factors, 0, atol=0.01)
    np.testing.assert_allclose(factors.std(axis=0), 1)
    assert abs(np.corrcoef(factors[:, 0], hardness)[0, 1]) > 0.7


@pytest.mark.parametrize("n_models", [2, 5, 30])
def test_an_llms_own_outcomes_do_not_explain_themselves(n_models):
    """Where prompts have nothing in common, the prior finds that factors tell nothing."""
    phi, sizes, losses, *_ = hard_and_easy(n=2000, n_models=n_models, shared=0.0)
    priors, factors = fit_priors(phi, sizes, losses)
    assert factors.shape[1] == min(4, n_models - 1)
    for prior in priors:
        assert prior.noise > 0.85
        assert np.abs(prior.mean[prior.n_clusters :]).max() < 0.1


def test_labels_on_hard_prompts_of_a_cluster_do_not_make_an_llm_a_worse_one():
    phi, sizes, losses, rates, hardness = hard_and_easy(n=4000, n_models=16)
    priors, factors = fit_priors(phi, sizes, losses[:, :12])
    labelled = np.flatnonzero(hardness > 0)[:400]  # All of them harder than their clusters are.
    new, truth = losses[labelled, 12:], rates[:, 12:].mean(axis=0)
    evidence = observe(np.hstack([phi[labelled], factors[labelled]]), new)
    found = head_posteriors(evidence, sizes, priors, 1.0)
    told = overall_mean(evidence, found, sizes, phi.mean(axis=0, dtype=np.float64))
    missed = np.abs(new.mean(axis=0) - truth).mean()
    assert missed > 0.25
    assert np.abs(told - truth).mean() < 0.4 * missed
    in_clusters = found[1].mean - rates[:, 12:]
    assert np.abs(in_clusters).mean() < 0.4 * missed


def test_a_prompt_given_twice_is_known_by_what_both_copies_tell():
    x, losses, *_ = clustered(n=200)
    once = fit_profiler(x, losses, keys=np.arange(200, dtype=np.uint64)).known
    twice = fit_profiler(x, losses, keys=np.arange(200, dtype=np.uint64) // 2).known
    assert twice.keys.tolist() == list(range(100))
    told = once.factors.reshape(100, 2, -1).mean(axis=1)
    np.testing.assert_allclose(twice.factors, told, atol=1e-6)
