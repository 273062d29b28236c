"""Labels that were flipped with known probability, and prompts that count for more than one."""

import numpy as np
import pytest

import uniroute_fast as uf
from made_up import fit_profiler
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError
from uniroute_fast.profiles.evidence import observe
from uniroute_fast.profiles.label_noise import without_flips


def flipped(losses, rate, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(losses.shape) < rate, 1 - losses, losses)


@pytest.mark.parametrize("graded", [False, True])
def test_corrected_sums_are_unbiased(graded):
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.ones(3), size=200).astype(np.float32)
    losses = rng.random((200, 4)) if graded else (rng.random((200, 4)) < 0.3).astype(float)
    truth = observe(phi, losses)
    found = [
        without_flips(observe(phi, flipped(losses, 0.2, s)), 0.2, discount=False)
        for s in range(400)
    ]
    for name in ("loss", "total", "total_square"):
        values = np.array([getattr(e, name) for e in found])
        error = values.std(axis=0) / 20
        assert (np.abs(values.mean(axis=0) - getattr(truth, name)) < 4.5 * error).all(), name
    for name in ("phi", "count", "gram"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(truth, name))


def test_no_flips_change_nothing_and_more_flips_count_for_less():
    phi = np.ones((50, 1), np.float32)
    evidence = observe(phi, (np.arange(50) % 3 == 0).astype(float)[:, None])
    assert without_flips(evidence, 0.0, discount=True) is evidence
    counts = [without_flips(evidence, r, discount=True).count[0] for r in (0.05, 0.1, 0.3)]
    assert 50 > counts[0] > counts[1] > counts[2] > 0
    # Where all labels say failure, or none, means stay in [0, 1].
    for same in (0.0, 1.0):
        corrected = without_flips(observe(phi, np.full((50, 1), same)), 0.3, discount=True)
        assert corrected.mean[0] == same
        assert np.isfinite(corrected.loss).all()


@pytest.mark.parametrize("seen", [True, False])
def test_correction_brings_predicted_losses_nearer_the_truth(seen):
    rng = np.random.default_rng(2)
    group = rng.integers(4, size=1200)
    x = (np.eye(5)[group] + 0.1 * rng.normal(size=(1200, 5))).astype(np.float32)
    rates = rng.uniform(0.02, 0.6, size=(4, 30))
    losses = (rng.random((1200, 30)) < rates[group]).astype(float)
    profiler = fit_profiler(x, losses[:, :20] if seen else None, n_clusters=4)
    phi = profiler.map.phi(x)
    evidence = profiler.observe(phi[:600], flipped(losses[:600, 20:], 0.25, 3))
    corrected = without_flips(evidence, 0.25, discount=not profiler.joint)
    plain, better = (
        np.abs(phi @ profiler.profile(e).psi - rates[group, 20:]).mean()
        for e in (evidence, corrected)
    )
    assert better < 0.6 * plain


def router_and(losses, **more):
    texts = ["add 2 and 3", "sum of 4 and 5", "name a river", "which lake is long"] * 10
    router = uf.Router.fit(texts, n_clusters=2)
    router.add_model("m", cost=1.0, texts=texts, losses=losses, **more)
    return router


def test_router_takes_flip_rate_and_weights():
    losses = np.array([0.0, 0.0, 1.0, 1.0] * 10)
    even = router_and(losses).profiles
    assert (
        router_and(np.where(np.arange(40) < 4, 1 - losses, losses), flip_rate=0.1).profiles.std()
        > 0.8 * even.std()
    )
    weights = np.array([1.0, 1.0, 3.0, 3.0] * 10)
    # A weight of 3 is as three equal outcomes.
    texts = ["add 2 and 3", "sum of 4 and 5", "name a river", "which lake is long"] * 10
    router = uf.Router.fit(texts, n_clusters=2)
    repeated = np.repeat(np.arange(40), weights.astype(int))
    router.add_model("w", cost=1.0, texts=texts, losses=losses, weights=weights)
    router.add_model("r", cost=1.0, texts=[texts[i] for i in repeated], losses=losses[repeated])
    np.testing.assert_allclose(router.profiles[:, 0], router.profiles[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            {"flip_rate": 0.5},
            InvalidArgumentError,
            "flip_rate: 0.5; expected",
        ),
        ({"flip_rate": -0.1}, InvalidArgumentError, "flip_rate: -0.1"),
        ({"flip_rate": "0.1"}, ArgumentTypeError, "flip_rate: a str"),
        ({"flip_rate": float("nan")}, InvalidArgumentError, "flip_rate: nan"),
        ({"weights": np.ones(3)}, InvalidArgumentError, r"weights: shape \(3,\); expected \(40,\)"),
        ({"weights": np.full(40, -1.0)}, InvalidArgumentError, "weights: -1 in row 0"),
        ({"weights": np.full(40, np.inf)}, InvalidArgumentError, "weights: inf in row 0"),
        ({"weights": np.zeros(40)}, InvalidArgumentError, "weights: all 0"),
        ({"weights": ["a"] * 40}, ArgumentTypeError, "weights: dtype"),
    ],
)
def test_bad_flip_rates_and_weights_are_named(more, error, message):
    with pytest.raises(error, match=message):
        router_and(np.zeros(40), **more)
