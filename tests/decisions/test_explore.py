"""Thompson sampling with true propensities, and estimates from its logs."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast.decisions.explore import best_probabilities
from uniroute_fast.evaluate import off_policy

TEXTS = ["what is 3 + 4", "what is 9 - 5", "a poem about rain", "a poem on snow"] * 10


@pytest.fixture(scope="module")
def router() -> uf.Router:
    router = uf.Router.fit(TEXTS, n_clusters=2)
    losses = (np.random.default_rng(0).random((40, 4)) < [0.3, 0.35, 0.4, 0.9]).astype(float)
    router.add_models(["a", "b", "c", "bad"], [1.0, 2.0, 1.5, 1.0], TEXTS, losses)
    return router


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
def test_probabilities_are_those_of_sampling(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    mean, error = rng.normal(size=count), rng.uniform(0.2, 1.5, count)
    found = best_probabilities(mean, error)
    assert found.sum() == pytest.approx(1)
    draws = rng.normal(mean, error, (200_000, count)).argmin(axis=1)
    drawn = np.bincount(draws, minlength=count) / len(draws)
    np.testing.assert_allclose(found, drawn, atol=0.012)


def test_two_gaussians_have_a_closed_form() -> None:
    for gap, first, second in [(0.1, 0.05, 0.1), (0.0, 1.0, 0.3), (0.3, 0.1, 0.1)]:
        exact = 0.5 * (1 + math.erf(gap / math.hypot(first, second) / math.sqrt(2)))
        assert best_probabilities([0.0, gap], [first, second])[0] == pytest.approx(exact, abs=2e-3)
    np.testing.assert_allclose(best_probabilities([1.0, 1.0], [0.0, 0.0]), 0.5)
    assert best_probabilities([0.0, 1.0], [0.0, 0.0])[0] == 1.0


def test_what_is_logged_is_what_is_drawn(router: uf.Router) -> None:
    explorer = uf.Explorer(within=0.5, uniform=0.1, share=0.8, seed=1)
    tried = [explorer.route(router, TEXTS[0], 0.01) for _ in range(3000)]
    told = tried[0].probabilities
    assert all(t.probabilities == told for t in tried)
    assert sum(told.values()) == pytest.approx(1)
    for index, probability in told.items():
        share = np.mean([t.index == index for t in tried])
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / 3000)
    assert all(t.propensity == told[t.index] for t in tried)
    assert all(t.model == router.models[t.index] for t in tried)
    record = json.loads(json.dumps(tried[0].record()))
    assert record["propensity"] == tried[0].propensity
    assert record["greedy"] == router.route(TEXTS[0], 0.01).model


def test_the_guard_and_the_share_hold(router: uf.Router) -> None:
    objective = router.predict_loss(TEXTS[:1])[0] + 0.01 * router.costs
    for within in (0.0, 0.05, 0.3, 2.0):
        tried = uf.Explorer(within=within, seed=0).route(router, TEXTS[0], 0.01)
        allowed = set(np.flatnonzero(objective <= objective.min() + within + 1e-9).tolist())
        assert set(tried.probabilities) == allowed
    still = uf.Explorer(within=2.0, share=0.0, seed=0)
    assert all(still.route(router, t).model == router.route(t).model for t in TEXTS[:4])
    evenly = uf.Explorer(within=2.0, uniform=1.0).route(router, TEXTS[0])
    np.testing.assert_allclose(list(evenly.probabilities.values()), 0.25)
    two = uf.Explorer(within=2.0, most=2).route(router, TEXTS[0], 0.01)
    assert set(two.probabilities) == set(np.argsort(objective)[:2].tolist())
    only = uf.Constraints(allow=["b", "bad"])
    drawn = {
        uf.Explorer(within=2.0, uniform=1.0, seed=i).route(router, TEXTS[0], constraints=only).model
        for i in range(30)
    }
    assert drawn == {"b", "bad"}
    x = router.embedder.embed(TEXTS[:1])[0]
    assert uf.Explorer(within=0.0).route(router, embeddings=x).model == router.route(TEXTS[0]).model


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_a_comparison_is_of_independent_draws(router: uf.Router, draws: int) -> None:
    explorer = uf.Explorer(within=0.5, uniform=0.1, seed=2)
    n = 4000
    drawn = [explorer.compare(router, TEXTS[0], 0.01, draws=draws) for _ in range(n)]
    p = np.zeros(4)
    for index, probability in explorer.route(router, TEXTS[0], 0.01).probabilities.items():
        p[index] = probability
    pairs = np.zeros((4, 4))
    for one in drawn:
        assert len(one.drawn) == draws
        pairs[one.drawn[0].index, one.drawn[-1].index] += 1 / n
    joint = np.outer(p, p)
    assert (np.abs(pairs - joint) <= 4 * np.sqrt(joint * (1 - joint) / n)).all()
    best = router.route(TEXTS[0], 0.01).model
    for one in drawn:
        assert one.decision.model == best
        told = list(dict.fromkeys(draw.model for draw in one.drawn))
        assert one.models == (told if len(told) > 1 else [])
    asked = np.zeros(4)
    chance = 1 - (1 - p) ** draws - p**draws
    for one in drawn:
        for model, propensity in zip(one.models, one.propensities, strict=True):
            index = router.models.index(model)
            assert propensity == pytest.approx(chance[index])
            asked[index] += 1 / n
    assert (np.abs(asked - chance) <= 4 * np.sqrt(chance * (1 - chance) / n)).all()


def test_comparisons_estimate_another_rule_without_bias(router: uf.Router) -> None:
    rng = np.random.default_rng(4)
    explorer = uf.Explorer(within=np.inf, uniform=0.3, seed=4)
    losses, n, terms = np.array([0.2, 0.7, 0.4, 0.9]), 3000, []
    for _ in range(n):
        one = explorer.compare(router, TEXTS[0])
        asked = dict(zip(one.models, one.propensities, strict=True))
        happened = float(rng.random() < losses[1])  # the rule to be judged always chooses "b"
        terms.append(happened / asked["b"] if "b" in asked else 0.0)
    error = np.std(terms) / math.sqrt(n)
    assert abs(np.mean(terms) - losses[1]) < 4 * error


def test_comparisons_tell_two_models_apart_where_prompts_differ_more_than_they_do() -> None:
    # "good" fails on the hardest 45% of the prompts, "fair" on the hardest 55%: one outcome each
    # tells little, two outcomes of one prompt are never the wrong way round.
    texts = [f"{'what is' if i % 2 else 'tell me'} {i}" for i in range(400)]
    labels = texts[:10]
    router = uf.Router.fit(texts, n_clusters=1)
    router.add_models(["fair", "good"], [1.0, 1.0], labels, [[0.0, 0.0]] * 5 + [[1.0, 1.0]] * 5)
    explorer, rng = uf.Explorer(within=np.inf, seed=0), np.random.default_rng(0)
    asked = 0
    for text in texts:
        comparison = explorer.compare(router, text)
        hard = rng.random()
        lost = {"fair": float(hard > 0.45), "good": float(hard > 0.55)}
        found = [lost[model] for model in comparison.models]
        router.observe_many([text] * len(found), comparison.models, found)
        asked += len(found)
        fair, good = router.predict_loss([text])[0]
        assert good <= fair + 1e-6
    assert asked > 100
    assert router.route(texts[0]).model == "good"


def test_the_same_seed_draws_the_same(router: uf.Router) -> None:
    one, two = (uf.Explorer(within=1.0, seed=5) for _ in range(2))
    for text in TEXTS:
        assert one.route(router, text).model == two.route(router, text).model


def test_an_explorer_holds_no_lock_that_a_fork_might_find_taken(router: uf.Router) -> None:
    explorer = uf.Explorer(within=1.0, seed=5)
    explorer.route(router, TEXTS[0])
    # What holds a lock cannot be pickled.
    copy = pickle.loads(pickle.dumps(explorer))
    for text in TEXTS * 3:
        assert copy.route(router, text).model == explorer.route(router, text).model


def test_exploration_finds_the_better_model_that_greed_never_tries() -> None:
    rng = np.random.default_rng(3)
    tried = {}
    for way, explorer in {
        "greedy": uf.Explorer(within=0.0, seed=0),
        "Thompson": uf.Explorer(within=1.0, seed=0),
    }.items():
        router = uf.Router.fit(TEXTS, n_clusters=2)
        # Four unlucky labels hide that "good" is the better one.
        router.add_models(["fair", "good"], [1.0, 1.0], TEXTS[:4], [[0, 1], [0, 1], [0, 0], [1, 1]])
        rates = {"fair": 0.5, "good": 0.1}
        counts = {"fair": 0, "good": 0}
        for i in range(400):
            text = TEXTS[i % 4]
            model = explorer.route(router, text).model
            router.observe(text, model, float(rng.random() < rates[model]))
            counts[model] += 1
        tried[way] = counts["good"] / 400
    assert tried["Thompson"] > 0.7


def test_numbers_out_of_range_are_refused(router: uf.Router) -> None:
    for bad in (
        {"within": -1},
        {"share": 1.5},
        {"uniform": float("nan")},
        {"most": 0},
        {"most": 2.5},
        {"within": "x"},
        {"share": None},
        {"within": True},
        {"within": 10**400},
        {"seed": -1},
    ):
        with pytest.raises(errors.UniRouteError, match=f"{next(iter(bad))}: .*; expected "):
            uf.Explorer(**bad)
    with pytest.raises(errors.ArgumentTypeError, match="router"):
        uf.Explorer().route(None, TEXTS[0])  # type: ignore[arg-type]
    with pytest.raises(errors.UnroutableError):
        uf.Explorer().route(router, "")
    for draws in (1, 1001, "4", True):
        with pytest.raises(errors.UniRouteError, match=r"draws: .*; expected "):
            uf.Explorer().compare(router, TEXTS[0], draws=draws)  # type: ignore[arg-type]


def logged(n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return a log over 4 LLMs with known losses, and what another rule chooses."""
    rng = np.random.default_rng(seed)
    rates = rng.dirichlet(np.ones(4), n) * 2 % 1
    logging = rng.dirichlet(np.ones(4) * 2, n) * 0.8 + 0.05
    chosen = (logging.cumsum(1) > rng.random((n, 1))).argmax(1)
    losses = (rng.random((n, 4)) < rates).astype(float)
    rows = np.arange(n)
    return (
        chosen,
        losses[rows, chosen],
        logging[rows, chosen],
        losses,
        rates,
        rng.dirichlet(np.ones(4), n),
    )


def test_estimates_are_those_of_the_definitions() -> None:
    chosen, loss, propensity, _, rates, target = logged(500, 0)
    predicted = rates + 0.1
    found = off_policy(target, chosen, loss, propensity, predicted)
    weight = np.array(
        [target[i, m] / p for i, (m, p) in enumerate(zip(chosen, propensity, strict=True))]
    )
    terms = weight * loss
    assert found.ips.value == pytest.approx(terms.mean())
    assert found.ips.standard_error == pytest.approx(terms.std(ddof=1) / np.sqrt(500))
    assert found.self_normalised.value == pytest.approx(terms.sum() / weight.sum())
    direct = np.array([target[i] @ predicted[i] for i in range(500)])
    robust = direct + weight * (loss - predicted[np.arange(500), chosen])
    assert found.doubly_robust is not None
    assert found.doubly_robust.value == pytest.approx(robust.mean())
    assert found.largest_weight == weight.max()
    # A rule given by its choices is that of probabilities 0 and 1.
    choice = target.argmax(1)
    sure = np.eye(4)[choice]
    assert off_policy(choice, chosen, loss, propensity, predicted) == off_policy(
        sure, chosen, loss, propensity, predicted
    )


@pytest.mark.parametrize("estimator", ["ips", "self_normalised", "doubly_robust"])
def test_estimates_hold_the_truth_as_often_as_their_errors_say(estimator: str) -> None:
    inside = []
    for seed in range(300):
        chosen, loss, propensity, _, rates, target = logged(400, seed)
        truth = (target * rates).sum(1).mean()
        found = getattr(off_policy(target, chosen, loss, propensity, 0.5 * rates), estimator)
        inside.append(abs(found.value - truth) <= 2 * found.standard_error)
    assert np.mean(inside) > 0.92


def test_an_estimate_from_the_wrong_propensities_is_wrong() -> None:
    """What the tests above could not tell if propensities were not used."""
    chosen, loss, propensity, losses, _, _ = logged(20_000, 1)
    always = np.zeros(20_000, int)
    truth = losses[:, 0].mean()
    right = off_policy(always, chosen, loss, propensity).ips
    wrong = off_policy(always, chosen, loss, np.full(20_000, 0.5)).ips
    assert abs(right.value - truth) < 3 * right.standard_error
    assert abs(wrong.value - truth) > 10 * wrong.standard_error


def test_bad_logs_are_refused() -> None:
    chosen, loss, propensity = np.array([0, 1]), [0.0, 1.0], [0.5, 0.5]
    fine = np.full((2, 2), 0.5)
    for match, call in {
        "chosen: 1 prompts": lambda: off_policy([0], [0], [0.0], [1.0]),
        "chosen: dtype": lambda: off_policy([0, 1], [0.0, 1.0], loss, propensity),
        "losses: a value": lambda: off_policy([0, 1], chosen, [0.0, 1.5], propensity),
        "losses: shape": lambda: off_policy([0, 1], chosen, [0.0], propensity),
        "propensities": lambda: off_policy([0, 1], chosen, loss, [0.0, 0.5]),
        "policy: 3 choices": lambda: off_policy([0, 1, 1], chosen, loss, propensity),
        "policy: rows": lambda: off_policy(2 * fine, chosen, loss, propensity),
        "policy: shape": lambda: off_policy(np.ones((2, 1)), chosen, loss, propensity),
        "never chooses": lambda: off_policy([1, 0], chosen, loss, propensity),
        "policy: LLM 7": lambda: off_policy([0, 7], chosen, loss, propensity, fine),
        "predicted: shape": lambda: off_policy([0, 1], chosen, loss, propensity, fine[:1]),
        "predicted: a value": lambda: off_policy([0, 1], chosen, loss, propensity, fine * np.nan),
    }.items():
        with pytest.raises(errors.UniRouteError, match=match):
            call()
