"""Profiles from preferences: against a general optimiser, and against the truth."""

import numpy as np
import pytest
from scipy.optimize import minimize

import uniroute_fast as uf
from uniroute_fast.errors import ArgumentTypeError, DuplicateModelError, InvalidArgumentError
from uniroute_fast.profiles.preferences import fit_strengths, profile_from_preferences


def test_strengths_are_the_posterior_mode_and_its_curvature():
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.ones(4), size=60)
    offsets, wins = rng.normal(size=60), rng.choice([0.0, 0.5, 1.0], size=60)
    root = rng.normal(size=(4, 4))
    mean, covariance = rng.normal(size=4), root @ root.T + np.eye(4)

    def negative(theta):
        score = phi @ theta - offsets
        prior = (theta - mean) @ np.linalg.solve(covariance, theta - mean) / 2
        return np.logaddexp(0, score).sum() - wins @ score + prior

    theta, spread = fit_strengths(phi, offsets, wins, mean, covariance)
    expected = minimize(
        negative,
        mean,
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 10_000},
    )
    np.testing.assert_allclose(theta, expected.x, atol=1e-4)
    # Second differences of the objective at the mode.
    h, eye = 1e-3, np.eye(4)
    hessian = [
        [
            (
                negative(theta + h * (a + b))
                - negative(theta + h * (a - b))
                - negative(theta - h * (a - b))
                + negative(theta - h * (a + b))
            )
            / (4 * h * h)
            for b in eye
        ]
        for a in eye
    ]
    np.testing.assert_allclose(np.linalg.inv(spread), hessian, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_strengths_stay_bounded_where_one_side_always_wins(sure):
    phi = np.ones((500, 1))
    theta, spread = fit_strengths(
        phi, np.zeros(500), np.full(500, sure), np.zeros(1), np.array([[4.0]])
    )
    assert np.isfinite(theta).all()
    assert 2 < abs(theta[0]) < 10
    assert np.sign(theta[0]) == 2 * sure - 1
    assert spread[0, 0] > 0


def simulated(n, seed=0, heads=1):
    """Return what `profile_from_preferences` takes, and the new LLM's true losses by cluster."""
    rng = np.random.default_rng(seed)
    pool = np.array([[0.2, 0.5, 0.4], [0.6, 0.3, 0.4]])
    truth = np.array([0.1, 0.7])
    group, opponent = rng.integers(2, size=n), rng.integers(3, size=n)
    own = rng.random(n) < truth[group]
    other = rng.random(n) < pool[group, opponent]
    wins = np.where(own == other, 0.5, (~own).astype(float))
    phi = np.tile(np.eye(2, dtype=np.float32)[group], heads)
    profiles = np.tile(pool, (heads, 1)).astype(np.float32) / heads
    return (phi, heads, profiles, opponent.astype(np.intp), wins), truth


@pytest.mark.parametrize("heads", [1, 2])
def test_profiles_from_many_preferences_are_near_the_truth(heads):
    # Ties of two right or two wrong answers pull strengths together: leave them out for the truth.
    (phi, h, profiles, opponents, wins), truth = simulated(6000, heads=heads)
    decided = wins != 0.5
    found, error = profile_from_preferences(
        phi[decided], h, profiles, opponents[decided], wins[decided]
    )
    np.testing.assert_allclose(heads * found.reshape(heads, 2).mean(axis=0), truth, atol=0.04)
    assert (error > 0).all()
    if heads == 1:
        assert (np.abs(found - truth) < 4 * error + 0.01).all()


def test_few_preferences_leave_the_profile_near_the_pools():
    arguments, _ = simulated(3)
    found, error = profile_from_preferences(*arguments)
    many, less = profile_from_preferences(*simulated(3000)[0])
    assert (error > 2 * less).all()
    assert np.abs(found - arguments[2].mean(axis=1)).max() < 0.35
    assert many[0] < many[1]


def test_router_takes_preferences():
    texts = ["add 2 and 3", "sum of 4 and 5", "name a river", "which lake is long"] * 20
    router = uf.Router.fit(texts, n_clusters=2)
    router.add_models(["a", "b"], [1.0, 1.0], texts, np.tile([[0.4, 0.5]], (80, 1)))
    before = router.profiles.copy()
    error = router.add_model_from_preferences(
        "new", cost=1.0, opponents=["a", "b"] * 40, wins=[1, 1, 0, 0] * 20, texts=texts
    )
    assert error.shape == (router.profiles.shape[0],)
    np.testing.assert_array_equal(router.profiles[:, :2], before)
    assert router.route("add 4 and 3").model == "new"
    assert router.route("name a lake").model == "a"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"opponents": "c"}, InvalidArgumentError, "'c' in row 0; expected a model of the pool"),
        ({"opponents": None}, ArgumentTypeError, "opponents: a NoneType"),
        ({"opponents": ["a", "a", [], "a"]}, InvalidArgumentError, r"opponents: \[\] in row 2"),
        ({"opponents": ["a"]}, InvalidArgumentError, "opponents: 1 names for 4 prompts"),
        ({"wins": [1, 0, 1]}, InvalidArgumentError, r"wins: shape \(3,\)"),
        ({"wins": [1, 0, 1, 2]}, InvalidArgumentError, "wins: 2 in row 3; expected 0 to 1"),
        ({"wins": [1, 0, 1, np.nan]}, InvalidArgumentError, "wins: nan in row 3"),
        ({"texts": ["", "", "", ""]}, InvalidArgumentError, "none can be embedded"),
        ({"texts": None}, InvalidArgumentError, "exactly one"),
        ({"name": "a"}, DuplicateModelError, "a"),
    ],
)
def test_bad_preferences_are_named_and_change_nothing(changes, error, message):
    texts = ["add one", "river two", "rhyme three", "sum four"]
    router = uf.Router.fit(texts, n_clusters=2)
    router.add_model("a", cost=1.0, texts=texts, losses=np.full(4, 0.5))
    arguments = {"name": "n", "cost": 1.0, "opponents": "a", "wins": [1, 0, 1, 0], "texts": texts}
    with pytest.raises(error, match=message):
        router.add_model_from_preferences(**(arguments | changes))
    assert router.models == ["a"]
