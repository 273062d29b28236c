"""Budgets over streams of prompts."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors

DIM, CLUSTERS, MODELS = 4, 12, 8


def build() -> uf.Router:
    rng = np.random.default_rng(0)
    router = uf.Router(None, [("nearest", rng.normal(size=(CLUSTERS, DIM)).astype(np.float32))])
    costs = np.geomspace(0.1, 10, MODELS)
    # Dearer is better, more so in some clusters.
    losses = 0.6 - rng.random((CLUSTERS, 1)) * np.linspace(0, 0.5, MODELS)
    router.insert([f"m{i}" for i in range(MODELS)], costs, losses.astype(np.float32))
    return router


def stream(n: int, seed: int = 1) -> np.ndarray:
    """Prompts whose mix shifts half-way."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, DIM))
    x[: n // 2, 0] += 1.5
    x[n // 2 :, 1] -= 1.5
    return x.astype(np.float32)


@pytest.mark.parametrize("start", [0.001, 0.05, 3.0])
@pytest.mark.parametrize("mean", [0.5, 2.0])
def test_a_budget_is_spent_and_not_exceeded_wherever_it_starts(start: float, mean: float) -> None:
    router, x = build(), stream(4000)
    pacer = uf.BudgetPacer(4000 * mean, cost_weight=start, requests=4000, reserve=0.1)
    total = sum(pacer.route(router, embeddings=row).cost for row in x)
    assert total == pytest.approx(pacer.spent)
    assert 0.98 * 4000 * mean <= total <= 4000 * mean
    assert pacer.count == 4000


def test_quality_is_near_that_of_the_best_fixed_weight_known_afterwards() -> None:
    router, x = build(), stream(4000)
    gamma = router.predict_loss(embeddings=x).astype(np.float64)
    hindsight = router.calibrate(embeddings=x, budget=1500.0, n_bootstrap=1)
    pacer = uf.BudgetPacer(4000 * 1.5, cost_weight=hindsight.cost_weight, requests=4000)
    chosen = [pacer.route(router, embeddings=row).index for row in x]
    assert 1 - gamma[np.arange(4000), chosen].mean() > hindsight.quality - 0.005


def test_the_cap_is_hard_and_what_is_left_buys_the_best_it_can() -> None:
    router = build()
    x = stream(2)[0]
    pacer = uf.BudgetPacer(1.0, cost_weight=1e-9, requests=1)
    costs = []
    while pacer.remaining >= router.costs.min():
        costs.append(pacer.route(router, embeddings=x).cost)
    with pytest.raises(errors.BudgetExhaustedError, match="left"):
        pacer.route(router, embeddings=x)
    assert sum(costs) <= 1.0
    assert pacer.remaining < 0.1
    assert costs[0] == max(c for c in router.costs if c <= 1.0)
    # Constraints hold under the cap as well.
    pacer = uf.BudgetPacer(1.0, cost_weight=1e-9, requests=1)
    cheap = uf.Constraints(max_cost=0.3, deny=["m1"])
    assert pacer.route(router, embeddings=x, constraints=cheap).cost == router.costs[0]
    pacer.renew(5.0)
    assert (pacer.spent, pacer.count, pacer.remaining) == (0.0, 0, 5.0)


def test_a_conversation_keeps_its_model_unless_that_does_not_pay() -> None:
    router, [x] = build(), stream(1)
    weight = 0.05
    free = router.route(embeddings=x, cost_weight=weight)
    second = free.alternatives[0]
    lost = second.objective - free.predicted_loss - weight * free.cost
    for share, stays in ((0.99, False), (1.01, True)):
        pacer = uf.BudgetPacer(1e3, cost_weight=weight, requests=100)
        switch_cost = share * lost / weight
        taken = pacer.route(router, embeddings=x, current_model=second.model, switch_cost=1e9)
        assert (taken.model, taken.stayed) == (second.model, True)
        assert pacer.spent == second.cost
        pacer = uf.BudgetPacer(1e3, cost_weight=weight, requests=100)
        taken = pacer.route(
            router, embeddings=x, current_model=second.model, switch_cost=switch_cost
        )
        assert taken.stayed == stays
        assert taken.model == (second.model if stays else free.model)
    # A model that is no longer paid for is left, whatever that costs.
    poor = uf.BudgetPacer(second.cost / 2, cost_weight=weight, requests=100)
    taken = poor.route(router, embeddings=x, current_model=second.model, switch_cost=1e9)
    assert taken.cost <= second.cost / 2
    for bad, named in (
        ({"current_model": "m0"}, "switch_cost"),
        ({"current_model": "m0", "switch_cost": -1.0}, "switch_cost"),
        ({"current_model": "m0", "switch_cost": float("nan")}, "switch_cost"),
        ({"current_model": "m0", "switch_cost": 1.0, "cached_tokens": 5}, "cached_tokens"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=named):
            pacer.route(router, embeddings=x, **bad)
    assert pacer.count == 1


def test_a_burst_is_made_up_for() -> None:
    router, x = build(), stream(3000)
    pacer = uf.BudgetPacer(3000.0, cost_weight=0.05, requests=3000, reserve=0.1)
    for i, row in enumerate(x[:2900]):
        if i == 1000:
            for _ in range(100):
                pacer.spend(5.0)
            assert pacer.cost_weight > 0.05
        pacer.route(router, embeddings=row)
    assert 0.98 * 3000 <= pacer.spent <= 3000


def test_time_paces_where_the_period_is_given_in_seconds() -> None:
    now = [100.0]
    router, x = build(), stream(5000)
    rng = np.random.default_rng(3)
    pacer = uf.BudgetPacer(3000.0, cost_weight=0.05, seconds=600.0, clock=lambda: now[0])
    for row in x:
        # Twice as dense in the second half.
        now[0] += rng.exponential(0.2 if now[0] < 400 else 0.1)
        if now[0] >= 700:
            break
        pacer.route(router, embeddings=row)
    assert 0.96 * 3000 <= pacer.spent <= 3000


def test_booked_costs_are_corrected_when_the_true_ones_are_known() -> None:
    pacer = uf.BudgetPacer(10.0, cost_weight=1.0, requests=10)
    pacer.spend(2.0)
    pacer.settle(2.0, 1.5)
    assert pacer.spent == 1.5
    assert pacer.count == 1


def test_threads_share_a_budget_without_exceeding_it() -> None:
    router, x = build(), stream(1200)
    pacer = uf.BudgetPacer(500.0, cost_weight=0.05, requests=1200, reserve=0.1)
    costs: list[float] = []

    def work(part: np.ndarray) -> None:
        costs.extend(pacer.route(router, embeddings=row).cost for row in part)

    threads = [threading.Thread(target=work, args=(part,)) for part in np.array_split(x, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(costs) == 1200
    assert sum(costs) == pytest.approx(pacer.spent)
    assert 0.97 * 500 <= sum(costs) <= 500


def test_saved_state_goes_on_where_it_was() -> None:
    router, x = build(), stream(200)
    one = uf.BudgetPacer(100.0, cost_weight=0.05, requests=200, reserve=0.1)
    for row in x[:100]:
        one.route(router, embeddings=row)
    two = uf.BudgetPacer.from_state(json.loads(json.dumps(one.state())))
    for row in x[100:]:
        first, second = (p.route(router, embeddings=row) for p in (one, two))
        assert first.model == second.model
    assert one.state() == two.state()


def test_bad_numbers_are_refused() -> None:
    good = {"budget": 1.0, "cost_weight": 1.0, "requests": 5}
    for name, change in {
        "budget": {"budget": 0},
        "cost_weight": {"cost_weight": -1},
        "requests": {"requests": 0},
        "seconds": {"seconds": float("nan"), "requests": None},
        "gain": {"gain": 2},
        "reserve": {"reserve": -1},
        "exactly one": {"seconds": 5},
        "requests, seconds": {"requests": None},
    }.items():
        with pytest.raises(errors.InvalidArgumentError, match=name):
            uf.BudgetPacer(**{**good, **change})
    pacer = uf.BudgetPacer(**good)
    for call in (
        lambda: pacer.spend(-1),
        lambda: pacer.settle(1, float("inf")),
        lambda: pacer.renew(-5),
        lambda: uf.BudgetPacer.from_state({"budget": 1}),
    ):
        with pytest.raises(errors.InvalidArgumentError):
            call()
    assert pacer.spent == 0


def shifted(n: int) -> np.ndarray:
    """Cheap-to-please prompts first, dear ones later: what a unit buys differs."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, DIM)).astype(np.float32)
    return x[np.argsort(x[:, 0] + rng.normal(size=n) * 0.3)]


def test_a_plan_saves_for_prompts_that_are_worth_more() -> None:
    router, x = build(), shifted(4000)
    gamma = router.predict_loss(embeddings=x).astype(np.float64)
    hindsight = router.calibrate(embeddings=x, budget=1500.0, n_bootstrap=1)
    plan = uf.SpendingPlan.of(
        router, embeddings=shifted(3000)[np.random.default_rng(1).permutation(3000)]
    )
    lost = {}
    for name, begin in {
        "planned": {"plan": plan},
        "even": {"cost_weight": hindsight.cost_weight},
    }.items():
        pacer = uf.BudgetPacer(4000 * 1.5, requests=4000, reserve=0.1, **begin)
        chosen = [pacer.route(router, embeddings=row).index for row in x]
        assert 0.98 * 6000 <= pacer.spent <= 6000
        lost[name] = hindsight.quality - (1 - gamma[np.arange(4000), chosen].mean())
    assert lost["planned"] < 0.003
    assert lost["planned"] < lost["even"] / 2


def test_a_plan_that_is_wrong_still_holds_the_budget() -> None:
    router = build()
    x = shifted(4000)
    plan = uf.SpendingPlan.of(router, embeddings=x[:400])
    for rows in (x[-2000:], np.repeat(x[3000:3001], 2000, axis=0)):
        pacer = uf.BudgetPacer(3000.0, plan=plan, requests=2000, reserve=0.1)
        for row in rows:
            pacer.route(router, embeddings=row)
        assert pacer.spent <= 3000
        assert pacer.spent >= 0.9 * 3000 or pacer.cost_weight <= plan.cost_weights[1]


def test_prompts_of_a_plan_are_no_traffic() -> None:
    texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    router = uf.Router.fit(texts, n_clusters=2)
    router.insert(["a", "b"], [1.0, 2.0], [[0.5, 0.4], [0.5, 0.1]])
    uf.SpendingPlan.of(router, texts)
    assert router.drift().prompts == 0


def test_a_state_is_what_was_saved() -> None:
    state = uf.BudgetPacer(10.0, cost_weight=0.1, requests=5).state()
    assert uf.BudgetPacer.from_state(state).state() == state
    for name, values in {
        "spent": (-1e9, None, "x", float("nan")),
        "count": (-1, 1.5, None),
        "next_solution": ("x",),
        "log_price": (None, float("inf")),
        "interval": (-1.0, "x"),
    }.items():
        for value in values:
            with pytest.raises(errors.UniRouteError, match=f"state: {name}: .*; expected "):
                uf.BudgetPacer.from_state(state | {name: value})


def test_a_plan_knows_what_its_prompts_cost() -> None:
    router, x = build(), shifted(2000)
    plan = uf.SpendingPlan.of(router, embeddings=x)
    assert plan.shares.sum() == pytest.approx(1)
    assert (np.diff(plan.cost_weights) > 0).all()
    for mean in (0.3, 1.0, 4.0):
        cost = router.route_batch(embeddings=x, cost_weight=plan.price(plan.shares, mean)).cost
        assert cost.mean() == pytest.approx(mean, rel=0.05)
    assert plan.price(plan.shares, 0.0) == plan.cost_weights[-1]
    assert plan.price(plan.shares, 1e9) == plan.cost_weights[0]
    again = uf.SpendingPlan.from_state(json.loads(json.dumps(plan.state())))
    assert (again.costs == plan.costs).all()
    with pytest.raises(errors.InvalidArgumentError, match="mix: 1 values"):
        plan.price(plan.shares[:1], 1.0)


def test_a_planned_pacer_goes_on_from_its_state_and_renews() -> None:
    router, x = build(), shifted(400)
    plan = uf.SpendingPlan.of(router, embeddings=x)
    one = uf.BudgetPacer(400.0, plan=plan, requests=400, reserve=0.1)
    begun = one.cost_weight
    for row in x[:200]:
        one.route(router, embeddings=row)
    two = uf.BudgetPacer.from_state(json.loads(json.dumps(one.state())))
    for row in x[200:]:
        first, second = (p.route(router, embeddings=row) for p in (one, two))
        assert first.model == second.model
    assert one.state() == two.state()
    one.renew()
    assert one.spent == 0
    assert one.cost_weight == pytest.approx(begun, rel=0.5)


def test_a_plan_paces_over_time_too() -> None:
    now = [0.0]
    router, x = build(), shifted(3000)
    plan = uf.SpendingPlan.of(router, embeddings=x)
    pacer = uf.BudgetPacer(
        3000.0, plan=plan, cost_weight=0.05, seconds=300.0, reserve=0.1, clock=lambda: now[0]
    )
    for row in x:
        now[0] += 0.1
        pacer.route(router, embeddings=row)
    assert 0.97 * 3000 <= pacer.spent <= 3000
    pacer.spend(0.0)  # of unknown cluster


def test_a_plan_needs_numbers_that_fit() -> None:
    router = build()
    plan = uf.SpendingPlan.of(router, embeddings=shifted(50))
    with pytest.raises(errors.InvalidArgumentError, match="cost_weight: missing"):
        uf.BudgetPacer(1.0, requests=5)
    with pytest.raises(errors.InvalidArgumentError, match="cost_weight: missing"):
        uf.BudgetPacer(1.0, seconds=5, plan=plan)
    with pytest.raises(errors.InvalidArgumentError, match="trust"):
        uf.BudgetPacer(1.0, requests=5, plan=plan, trust=1.5)
    for broken in ({}, plan.state() | {"shares": [1.0]}, plan.state() | {"costs": "no"}):
        with pytest.raises(errors.InvalidArgumentError, match="plan"):
            uf.SpendingPlan.from_state(broken)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_in_the_middle_of_a_booking_does_not_stop_the_child() -> None:
    script = """
import os, signal, threading, time
import uniroute_fast as uf
pacer = uf.BudgetPacer(10.0, cost_weight=1.0, requests=10)
def book():
    while True:
        pacer.spend(1e-9)
for _ in range(3):
    threading.Thread(target=book, daemon=True).start()
time.sleep(0.1)
codes = []
for _ in range(50):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for ever is one that failed
        before = pacer.spent
        spender = threading.Thread(target=pacer.spend, args=(1.0,))
        spender.start()
        spender.join()
        os._exit(0 if pacer.spent >= before + 1.0 else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert not any(codes), codes
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


class Written:
    """The pacer as it is written down: by the formulas, without a plan."""

    def __init__(self, budget: float, weight: float, reserve: float, gain: float, **length: float):
        self.budget, self.weight, self.reserve, self.gain = budget, weight, reserve, gain
        self.length, self.log_price, self.spent, self.count = length, 0.0, 0.0, 0
        self.started = self.latest = 0.0
        self.interval: float | None = None

    def to_come(self) -> float:
        if "requests" in self.length:
            return self.length["requests"] - self.count
        left = max(self.length["seconds"] - (self.latest - self.started), 0.0)
        return left / self.interval if self.interval else 1.0

    def book(self, cost: float, now: float) -> bool:
        left = max(self.budget - self.spent, 0.0)
        kept = self.reserve * max(self.to_come() - 1, 0.0)
        if cost > max(left - kept, min(left, self.reserve)):
            return False
        if "seconds" in self.length:
            since, self.latest = max(now - self.latest, 0.0), now
            before = since if self.interval is None else self.interval
            self.interval = before + max(0.01, 1 / (self.count + 1)) * (since - before)
        share = left / max(self.to_come(), 1.0)
        self.spent, self.count = self.spent + cost, self.count + 1
        step = self.gain * (cost / share - 1) if share > 0 else math.inf
        self.log_price += min(max(step, -0.5), 0.5)
        self.log_price = min(max(self.log_price, -math.log(1e3)), math.log(1e3))
        return True


@pytest.mark.parametrize("length", [{"requests": 300}, {"seconds": 100.0}])
@pytest.mark.parametrize("seed", range(5))
def test_the_price_is_the_one_of_the_formulas(length: dict[str, float], seed: int) -> None:
    rng, now = np.random.default_rng(seed), [0.0]
    terms = {"reserve": float(rng.choice([0.0, 0.05])), "gain": float(rng.uniform(0.01, 1))}
    budget = float(rng.uniform(5, 300))
    pacer = uf.BudgetPacer(budget, cost_weight=0.3, clock=lambda: now[0], **length, **terms)
    written = Written(budget, 0.3, **length, **terms)
    for _ in range(400):
        now[0] += rng.exponential(0.3)
        cost = float(rng.choice([0.05, 0.5, 2.0]) * rng.random())
        assert pacer._pacer.book(cost, 0, now[0]) == written.book(cost, now[0])
        assert pacer.spent == written.spent
        assert pacer.cost_weight == pytest.approx(0.3 * math.exp(written.log_price), rel=1e-12)
