"""From a budget or a quality target to a cost weight, on prompts like those to be routed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_losses
from uniroute_fast._checks.instances import as_snapshot
from uniroute_fast._checks.scalars import as_count, as_number, at_least
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

#: Costs of a calibration are those of so many prompts.
PER = 1000


@dataclass(frozen=True)
class Frontier:
    """What routing costs and how well it answers, at every cost weight that matters.

    Between two neighbouring cost weights nothing changes.

    Attributes
    ----------
    cost_weight : float64[P]
        From which on each point holds, ascending; the first is 0.
    cost : float64[P]
        Of 1,000 prompts, falling.
    quality : float64[P]
        Mean of 1 - loss: predicted, or measured where losses were given.
    """

    cost_weight: NDArray[np.float64]
    cost: NDArray[np.float64]
    quality: NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A cost weight, or a mix of two, and what to expect of it.

    Attributes
    ----------
    cost_weight : float
        The one to use where there can be only one: it keeps to the budget, or to the quality.
    low, high : float
        The two sides of the corner at which the target lies.
    share : float
        Share of prompts, in [0, 1], that are to be routed at `low`; the others at `high`. So mixed,
        the target is met exactly on the prompts of the calibration.
    cost : float
        Expected cost of 1,000 prompts, mixed.
    quality : float
        Expected mean of 1 - loss, mixed.
    interval : tuple of float
        Where the cost of 1,000 new prompts will be, on average over as many new prompts as there
        were here, with the confidence asked for.
    frontier : Frontier
        All that can be had.
    """

    cost_weight: float
    low: float
    high: float
    share: float
    cost: float
    quality: float
    interval: tuple[float, float]
    frontier: Frontier

    def cost_weights(self, n: int, seed: int | None = None) -> NDArray[np.float64]:
        """Return cost weights for `n` prompts, float64[n]: `low` and `high` in the right shares.

        The shares are met to one prompt; which prompt gets which is random.
        """
        n = as_count("n", n, 0, 2**40)
        if seed is not None:
            seed = as_count("seed", seed, 0, 2**63 - 1)
        rng = np.random.default_rng(seed)
        weights = np.full(n, self.high)
        weights[: int(np.floor(self.share * n + rng.random()))] = self.low
        return rng.permutation(weights)


def calibrate(
    router: _native.Router | _native.Snapshot,
    texts: Sequence[str] | _native.Prompts | None = None,
    *,
    budget: float | None = None,
    quality: float | None = None,
    quality_drop: float | None = None,
    losses: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 500,
    seed: int = 0,
    tokens: ArrayLike | None = None,
) -> Calibration:
    """Find the cost weight that meets a budget or a quality; see `Router.calibrate`."""
    budget, quality, quality_drop = _checked_targets(budget, quality, quality_drop)
    confidence = as_number("confidence", confidence, 0, 1, above=True, below=True)
    n_bootstrap = as_count("n_bootstrap", n_bootstrap, 1, 10**6)
    seed = as_count("seed", seed, 0, 2**63 - 1)
    snapshot = as_snapshot("router", router)
    prompts = snapshot.embed(texts, embeddings=embeddings)
    predicted = snapshot.predict_loss(prompts).astype(np.float64)
    usable = np.isfinite(predicted).all(axis=1)
    if not usable.any():
        raise InvalidArgumentError("texts: none can be embedded; expected at least one")
    measured = None
    if losses is not None:
        measured = as_losses("losses", losses, len(predicted))
        if measured.shape[1] != predicted.shape[1]:
            raise InvalidArgumentError(
                f"losses: {measured.shape[1]} columns; expected one for each of the "
                f"{predicted.shape[1]} models, in the order of `models`"
            )
        usable &= ~np.isnan(measured).any(axis=1)
        if not usable.any():
            raise InvalidArgumentError("losses: every prompt lacks one; expected a complete row")
        measured = measured[usable]
    enabled = snapshot.enabled
    if not enabled.any():
        raise InvalidArgumentError("router: all models are disabled; expected one that may answer")
    predicted = predicted[usable][:, enabled]
    actual = predicted if measured is None else measured[:, enabled]
    costs = snapshot.costs[enabled]
    if snapshot.metered.any():
        each = snapshot.predict_cost(prompts, tokens=tokens)
        costs = each[usable][:, enabled]
    steps = _Steps.of(predicted, actual, costs)
    frontier = steps.frontier(np.ones(steps.n_prompts))
    target = _Target.of(frontier, budget, quality, quality_drop)
    low, high, share = target.corner(frontier)
    cost, loss = steps.mixed(low, high, share)
    interval = _interval(steps, target, confidence, n_bootstrap, np.random.default_rng(seed))
    # Alone, the side of the corner that keeps the promise: the cheaper for a budget.
    alone = high if budget is not None and share < 1 else low
    return Calibration(
        cost_weight=alone,
        low=low,
        high=high,
        share=share,
        cost=PER * float(cost.mean()),
        quality=1 - float(loss.mean()),
        interval=interval,
        frontier=frontier,
    )


@dataclass(frozen=True)
class _Steps:
    """Cost and loss of every prompt as steps over the cost weight.

    Step `s` is taken by prompt `prompt[s]` at `weight[s]` and adds `cost[s]` and `loss[s]` to what
    the prompt had before. Steps are in order of their weights; at weight 0 every prompt takes one.
    """

    n_prompts: int
    weight: NDArray[np.float64]
    prompt: NDArray[np.int64]
    cost: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        predicted: NDArray[np.float64],
        actual: NDArray[np.float64],
        costs: NDArray[np.float64],
    ) -> _Steps:
        """Take the steps of prompts on which models cost `costs`, [models] or [prompts, models]."""
        best, _, rows, costly, cheap, weights = _native.hull_steps(predicted, costs)
        every = np.arange(len(predicted))
        own = np.broadcast_to(costs, predicted.shape)
        step_cost = np.append(own[every, best], own[rows, cheap] - own[rows, costly])
        step_loss = np.append(actual[every, best], actual[rows, cheap] - actual[rows, costly])
        prompt = np.append(every, rows)
        weights = np.append(np.zeros(len(every)), weights)
        order = np.argsort(weights, kind="stable")
        return cls(
            len(predicted), weights[order], prompt[order], step_cost[order], step_loss[order]
        )

    def frontier(self, counts: NDArray[np.float64]) -> Frontier:
        """Return the frontier where prompt i appears `counts[i]` times."""
        total = counts.sum()
        # The last step at each distinct weight ends a point.
        ends = np.flatnonzero(np.append(np.diff(self.weight) > 0, True))
        times = counts[self.prompt]
        cost = np.cumsum(self.cost * times)[ends] / total
        loss = np.cumsum(self.loss * times)[ends] / total
        return Frontier(self.weight[ends], PER * cost, 1 - loss)

    def at(self, cost_weight: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return cost and loss of every prompt at one cost weight."""
        end = np.searchsorted(self.weight, cost_weight, side="right")
        cost = np.bincount(self.prompt[:end], self.cost[:end], self.n_prompts)
        loss = np.bincount(self.prompt[:end], self.loss[:end], self.n_prompts)
        return cost.astype(np.float64), loss.astype(np.float64)

    def mixed(
        self, low: float, high: float, share: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return cost and loss of every prompt, on average over a mix of two cost weights."""
        (cost, loss), (cheap, worse) = self.at(low), self.at(high)
        return share * cost + (1 - share) * cheap, share * loss + (1 - share) * worse


@dataclass(frozen=True)
class _Target:
    """What a calibration is to meet: a cost of 1,000 prompts, or a quality."""

    value: float
    is_budget: bool

    @classmethod
    def of(
        cls,
        frontier: Frontier,
        budget: float | None,
        quality: float | None,
        quality_drop: float | None,
    ) -> _Target:
        """Check the target against what can be had."""
        if budget is not None:
            if budget < frontier.cost[-1]:
                raise InvalidArgumentError(
                    f"budget: {budget:g} for {PER} prompts; expected at least "
                    f"{at_least(frontier.cost[-1])}, what the cheapest models cost"
                )
            return cls(budget, True)
        if quality is None:
            return cls(float(frontier.quality[0]) - (quality_drop or 0.0), False)
        if quality > frontier.quality.max():
            raise InvalidArgumentError(
                f"quality: {quality:g}; expected at most {frontier.quality.max():g}, the best that "
                "can be had"
            )
        return cls(quality, False)

    def corner(self, frontier: Frontier) -> tuple[float, float, float]:
        """Return the two cost weights that the target lies between, and the share of the lower.

        A target out of reach gets the nearest end.
        """
        values = frontier.cost if self.is_budget else frontier.quality
        last = len(values) - 1
        if self.is_budget:
            within = np.flatnonzero(values <= self.value)
            before = int(within[0]) - 1 if len(within) else last
        else:
            # Quality need not fall everywhere where it was measured: the cheapest that meets it.
            within = np.flatnonzero(values >= self.value)
            before = int(within[-1]) if len(within) else int(values.argmax())
        if before < 0 or before == last or len(within) == 0:
            end = _inside(frontier, max(before, 0))
            return end, end, 1.0
        share = (self.value - values[before + 1]) / (values[before] - values[before + 1])
        low, high = _inside(frontier, before), _inside(frontier, before + 1)
        return low, high, float(np.clip(share, 0.0, 1.0))


def _inside(frontier: Frontier, point: int) -> float:
    """Return a cost weight well inside a point, away from ties at its ends; 0 for the first."""
    start = frontier.cost_weight[point]
    if point == 0:
        return 0.0
    if point + 1 == len(frontier.cost_weight):
        return float(2 * start)
    return float((start + frontier.cost_weight[point + 1]) / 2)


def _interval(
    steps: _Steps,
    target: _Target,
    confidence: float,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean cost of as many new prompts.

    Each replicate calibrates on one resample of the prompts and routes another, so that both the
    luck of this calibration and that of the prompts to come are in it.
    """
    n = steps.n_prompts
    realised = np.empty(n_bootstrap)
    for i in range(n_bootstrap):
        counts = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        low, high, share = target.corner(steps.frontier(counts))
        new = rng.integers(n, size=n)
        realised[i] = PER * steps.mixed(low, high, share)[0][new].mean()
    tail = 50 * (1 - confidence)
    lower, upper = np.percentile(realised, [tail, 100 - tail])
    return float(lower), float(upper)


def _checked_targets(
    budget: float | None, quality: float | None, quality_drop: float | None
) -> list[float | None]:
    """Return the targets, of which one is given."""
    targets = {"budget": budget, "quality": quality, "quality_drop": quality_drop}
    given = [name for name, value in targets.items() if value is not None]
    if len(given) != 1:
        raise InvalidArgumentError(
            f"budget, quality, quality_drop: {len(given)} of them given; expected exactly one"
        )
    [name] = given
    targets[name] = as_number(name, targets[name], 0, np.inf if name == "budget" else 1)
    return list(targets.values())
