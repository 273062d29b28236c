"""Two decisions: the second by how sure the first LLM was."""

from __future__ import annotations

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast.decisions.cascade import Predicted, ScoreModel

TEXTS = ["what is 3 + 4", "what is 9 - 5", "a poem about rain", "a poem on snow"] * 60
N = len(TEXTS)


def simulated(auc_gap: float, seed: int = 0) -> tuple[uf.Router, np.ndarray, np.ndarray]:
    """Return a router, losses and the scores of "small", which tell by so many deviations."""
    rng = np.random.default_rng(seed)
    router = uf.Router.fit(TEXTS, n_clusters=2)
    hard = rng.random(N)
    losses = (hard[:, None] > 1 - np.array([0.5, 0.15, 0.1])).astype(float)
    losses[rng.random(losses.shape) < 0.05] = 0.0
    router.add_models(["small", "large", "huge"], [1.0, 6.0, 20.0], TEXTS, losses)
    scores = (1 - losses[:, 0]) * auc_gap + rng.normal(size=N)
    return router, losses, scores


def outcome(
    cascade: uf.Cascade, losses: np.ndarray, scores: np.ndarray, weight: float
) -> tuple[float, float, float]:
    """Return mean loss, mean cost and the share asked again, one prompt at a time."""
    loss = cost = again = 0.0
    for i, text in enumerate(TEXTS):
        first = cascade.first(text, weight)
        second = cascade.second(first, scores[i])
        loss += losses[i, second.index]
        cost += second.cost
        again += not second.keep
    return loss / N, cost / N, again / N


def test_a_telling_score_beats_routing_alone_and_an_empty_one_is_not_used() -> None:
    for gap, better in ((3.0, True), (0.0, False)):
        router, losses, scores = simulated(gap)
        cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
        weight = 0.03
        loss, cost, again = outcome(cascade, losses, scores, weight)
        alone = router.route_batch(TEXTS, weight)
        before = losses[np.arange(N), alone.index].mean() + weight * alone.cost.mean()
        assert bool(loss + weight * cost < before - 0.02) is better
        assert loss + weight * cost < before + 0.005
        assert bool(0.2 < again < 0.8) is better


def test_only_the_order_of_scores_counts() -> None:
    router, losses, scores = simulated(2.0)
    one = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    two = uf.Cascade.fit(router, TEXTS, {"small": np.exp(-scores)}, losses)
    for i in range(40):
        first, other = one.first(TEXTS[i], 0.03), two.first(TEXTS[i], 0.03)
        assert first.expected_cost == pytest.approx(other.expected_cost)
        kept = one.second(first, scores[i])
        assert kept.model == two.second(other, float(np.exp(-scores[i]))).model
        if kept.threshold is not None and not first.final:
            assert kept.keep == (scores[i] >= kept.threshold)


def test_the_second_decision_is_the_rule_of_routing_given_the_score() -> None:
    router, losses, scores = simulated(2.0)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    model = cascade._scores["small"]
    prompts = Predicted.of(router.snapshot(), TEXTS)
    given = model.losses(prompts.losses, 0, model.rank(scores))
    for weight in (0.0, 0.01, 0.05, 1.0):
        batch = cascade.decide_second(prompts, weight, "small", scores)
        for i in range(0, N, 7):
            # What was paid for the first answer is gone either way.
            objective = given[i] + weight * router.costs * [0, 1, 1]
            assert batch[i] == objective.argmin()
            first = cascade.first(TEXTS[i], weight)
            if not first.final:
                second = cascade.second(first, scores[i])
                assert second.index == batch[i]
                assert second.cost == 1.0 + (0 if second.keep else router.costs[second.index])
                assert second.predicted_loss == pytest.approx(given[i, second.index])


def test_a_score_says_what_it_said_on_the_labelled_prompts() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    predicted = rng.uniform(0.1, 0.9, (n, 2))
    hard = rng.normal(size=n)
    chance = 1 / (1 + np.exp(-(np.log(predicted / (1 - predicted)) + hard[:, None] * [1.5, 0.5])))
    losses = (rng.random((n, 2)) < chance).astype(float)
    model = ScoreModel.fit(-hard, predicted, losses, 0)
    given = model.losses(predicted, 0, model.rank(-hard))
    for m in range(2):
        for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
            rows = (given[:, m] >= low) & (given[:, m] < high)
            assert abs(given[rows, m].mean() - losses[rows, m].mean()) < 0.03
    # The other LLM's loss is known better with the score than without.
    sharper = np.mean((given[:, 1] - losses[:, 1]) ** 2)
    assert sharper < np.mean((predicted[:, 1] - losses[:, 1]) ** 2) - 0.005


def test_it_follows_the_pool() -> None:
    router, losses, scores = simulated(3.0)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    first = cascade.first(TEXTS[0], 0.03)
    assert first.model == "small"
    assert not first.final
    router.add_model("new", cost=2.0, texts=TEXTS, losses=0.5 * losses[:, 1])
    asked = cascade.second(cascade.first(TEXTS[0], 0.03), scores.min() - 1)
    assert asked.model == "new"
    # The first decision goes on with the pool that it was made over.
    assert cascade.second(first, scores.min() - 1).model == "large"
    router.disable_model("small")
    assert cascade.first(TEXTS[0], 0.03).final
    router.remove_model("small")
    final = cascade.first(TEXTS[0], 0.03)
    assert final.model == router.route(TEXTS[0], 0.03).model
    assert cascade.second(final, 0.0).keep
    x = router.embedder.embed(TEXTS[:1])
    assert cascade.first(embeddings=x[0]).model == cascade.first(TEXTS[0]).model


def test_bad_arguments_are_refused() -> None:
    router, losses, scores = simulated(1.0)
    fit = uf.Cascade.fit
    for match, call in {
        "none of them|UnknownModel|no model": lambda: fit(router, TEXTS, {"zz": scores}, losses),
        "columns": lambda: fit(router, TEXTS, {"small": scores}, losses[:, :2]),
        "shape": lambda: fit(router, TEXTS, {"small": scores[:5]}, losses),
        "scores: of 0": lambda: fit(router, TEXTS, {}, losses),
        "19 prompts": lambda: fit(
            router, TEXTS, {"small": np.where(np.arange(N) < 19, scores, np.nan)}, losses
        ),
        "cannot be embedded": lambda: fit(router, TEXTS, {"small": scores}, losses).first(""),
        "score: nan": lambda: fit(router, TEXTS, {"small": scores}, losses).second(
            fit(router, TEXTS, {"small": scores}, losses).first(TEXTS[0]), float("nan")
        ),
    }.items():
        with pytest.raises(errors.UniRouteError, match=match):
            call()


def test_ties_go_to_the_lower_cost() -> None:
    router = uf.Router.fit(TEXTS, n_clusters=2)
    wrong = np.random.default_rng(0).random(N) < 0.4
    losses = np.column_stack([wrong, 0.2 * wrong, 0.2 * wrong])
    router.add_models(["small", "dear", "cheap"], [0.1, 9.0, 1.0], TEXTS, losses)
    scores = np.where(wrong, 0.2, 0.9)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    assert cascade.second(cascade.first(TEXTS[0], 0.0), 0.2).model == "cheap"
    router.disable_model("small")
    first = cascade.first(TEXTS[0], 0.0)
    assert first.final
    assert first.model == router.route(TEXTS[0], 0.0).model == "cheap"


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "1", None, [1.0], 1j])
def test_a_cost_weight_that_is_none_is_refused(value: object) -> None:
    router, losses, scores = simulated(1.0)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    with pytest.raises(errors.UniRouteError, match="cost_weight: "):
        cascade.first(TEXTS[0], value)
    if value != -1:
        with pytest.raises(errors.UniRouteError, match="score: "):
            cascade.second(cascade.first(TEXTS[0], 0.1), value)
    with pytest.raises(errors.ArgumentTypeError, match="first: "):
        cascade.second(value, 0.5)


def test_scores_and_tokens_of_a_wrong_type_are_refused() -> None:
    router, losses, scores = simulated(1.0)
    for bad in (None, [("small", scores)], {3: scores}, {"small": ["high"] * N}):
        with pytest.raises(errors.ArgumentTypeError, match="scores"):
            uf.Cascade.fit(router, TEXTS, bad, losses)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    with pytest.raises(errors.ArgumentTypeError, match="tokens: "):
        cascade.first(TEXTS[0], tokens=[3])


def test_costs_of_a_cascade_are_those_of_the_prompt_at_hand() -> None:
    router, losses, scores = simulated(2.0)
    for name, price in {"small": 1.0, "large": 6.0, "huge": 20.0}.items():
        router.set_metadata(name, input_price=price, output_price=2 * price)
    answers = np.full((N, 3), 300.0)
    router.fit_tokens(TEXTS, answers)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": scores}, losses)
    weight = 60.0
    for text in (TEXTS[0], "what is 3 + 4 " * 2000):
        cost = router.predict_cost([text])[0]
        first = cascade.first(text, weight)
        assert first.cost == cost[first.index]
        second = cascade.second(first, scores.min())
        asked = 0.0 if second.keep else cost[second.index]
        assert second.cost == pytest.approx(first.cost + asked)
    # Long prompts cost more, and are worth less of it.
    short, long = (cascade.first(TEXTS[0], weight, tokens=n) for n in (1, 10**6))
    assert long.cost > 100 * short.cost
    x = router.embedder.embed(TEXTS[:1])
    by_text, by_embedding = (
        cascade.first(TEXTS[0], weight, tokens=7),
        cascade.first(None, weight, embeddings=x, tokens=7),
    )
    assert (by_text.model, by_text.cost) == (by_embedding.model, by_embedding.cost)
    with pytest.raises(errors.InvalidArgumentError, match="tokens"):
        cascade.first(None, weight, embeddings=x)
