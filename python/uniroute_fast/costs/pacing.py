"""A budget spread over a stream of prompts as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.instances import as_constraints, as_instance, as_router
from uniroute_fast._checks.locks import Lock
from uniroute_fast._checks.scalars import as_count, as_number
from uniroute_fast._native import Constraints
from uniroute_fast.costs.plan import Forecast, SpendingPlan
from uniroute_fast.errors import (
    ArgumentTypeError,
    BudgetExhaustedError,
    InvalidArgumentError,
    NoCandidateError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from uniroute_fast._native import Decision, Snapshot
    from uniroute_fast.router import Router

#: The price stays within this factor of where it began, so that it can always come back.
REACH = 1e3

#: Largest change of the logarithm of the price after one prompt.
STEP = 0.5

#: A plan is solved again when so small a part of the prompts to come has come.
RESOLUTIONS = 500


class BudgetPacer:
    """Keeps the cost of a stream of prompts to a budget, by moving the cost weight as it flows.

    The cost weight is the budget's *dual price*. With a plan of the period it is, at every moment,
    the one at which the prompts still to come are expected to cost what is left. Without, it rises
    after each prompt that cost more than the budget that is left allows for each prompt to come,
    and falls after one that cost less. What is left is also a hard cap: a prompt never goes to an
    LLM that costs more than that.

    Parameters
    ----------
    budget : float
        For the whole period, in the unit of the costs; above 0.
    cost_weight : float, optional
        Where to begin, above 0: best from `Router.calibrate`. May be left out where a plan and
        `requests` tell.
    plan : SpendingPlan, optional
        What a period like this one costs. Where the mix of prompts changes over the period, it lets
        early prompts spend more than their share if cheaper ones are to come, and less if dearer
        ones are; a pacer without a plan spends evenly, whatever a unit buys.
    requests : int, optional
        Length of the period in prompts.
    seconds : float, optional
        Length of the period in time; the prompts to come are then expected at the rate of late.
        Exactly one of the two must be given.
    reserve : float
        Kept back for each prompt to come, so that the last one can still be paid for: what the
        cheapest LLM costs.
    gain : float
        Without a plan, how fast the price moves, in (0, 1]: a prompt that costs twice its share
        raises it by about this part.
    trust : float
        With a plan, how much it counts for against what came of late, in [0, 1].
    clock : callable
        Seconds, for `seconds`; default `time.time`, so that saved state holds across processes.

    Raises
    ------
    InvalidArgumentError
        A number out of range, not exactly one length, or nowhere to begin.

    Notes
    -----
    Without a plan: online mirror descent on the dual of the budget constraint (Balseiro, Lu and
    Mirrokni, "The Best of Many Worlds", 2023), against what is left, so that bursts are made up
    for. With one: the forecast of what is to come is solved again for every 500th part of it, as
    in Jasin and Kumar, "A Re-Solving Heuristic with Bounded Revenue Loss", 2012. All methods may be
    called from many threads; each takes a lock for a few additions, and for O(K G) where the
    plan is solved again.

    Examples
    --------
    >>> import numpy as np, uniroute_fast as uf
    >>> router = uf.Router(None, [("nearest", np.zeros((1, 2), np.float32))])
    >>> router.insert(["small", "large"], [1.0, 5.0], np.array([[0.5, 0.1]], np.float32))
    >>> pacer = uf.BudgetPacer(2000.0, cost_weight=0.1, requests=1000)
    >>> for _ in range(1000):
    ...     decision = pacer.route(router, embeddings=np.zeros(2, np.float32))
    >>> bool(1950 < pacer.spent <= 2000)
    True
    """

    def __init__(
        self,
        budget: float,
        *,
        cost_weight: float | None = None,
        plan: SpendingPlan | None = None,
        requests: int | None = None,
        seconds: float | None = None,
        reserve: float = 0.0,
        gain: float = 0.03,
        trust: float = 0.8,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (requests is None) == (seconds is None):
            raise InvalidArgumentError("requests, seconds: expected exactly one of them")
        if cost_weight is None and (plan is None or requests is None):
            raise InvalidArgumentError(
                "cost_weight: missing; expected where to begin, or a plan and requests"
            )
        if plan is not None:
            as_instance("plan", plan, SpendingPlan, "a SpendingPlan, or None")
        if not callable(clock):
            raise ArgumentTypeError(f"clock: a {type(clock).__name__}; expected a callable")
        if cost_weight is not None:
            as_number("cost_weight", cost_weight, 0, above=True)
        self._budget = as_number("budget", budget, 0, above=True)
        self._reserve = as_number("reserve", reserve, 0)
        for name, length in (("requests", requests), ("seconds", seconds)):
            if length is not None:
                as_number(name, length, 0, above=True)
        self._requests, self._seconds = requests, seconds
        self._gain = as_number("gain", gain, 0, 1, above=True)
        self._trust, self._clock = as_number("trust", trust, 0, 1), clock
        self._lock = Lock()
        self._log_price = 0.0
        self._spent, self._count = 0.0, 0
        self._started = self._latest = clock()
        self._interval: float | None = None
        self._forecast = None if plan is None else Forecast(plan, trust)
        self._next_solution = 0
        self._first = 1.0 if cost_weight is None else float(cost_weight)
        if self._forecast is not None and cost_weight is None:
            self._solve(self._forecast)

    @property
    def cost_weight(self) -> float:
        """The price of the moment: what to pass to `Router.route`."""
        return self._first * math.exp(self._log_price)

    @property
    def spent(self) -> float:
        """What the prompts of this period have cost."""
        return self._spent

    @property
    def remaining(self) -> float:
        """What is left of the budget, 0 or more."""
        return max(self._budget - self._spent, 0.0)

    @property
    def count(self) -> int:
        """Number of prompts of this period."""
        return self._count

    def route(
        self,
        router: Router | Snapshot,
        text: str | None = None,
        *,
        embeddings: ArrayLike | None = None,
        constraints: Constraints | None = None,
        tokens: int | None = None,
        current_model: str | None = None,
        switch_cost: float | None = None,
        cached_tokens: int | None = None,
    ) -> Decision:
        """Route one prompt at the price of the moment, and book what it costs.

        Parameters are those of `Router.route`. What is booked is ``.cost`` of the decision; where
        a prompt cache makes it less, or losing one makes it more, `settle` corrects that.

        Raises
        ------
        BudgetExhaustedError
            What is left does not pay for any LLM that may answer.
        UnroutableError, NoCandidateError, ...
            As `Router.route`; nothing is booked then.
        """
        as_router("router", router)
        as_constraints(constraints)
        asked: dict[str, Any] = {
            "embeddings": embeddings,
            "tokens": tokens,
            "current_model": current_model,
            "switch_cost": switch_cost,
            "cached_tokens": cached_tokens,
        }
        while True:
            price = self.cost_weight
            decision = router.route(text, price, constraints=constraints, **asked)
            if self._book(decision):
                return decision
            # The best of those that can still be paid for.
            capped = _capped(constraints, self._payable())
            try:
                decision = router.route(text, price, constraints=capped, **asked)
            except NoCandidateError as error:
                raise BudgetExhaustedError(
                    f"budget: {self.remaining:g} of {self._budget:g} left, which pays for no model "
                    "that may answer; expected `renew` when the next period begins"
                ) from error
            if self._book(decision):
                return decision

    def spend(self, cost: float, cluster: int | None = None) -> None:
        """Book the cost of one prompt that was routed elsewhere; it may exceed what is left.

        With a plan, `cluster` tells what kind of prompt it was: `Decision.cluster`.
        """
        cost = as_number("cost", cost, 0)
        cluster = None if cluster is None else as_count("cluster", cluster, 0, 2**32 - 1)
        with self._lock:
            self._note(cost, cluster)

    def settle(self, expected: float, actual: float) -> None:
        """Correct what `route` booked, once the true cost of the prompt is known."""
        expected, actual = as_number("expected", expected, 0), as_number("actual", actual, 0)
        with self._lock:
            self._spent = max(self._spent + actual - expected, 0.0)

    def renew(self, budget: float | None = None) -> None:
        """Begin the next period, at the price of the moment; with another budget if given."""
        if budget is not None:
            budget = as_number("budget", budget, 0, above=True)
        with self._lock:
            self._budget = self._budget if budget is None else budget
            self._spent, self._count = 0.0, 0
            self._started = self._latest = self._clock()
            if self._forecast is not None:
                self._forecast.renew()
                self._solve(self._forecast)

    def state(self) -> dict[str, Any]:
        """Return everything as JSON-able values, for `from_state`."""
        with self._lock:
            forecast = self._forecast
            return {name: getattr(self, "_" + name) for name in _STATE} | {
                "plan": None if forecast is None else forecast.plan.state(),
                "seen": None if forecast is None else forecast.seen.tolist(),
                "late": None if forecast is None else forecast.late.tolist(),
            }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], *, clock: Callable[[], float] = time.time
    ) -> BudgetPacer:
        """Return a pacer that goes on where another one was.

        Raises
        ------
        InvalidArgumentError
            Not what `state` returned.
        """
        expected = {*_STATE, "plan", "seen", "late"}
        if not isinstance(state, Mapping):
            raise ArgumentTypeError(f"state: a {type(state).__name__}; expected what `state` gave")
        if set(state) != expected:
            raise InvalidArgumentError(
                f"state: fields {sorted(state)}; expected {sorted(expected)}, as `state` returns"
            )
        for name in ("count", "next_solution"):
            as_count(f"state: {name}", state[name], 0, 2**63 - 1)
        as_number("state: spent", state["spent"], 0)
        for name in ("log_price", "started", "latest"):
            as_number(f"state: {name}", state[name])
        if state["interval"] is not None:
            as_number("state: interval", state["interval"], 0)
        plan = None if state["plan"] is None else SpendingPlan.from_state(state["plan"])
        pacer = cls(
            state["budget"],
            cost_weight=state["first"],
            plan=plan,
            requests=state["requests"],
            seconds=state["seconds"],
            reserve=state["reserve"],
            gain=state["gain"],
            trust=state["trust"],
            clock=clock,
        )
        if pacer._forecast is not None:
            pacer._forecast.seen[:], pacer._forecast.late[:] = state["seen"], state["late"]
        for name in _STATE:
            setattr(pacer, "_" + name, state[name])
        return pacer

    def _book(self, decision: Decision) -> bool:
        """Book a decision unless it costs more than what is left."""
        with self._lock:
            if decision.cost > self._payable():
                return False
            self._note(decision.cost, decision.cluster)
            return True

    def _payable(self) -> float:
        """Return the most that the prompt at hand may cost."""
        left = self.remaining
        kept = self._reserve * max(self._to_come() - 1, 0.0) if self._reserve else 0.0
        # The reserve of the prompt at hand is there to be spent.
        return max(left - kept, min(left, self._reserve))

    def _note(self, cost: float, cluster: int | None) -> None:
        self._keep_time()
        share = self.remaining / max(self._to_come(), 1.0)
        self._spent += cost
        self._count += 1
        if self._forecast is not None:
            self._forecast.note(cluster)
            if self._count >= self._next_solution:
                self._solve(self._forecast)
            return
        # With nothing left every cost is too much.
        excess = cost / share - 1 if share > 0 else math.inf
        step = min(max(self._gain * excess, -STEP), STEP)
        limit = math.log(REACH)
        self._log_price = min(max(self._log_price + step, -limit), limit)

    def _solve(self, forecast: Forecast) -> None:
        """Set the price by the forecast; a 500th of the prompts to come may pass until the next."""
        if self._seconds is not None and not self._interval:
            return  # Nothing is known of the rate yet.
        to_come = max(self._to_come(), 1.0)
        self._first = forecast.price(self.remaining, to_come)
        self._next_solution = self._count + 1 + int(to_come / RESOLUTIONS)

    def _to_come(self) -> float:
        """Return how many prompts are expected in this period, the one at hand included."""
        if self._requests is not None:
            return self._requests - self._count
        left = max((self._seconds or 0.0) - (self._latest - self._started), 0.0)
        # Before the first interval nothing is known of the rate: as if this prompt were the last.
        return left / self._interval if self._interval else 1.0

    def _keep_time(self) -> None:
        """Note when this prompt came; the latest hundred or so tell the rate."""
        if self._seconds is None:
            return
        now = self._clock()
        since = max(now - self._latest, 0.0)
        self._latest = now
        before = since if self._interval is None else self._interval
        self._interval = before + max(0.01, 1 / (self._count + 1)) * (since - before)


_STATE = (
    "budget", "first", "requests", "seconds", "reserve", "gain", "trust",
    "log_price", "spent", "count", "started", "latest", "interval", "next_solution",
)  # fmt: skip


def _capped(constraints: Constraints | None, cap: float) -> Constraints:
    """Return the constraints with a cap on the cost, or a lower one."""
    arguments = {} if constraints is None else constraints._arguments()
    arguments["max_cost"] = min(arguments.get("max_cost", math.inf), cap)
    return Constraints(**arguments)
