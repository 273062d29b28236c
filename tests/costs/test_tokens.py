"""Costs by the token, and the cost of a switch, against NumPy float64."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast.costs.tokens import fit_usage

DIM, CLUSTERS, MODELS = 4, 6, 300
RNG = np.random.default_rng(0)
TABLE = RNG.gamma(2.0, 200.0, size=(CLUSTERS, MODELS)).astype(np.float32)
SCALE, EXTRA = RNG.uniform(0.8, 1.4, MODELS), RNG.integers(0, 300, MODELS).astype(float)
INPUT, OUTPUT = RNG.lognormal(size=MODELS), RNG.lognormal(1.0, size=MODELS)
COSTS = RNG.lognormal(-7, size=MODELS)
#: Every seventh model has no prices, every eleventh no usage: these keep their one cost.
PRICED = np.arange(MODELS) % 7 > 0
USED = np.arange(MODELS) % 11 > 0
METERED = PRICED & USED


def build(kind: str) -> uf.Router:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(CLUSTERS, DIM)).astype(np.float32)
    head: Any = (
        ("nearest", weights) if kind == "hard" else ("softmax", weights, np.zeros(CLUSTERS), 0.05)
    )
    router = uf.Router(None, [head])
    names = [f"m{i}" for i in range(MODELS)]
    profiles = rng.integers(0, 9, (CLUSTERS, MODELS)) / 8
    router.insert(names, COSTS, profiles)
    some = [names[m] for m in np.flatnonzero(USED)]
    router.set_usage(some, TABLE[:, USED], SCALE[USED], EXTRA[USED])
    for m in np.flatnonzero(PRICED):
        router.set_metadata(names[m], input_price=INPUT[m], output_price=OUTPUT[m])
    for name in names[::17]:
        router.disable_model(name)
    return router


ROUTERS = {kind: build(kind) for kind in ("hard", "soft")}


def expected_costs(router: uf.Router, x: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """By the definition, in the arithmetic that is promised."""
    answers = np.zeros((len(x), MODELS), np.float32)
    # Sums over clusters in order, each product rounded to float32 before it is added.
    for weight, row in zip(router.phi(embeddings=x).T, TABLE, strict=True):
        answers += weight[:, None] * row
    rate_in = np.where(METERED, INPUT / 1e6 * SCALE, 0.0)
    rate_out = np.where(METERED, OUTPUT / 1e6, 0.0)
    base = np.where(METERED, INPUT / 1e6 * EXTRA, COSTS)
    return (rate_in * tokens[:, None] + rate_out * answers.astype(np.float64)) + base


def best(objective: np.ndarray, costs: np.ndarray, allowed: np.ndarray) -> int:
    order = np.lexsort((np.arange(MODELS), costs, np.where(allowed, objective, np.inf)))
    return int(order[0]) if allowed.any() else -1


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["hard", "soft"]),
    seed=st.integers(0, 2**20),
    weight=st.sampled_from([0.0, 0.5, 20.0, 300.0, 1e6]),
    cap=st.sampled_from([None, 1e-4, 1e-3, 1e-9]),
)
def test_decisions_are_those_of_the_rule_over_metered_costs(
    kind: str, seed: int, weight: float, cap: float | None
) -> None:
    router = ROUTERS[kind]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, DIM)).astype(np.float32)
    tokens = rng.integers(0, 5000, 5)
    costs = expected_costs(router, x, tokens)
    np.testing.assert_array_equal(router.predict_cost(embeddings=x, tokens=tokens), costs)
    gamma = router.predict_loss(embeddings=x).astype(np.float64)
    objective = gamma + weight * costs
    allowed = router.enabled & (costs <= (np.inf if cap is None else cap))
    constraints = None if cap is None else uf.Constraints(max_cost=cap)
    batch = router.route_batch(
        embeddings=x, cost_weight=weight, tokens=tokens, constraints=constraints
    )
    for i in range(len(x)):
        expected = best(objective[i], costs[i], allowed[i])
        if expected < 0:
            assert batch.status[i] == "no_candidate"
            with pytest.raises(errors.NoCandidateError, match=f"max_cost {MODELS}"):
                router.route(
                    embeddings=x[i], cost_weight=weight, tokens=tokens[i], constraints=constraints
                )
            continue
        one = router.route(
            embeddings=x[i], cost_weight=weight, tokens=tokens[i], constraints=constraints
        )
        assert one.index == batch.index[i] == expected
        assert one.cost == batch.cost[i] == costs[i, expected]
        others = one.alternatives
        assert {o.index for o in others} | {expected} == set(np.flatnonzero(allowed[i]))
        assert [o.cost for o in others] == [costs[i, o.index] for o in others]
        assert sorted(o.objective for o in others) == [o.objective for o in others]
        assert {e.index for e in one.excluded} == set(np.flatnonzero(~allowed[i]))
        for e in one.excluded:
            over = cap is not None and costs[i, e.index] > cap
            assert any(reason.startswith("max_cost") for reason in e.reasons) == over


PRICE = st.sampled_from([0.0, 5e-324, 1.0, 1e30])
COUNT = st.sampled_from([0.0, 1.0, 1e15])


@settings(max_examples=100, deadline=None)
@given(
    soft=st.booleans(),
    models=st.lists(st.tuples(PRICE, PRICE, COUNT, COUNT, COUNT, st.integers(0, 4)), min_size=1),
    weight=st.sampled_from([0.0, 5e-324, 1e-30, 1.0, 1e240, 1.7e308]),
    tokens=st.sampled_from([0, 1, 2**64 - 1]),
)
def test_no_cost_overflows_and_one_that_weighs_too_much_loses(
    soft: bool, models: list[tuple[float, ...]], weight: float, tokens: int
) -> None:
    into, out, answer, scale, extra, loss = np.array(models).T
    weights = np.eye(2, dtype=np.float32)
    head: Any = ("softmax", weights, np.zeros(2), 0.0) if soft else ("nearest", weights)
    router = uf.Router(None, [head])
    names = [f"m{i}" for i in range(len(models))]
    router.insert(
        names,
        np.zeros(len(models)),
        np.tile(loss / 4, (2, 1)),
        prices=(into, out),
        usage=(np.tile(answer, (2, 1)), scale, extra),
    )
    x = np.array([[1.0, 0.5]], np.float32)
    [costs] = router.predict_cost(embeddings=x, tokens=tokens)
    assert np.isfinite(costs).all()
    expected = (into / 1e6 * scale * float(tokens) + out / 1e6 * answer) + into / 1e6 * extra
    np.testing.assert_allclose(costs, expected, rtol=1e-6, atol=1e-300)
    [gamma] = router.predict_loss(embeddings=x)
    with np.errstate(over="ignore"):
        objective = gamma.astype(np.float64) + weight * costs
    order = np.lexsort((np.arange(len(costs)), costs, objective))
    decision = router.route(embeddings=x, cost_weight=weight, tokens=tokens)
    batch = router.route_batch(embeddings=x, cost_weight=weight, tokens=[tokens])
    assert decision.index == batch.index[0] == order[0]
    assert [other.index for other in decision.alternatives] == list(order[1:])
    if weight == 0:
        assert decision.predicted_loss == gamma.min()


def test_prices_and_numbers_of_tokens_beyond_all_bounds_are_refused() -> None:
    router = build("hard")
    for price in (1e31, np.inf, np.nan, -1.0):
        for field in ("input_price", "output_price", "cached_input_price"):
            with pytest.raises(errors.InvalidArgumentError, match=f"{field}: .* 0 to 1e30"):
                router.set_metadata("m0", **{field: price})
        with pytest.raises(errors.InvalidArgumentError, match=r"input_prices: .* at index 0"):
            router.insert(["x"], [1.0], np.zeros((CLUSTERS, 1)), prices=([price], [1.0]))
    for count in (1e16, np.inf, -1.0):
        for parts in (([count], 1.0, 1.0), ([1.0], count, 1.0), ([1.0], 1.0, count)):
            output = np.tile(parts[0], (CLUSTERS, 1))
            with pytest.raises(errors.InvalidArgumentError, match="0 to 1e15"):
                router.set_usage(["m0"], output, [parts[1]], [parts[2]])
    with pytest.raises(errors.InvalidArgumentError, match=r"tokens: 10+ at index 0"):
        router.route_batch(embeddings=np.zeros((1, DIM)), tokens=[1e300])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["hard", "soft", "constant"]),
    seed=st.integers(0, 2**20),
    weight=st.sampled_from([0.0, 5.0, 300.0]),
    switch=st.sampled_from([0.0, 1e-5, 1e-3, 1.0]),
)
def test_a_conversation_is_left_only_where_that_pays(
    kind: str, seed: int, weight: float, switch: float
) -> None:
    router = CONSTANT if kind == "constant" else ROUTERS[kind]
    rng = np.random.default_rng(seed)
    x, tokens = rng.normal(size=(1, DIM)).astype(np.float32), int(rng.integers(0, 2000))
    current = int(rng.integers(MODELS))
    costs = router.predict_cost(embeddings=x, tokens=tokens)[0]
    objective = router.predict_loss(embeddings=x)[0].astype(np.float64) + weight * costs
    winner = best(objective, costs, router.enabled)
    stays = bool(router.enabled[current]) and (
        objective[current] <= objective[winner] + weight * switch
    )
    asked: dict[str, Any] = {"embeddings": x, "cost_weight": weight, "tokens": tokens}
    decision = router.route(**asked, current_model=f"m{current}", switch_cost=switch)
    assert decision.index == (current if stays else winner)
    assert decision.stayed == (stays and current != winner)
    batch = router.route_batch(
        **asked, current_model=[f"m{current}"], switch_cost=np.array([switch])
    )
    assert batch.index[0] == decision.index
    assert batch.stayed[0] == decision.stayed


def constant() -> uf.Router:
    router = uf.Router(None, [("nearest", np.eye(CLUSTERS, DIM, dtype=np.float32))])
    rng = np.random.default_rng(3)
    names = [f"m{i}" for i in range(MODELS)]
    router.insert(names, rng.random(MODELS), rng.random((CLUSTERS, MODELS)))
    return router


CONSTANT = constant()


def test_the_value_of_a_cache_is_what_its_tokens_save() -> None:
    router = uf.Router(None, [("nearest", np.eye(2, dtype=np.float32))])
    router.insert(["old", "new"], [0.0, 0.0], [[0.5, 0.4], [0.5, 0.4]])
    x = np.eye(2, dtype=np.float32)[0]
    ask: dict[str, Any] = {"embeddings": x, "current_model": "old", "cost_weight": 100.0}
    # Without an input price a call costs the same whatever its tokens: nothing is lost.
    assert router.route(**ask, cached_tokens=10**9).model == "new"
    assert router.route_batch(
        embeddings=x[None], cost_weight=100.0, current_model=["old"], cached_tokens=[10**9]
    ).models == ["new"]
    router.set_metadata("old", input_price=3.0, cached_input_price=0.3)
    # 100 x n x 2.7e-6 against a difference of 0.1: 370.4 tokens.
    assert router.route(**ask, cached_tokens=370).model == "new"
    assert router.route(**ask, cached_tokens=371).model == "old"
    batch = router.route_batch(
        embeddings=np.stack([x] * 4),
        cost_weight=100.0,
        current_model=["old", "old", None, "gone"],
        cached_tokens=[370, 371, 9999, 9999],
    )
    assert batch.models == ["new", "old", "new", "new"]
    assert batch.stayed.tolist() == [False, True, False, False]


def test_a_model_that_is_gone_or_excluded_is_left_at_no_cost() -> None:
    x = np.zeros(DIM, np.float32)
    free = CONSTANT.route(embeddings=x)
    for name in ("gone", free.alternatives[0].model):
        decision = CONSTANT.route(
            embeddings=x,
            current_model=name,
            switch_cost=1e9,
            constraints=uf.Constraints(deny=[free.alternatives[0].model]),
        )
        assert (decision.model, decision.stayed) == (free.model, False)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_saved_router_charges_the_same(kind: str, tmp_path: Path) -> None:
    router = ROUTERS[kind]
    x = np.random.default_rng(4).normal(size=(20, DIM)).astype(np.float32)
    router.save(tmp_path / "pool.uniroute")
    copies = [uf.Router.load(tmp_path / "pool.uniroute"), pickle.loads(pickle.dumps(router))]
    for again in copies:
        np.testing.assert_array_equal(again.metered, METERED)
        np.testing.assert_array_equal(
            again.predict_cost(embeddings=x, tokens=77),
            router.predict_cost(embeddings=x, tokens=77),
        )
        assert again.info("m1").output_tokens == router.info("m1").output_tokens


def test_changes_of_the_pool_keep_charges_right() -> None:
    router = build("soft")
    x = np.random.default_rng(5).normal(size=(3, DIM)).astype(np.float32)

    def costs(name: str) -> np.ndarray:
        at = router.models.index(name)
        return router.predict_cost(embeddings=x, tokens=100)[:, at]

    before = costs("m5")
    router.remove_model("m2")
    np.testing.assert_array_equal(costs("m5"), before)
    router.set_cost("m5", 9.0)  # it is charged by the token
    np.testing.assert_array_equal(costs("m5"), before)
    router.set_metadata("m5", input_price=None)
    np.testing.assert_array_equal(costs("m5"), 9.0)
    router.set_metadata("m5", input_price=INPUT[5], output_price=0.0)
    expected = INPUT[5] / 1e6 * SCALE[5] * 100 + INPUT[5] / 1e6 * EXTRA[5]
    np.testing.assert_allclose(costs("m5"), expected, rtol=1e-15)
    router.insert(["late"], [0.25], np.zeros((CLUSTERS, 1)))
    np.testing.assert_array_equal(costs("late"), 0.25)
    assert not router.info("late").metered
    assert router.info("late").output_tokens is None
    assert [c.action for c in router.changes()][-1] == "add"


def test_a_prompt_of_unknown_length_is_refused_where_length_costs() -> None:
    x = np.zeros((2, DIM), np.float32)
    for call in (
        lambda: ROUTERS["hard"].route(embeddings=x[0]),
        lambda: ROUTERS["soft"].route_batch(embeddings=x),
        lambda: ROUTERS["hard"].predict_cost(embeddings=x),
        lambda: ROUTERS["hard"].calibrate(embeddings=x, budget=1.0),
    ):
        with pytest.raises(errors.InvalidArgumentError, match="tokens: not given"):
            call()
    assert CONSTANT.predict_cost(embeddings=x).shape == (2, MODELS)


BAD: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("tokens", {"tokens": -1}, errors.InvalidArgumentError),
    ("tokens", {"tokens": 2.5}, errors.ArgumentTypeError),
    ("tokens", {"tokens": True}, errors.ArgumentTypeError),
    ("tokens", {"tokens": "many"}, errors.ArgumentTypeError),
    ("fallback", {"fallback": 3}, errors.ArgumentTypeError),
    ("fallback", {"fallback": "nobody"}, errors.UnknownModelError),
    ("constraints", {"constraints": {"deny": ["m1"]}}, errors.ArgumentTypeError),
    ("cost_weight", {"cost_weight": True}, errors.ArgumentTypeError),
    ("cost_weight", {"cost_weight": np.True_}, errors.ArgumentTypeError),
    ("cost_weight", {"cost_weight": -1.0}, errors.InvalidArgumentError),
    ("cost_weight", {"cost_weight": float("nan")}, errors.InvalidArgumentError),
    ("current_model", {"current_model": 3, "switch_cost": 1.0}, errors.ArgumentTypeError),
    ("switch_cost", {"current_model": "m1"}, errors.InvalidArgumentError),
    ("switch_cost", {"current_model": "m1", "switch_cost": -1.0}, errors.InvalidArgumentError),
    ("switch_cost", {"current_model": "m1", "switch_cost": "a"}, errors.ArgumentTypeError),
    (
        "switch_cost",
        {"current_model": "m1", "switch_cost": 1.0, "cached_tokens": 1},
        errors.InvalidArgumentError,
    ),
    ("cached_tokens", {"current_model": "m1", "cached_tokens": -1}, errors.InvalidArgumentError),
]


@pytest.mark.parametrize(("argument", "asked", "error"), BAD)
def test_arguments_that_cannot_be_used_are_named(
    argument: str, asked: dict[str, Any], error: type[Exception]
) -> None:
    x = np.zeros((2, DIM), np.float32)
    for call in (
        lambda: CONSTANT.route(embeddings=x[0], **asked),
        lambda: CONSTANT.snapshot().route_batch(embeddings=x, **asked),
    ):
        with pytest.raises(error, match=f"^{argument}"):
            call()


@pytest.mark.parametrize(
    ("argument", "asked", "error"),
    [
        ("tokens", {"tokens": np.array([3, -4])}, errors.InvalidArgumentError),
        ("tokens", {"tokens": [1.5, 2.0]}, errors.InvalidArgumentError),
        ("tokens", {"tokens": [True, False]}, errors.ArgumentTypeError),
        ("tokens", {"tokens": [1, 2, 3]}, errors.InvalidArgumentError),
        ("cost_weight", {"cost_weight": np.array([True, False])}, errors.ArgumentTypeError),
        (
            "current_model",
            {"current_model": ["m1"], "switch_cost": 1.0},
            errors.InvalidArgumentError,
        ),
        (
            "current_model",
            {"current_model": "m1", "switch_cost": [1.0]},
            errors.InvalidArgumentError,
        ),
    ],
)
def test_arguments_of_a_batch_that_cannot_be_used_are_named(
    argument: str, asked: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"^{argument}"):
        CONSTANT.route_batch(embeddings=np.zeros((2, DIM), np.float32), **asked)


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.insert(["new"], [True], np.zeros((CLUSTERS, 1))),
        lambda r: r.set_cost("m1", True),
        lambda r: r.set_metadata("m1", latency=True),
        lambda r: r.insert(["a\nb"], [1.0], np.zeros((CLUSTERS, 1))),
        lambda r: r.set_usage(["m1"], np.full((CLUSTERS, 1), -1.0), [1.0], [0.0]),
        lambda r: r.set_usage(["m1"], np.ones((CLUSTERS, 2)), [1.0], [0.0]),
        lambda r: r.insert(["new"], [1.0], np.zeros((CLUSTERS, 1)), prices=([-1.0], [1.0])),
    ],
)
def test_a_refused_change_leaves_the_pool_as_it_was(call: Callable[[uf.Router], None]) -> None:
    before = CONSTANT.version
    with pytest.raises(errors.UniRouteError):
        call(CONSTANT)
    assert CONSTANT.version == before


# --- learning from logs ---


def test_expected_tokens_approach_the_clusters_own_means_as_answers_come_in() -> None:
    rng = np.random.default_rng(6)
    truth = np.array([[10.0, 40.0], [300.0, 900.0], [30.0, 30.0]])
    errors_at = []
    for n in (6, 60, 6000):
        which = rng.integers(3, size=n)
        phi = np.eye(3, dtype=np.float32)[which]
        output = rng.poisson(truth[which]).astype(float)
        output[::3, 1] = np.nan
        usage = fit_usage(phi, output)
        errors_at.append(np.abs(usage.output_tokens / truth - 1).max())
    assert errors_at[0] > errors_at[1] > errors_at[2]
    assert errors_at[2] < 0.05


def test_a_new_llm_is_expected_to_talk_where_others_do() -> None:
    phi = np.eye(2, dtype=np.float32)[[0] * 50 + [1] * 50]
    output = np.full((100, 2), np.nan)
    output[:50, 0], output[50:, 0] = 10.0, 90.0
    # Known on two prompts of the first cluster alone: half as long as the other LLM's there.
    output[[0, 1], 1] = 5.0
    usage = fit_usage(phi, output)
    assert usage.output_tokens[1, 1] > 1.5 * usage.output_tokens[0, 1]


def test_input_tokens_are_a_line_with_neither_part_negative() -> None:
    phi = np.ones((4, 1), np.float32)
    tokens = np.array([10.0, 20.0, 30.0, 40.0])
    charged = np.stack([1.5 * tokens + 100, 2 * tokens - 15, np.full(4, 50.0), np.zeros(4)], axis=1)
    usage = fit_usage(phi, np.ones((4, 4)), tokens, charged)
    np.testing.assert_allclose(usage.input_scale, [1.5, 1.4, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(usage.input_extra, [100.0, 0.0, 50.0, 0.0], atol=1e-9)


def fitted() -> tuple[uf.Router, list[str], np.ndarray]:
    texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    router = uf.Router.fit(texts, n_clusters=4)
    return router, texts, np.array([[4.0], [4.0], [80.0], [80.0]] * 10)


def test_llms_may_join_with_prices_and_tokens_in_place_of_costs() -> None:
    router, texts, output = fitted()
    losses = np.zeros((40, 1))
    router.add_models(
        ["a"], None, texts, losses, input_prices=[1.0], output_prices=[10.0], output_tokens=output
    )
    assert router.version == 1
    assert router.info("a").metered
    lengths = np.ceil([len(t) / 4 for t in texts])
    expected = (lengths.mean() * 1.0 + 42.0 * 10.0) / 1e6
    assert router.costs[0] == pytest.approx(expected, rel=0.05)
    sums, rivers = router.route_batch(["2 + 2", "name a river"]).cost
    assert rivers > 3 * sums
    router.add_model("b", cost=1e-4, texts=texts, losses=losses)
    calibration = router.calibrate(texts, budget=1.2 * 1000 * router.costs[0])
    assert calibration.cost <= 1.2 * 1000 * router.costs[0]


@pytest.mark.parametrize(
    ("message", "kwargs"),
    [
        ("costs: None", {"costs": None}),
        ("input_prices, output_prices", {"input_prices": [1.0]}),
        ("output_prices", {"input_prices": [1.0], "output_prices": [-1.0]}),
        ("output_tokens: missing", {"input_tokens": np.ones((40, 1))}),
        ("output_tokens: shape", {"output_tokens": np.ones((3, 1))}),
        ("output_tokens: -1", {"output_tokens": -np.ones((40, 1))}),
        ("output_tokens: 'a' .* no answer", {"output_tokens": np.full((40, 1), np.nan)}),
        ("tokens: NaN", {"output_tokens": np.ones((40, 1)), "tokens": [np.nan] * 40}),
    ],
)
def test_a_log_that_cannot_be_used_is_refused(message: str, kwargs: dict[str, Any]) -> None:
    router, texts, _ = fitted()
    asked = {"costs": [1.0]} | kwargs
    with pytest.raises(errors.InvalidArgumentError, match=f"^{message}"):
        router.add_models(["a"], asked.pop("costs"), texts, np.zeros((40, 1)), **asked)
    assert router.models == []


def test_explain_speaks_of_the_costs_of_the_prompt() -> None:
    router, texts, output = fitted()
    router.add_model("flat", cost=3e-4, texts=texts, losses=np.full(40, 0.3))
    router.add_models(
        ["talker"],
        None,
        texts,
        np.full((40, 1), 0.25),
        input_prices=[1.0],
        output_prices=[10.0],
        output_tokens=output,
    )
    explanation = router.explain("name a river", 100.0)
    chosen = explanation.decision
    assert chosen.cost == router.predict_cost(["name a river"])[0, chosen.index]
    flip = explanation.flip_up or explanation.flip_down
    assert flip is not None
    assert router.route("name a river", flip.cost_weight).model == flip.model
