"""A budget spread over a stream of prompts as they come."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uniroute_fast import _native
from uniroute_fast._checks.instances import as_constraints, as_instance, as_router
from uniroute_fast._checks.scalars import as_count, as_number
from uniroute_fast._native import Constraints
from uniroute_fast.costs.plan import SpendingPlan
from uniroute_fast.errors import (
    ArgumentTypeError,
    BudgetExhaustedError,
    InvalidArgumentError,
    NoCandidateError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from uniroute_fast._native import Decision, Router, Snapshot


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
        early prompts spend more than their share if cheaper ones are to come, and less if more
        expensive ones are; a pacer without a plan spends evenly, whatever a unit buys.
    requests : int, optional
        Length of the period in prompts.
    seconds : float, optional
        Length of the period in time; the prompts to come are then expected at their latest rate.
        Exactly one of the two must be given.
    reserve : float
        Kept back for each prompt to come, so that the last one can still be paid for: what the
        cheapest LLM costs.
    gain : float
        Without a plan, how fast the price moves, in (0, 1]: a prompt that costs twice its share
        raises it by about this part.
    trust : float
        With a plan, how much it counts for against what came recently, in [0, 1].
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
        if plan is not None:
            as_instance("plan", plan, SpendingPlan, "a SpendingPlan, or None")
        numbers = {
            name: None if value is None else as_number(name, value)
            for name, value in {
                "cost_weight": cost_weight, "requests": requests, "seconds": seconds
            }.items()
        }  # fmt: skip
        self._clock = _as_clock(clock)
        self._pacer = _native.Pacer(
            as_number("budget", budget),
            **numbers,
            plan=None if plan is None else plan.parts(),
            reserve=as_number("reserve", reserve),
            gain=as_number("gain", gain),
            trust=as_number("trust", trust),
            now=clock(),
        )

    @property
    def cost_weight(self) -> float:
        """The price of the moment: what to pass to `Router.route`."""
        return self._pacer.cost_weight

    @property
    def spent(self) -> float:
        """What the prompts of this period have cost."""
        return self._pacer.spent

    @property
    def remaining(self) -> float:
        """What is left of the budget, 0 or more."""
        return self._pacer.remaining

    @property
    def count(self) -> int:
        """Number of prompts of this period."""
        return self._pacer.count

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
            cap = Constraints(max_cost=self._pacer.most)
            capped = cap if constraints is None else constraints & cap
            try:
                decision = router.route(text, price, constraints=capped, **asked)
            except NoCandidateError as error:
                raise BudgetExhaustedError(
                    f"budget: {self.remaining:g} of {self._pacer.budget:g} left, which pays for no "
                    "model that may answer; expected `renew` when the next period begins"
                ) from error
            if self._book(decision):
                return decision

    def spend(self, cost: float, cluster: int | None = None) -> None:
        """Book the cost of one prompt that was routed elsewhere; it may exceed what is left.

        With a plan, `cluster` tells what kind of prompt it was: `Decision.cluster`.
        """
        cost = as_number("cost", cost)
        cluster = None if cluster is None else as_count("cluster", cluster, 0, 2**32 - 1)
        self._pacer.spend(cost, cluster, self._clock())

    def settle(self, expected: float, actual: float) -> None:
        """Correct what `route` booked, once the true cost of the prompt is known."""
        self._pacer.settle(as_number("expected", expected), as_number("actual", actual))

    def renew(self, budget: float | None = None) -> None:
        """Begin the next period, at the price of the moment; with another budget if given."""
        budget = None if budget is None else as_number("budget", budget)
        self._pacer.renew(budget, self._clock())

    def state(self) -> dict[str, Any]:
        """Return everything as JSON-able values, for `from_state`."""
        state: dict[str, Any] = json.loads(self._pacer.to_json())
        return state

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
        if not isinstance(state, Mapping):
            raise ArgumentTypeError(f"state: a {type(state).__name__}; expected what `state` gave")
        try:
            text = json.dumps(dict(state), default=lambda value: value.tolist())
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"state: {error}; expected what `state` returned") from error
        pacer = cls.__new__(cls)
        pacer._clock = _as_clock(clock)
        pacer._pacer = _native.Pacer.from_json(text)
        return pacer

    def _book(self, decision: Decision) -> bool:
        """Book a decision unless it costs more than what is left."""
        return self._pacer.book(decision.cost, decision.cluster, self._clock())


def _as_clock(clock: Any) -> Callable[[], float]:
    if not callable(clock):
        raise ArgumentTypeError(f"clock: a {type(clock).__name__}; expected a callable")
    checked: Callable[[], float] = clock
    return checked
