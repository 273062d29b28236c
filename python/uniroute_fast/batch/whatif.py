"""What a log would cost, and how good its answers would be, under other rules.

Quality here is what the profiles predict: one less the predicted loss of the LLM that answers. The
intervals say how far a log of this size may be from the traffic that it stands for (two standard
errors over prompts); they do not know how far the profiles are from the truth, which
`uniroute evaluate` measures on labelled data.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.batch.budget import Spending, Steps
from uniroute_fast.batch.logs import find_log
from uniroute_fast.batch.losses import LossReader
from uniroute_fast.batch.pipeline import checked_threads, scan
from uniroute_fast.batch.progress import Callback, Meter
from uniroute_fast.batch.prompter import Prompter, Prompts
from uniroute_fast.costs.outcome import Outcome
from uniroute_fast.decisions.rule import winner
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.batch.parts import Part

#: Unless the caller names cost weights: those that leave so much of the spend between that of the
#: cheapest LLM and that of quality alone.
SHARES = (0.75, 0.5, 0.25, 0.1)

#: What was served, where the log says so, and what one LLM for all would be.
NOW, BEST_SINGLE, CHEAPEST = "as served", "best single LLM", "cheapest LLM"


@dataclass
class WhatIf:
    """What `what_if` found.

    Attributes
    ----------
    rows, routable : int
        Prompts of the log, and those that can be routed. Only the latter count below.
    unknown_served : int
        Routable prompts whose served LLM is not in the pool: "as served" leaves them out.
    reference : str
        The rule that gains are against: "as served", or else "best single LLM".
    outcomes : list of Outcome
    typical : list of list of str
        Of each cluster, beginnings of a few prompts that the router was fitted on, where it keeps
        them: what a cluster's number stands for.
    seconds : float
    """

    rows: int
    routable: int
    unknown_served: int
    reference: str
    outcomes: list[Outcome] = field(default_factory=list)
    typical: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0

    def __getitem__(self, name: str) -> Outcome:
        """Return the outcome of that name."""
        return next(outcome for outcome in self.outcomes if outcome.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return vars(self) | {"outcomes": [dict(vars(outcome)) for outcome in self.outcomes]}


def what_if(
    pool: str | os.PathLike[str] | Any,
    log: str | os.PathLike[str],
    *,
    cost_weights: list[float] | None = None,
    budget: float | None = None,
    model_column: str | None = None,
    cost_column: str | None = None,
    text_column: str = "text",
    messages_column: str | None = None,
    log_format: str | None = None,
    threads: int | None = None,
    progress: Callback | None = None,
) -> WhatIf:
    """Compare rules on a log, in two passes over it and bounded memory.

    Parameters
    ----------
    pool : path or Router
    log : path or URL
        As in `route_log`, but not standard input.
    cost_weights : list of float, optional
        Tried beside 0. Default: four that spread the spend.
    budget : float, optional
        Tried too: most that the log may cost.
    model_column : str, optional
        Names the LLM that served each prompt.
    cost_column : str, optional
        What serving each prompt really cost, in the unit of the pool's costs. Default, and where it
        is null: what the pool says of the LLM that served it.
    text_column, messages_column, log_format, threads
        As in `route_log`.
    progress : callable, optional
        Given a `Progress` after every part.

    Returns
    -------
    WhatIf

    Raises
    ------
    InvalidArgumentError, DatasetError
        Columns or files that cannot be used, or no prompt that can be routed.
    """
    start = time.perf_counter()
    if cost_column is not None and model_column is None:
        raise InvalidArgumentError("cost_column: without model_column; expected both")
    for weight in cost_weights or []:
        if not 0 <= weight < math.inf:
            raise InvalidArgumentError(f"cost_weights: {weight}; expected finite, 0 or more")
    prompter = Prompter(pool, text_column=text_column, messages_column=messages_column)
    prompter.load()
    source = find_log(os.fspath(log), log_format)
    if not source.resumable:
        raise InvalidArgumentError("log: takes two passes; expected a file or folder")
    threads = checked_threads(threads)

    def meter(stage: str) -> Meter:
        return Meter(stage, source.files, progress)

    prices = _Prices(prompter)
    for sums in scan(source.files, prompter, prices.of, threads, meter("price")):
        prices.add(sums)
    if not prices.routable:
        raise InvalidArgumentError("log: no prompt in it can be routed; expected one or more")
    served = None if model_column is None else _Served(prices.losses, model_column, cost_column)
    comparison = _Comparison(prompter, prices.rules(cost_weights, budget), served)
    for tally in scan(source.files, prompter, comparison.of, threads, meter("compare")):
        comparison.add(tally)
    outcomes = comparison.outcomes()
    typical = prompter.router.learner.examples
    return WhatIf(
        rows=prices.spending.rows,
        routable=prices.routable,
        unknown_served=prices.routable - outcomes[0].rows if served else 0,
        reference=comparison.reference,
        outcomes=outcomes,
        typical=[] if typical is None else typical.prompts,
        seconds=time.perf_counter() - start,
    )


@dataclass
class _Rule:
    """A rule that is tried: a cost weight, or one LLM for all."""

    name: str
    cost_weight: float = math.nan
    model: int = -1


class _Prices:
    """First pass: spend at every cost weight, and the mean loss of every LLM."""

    def __init__(self, prompter: Prompter) -> None:
        self.spending = Spending(prompter)
        self.losses = self.spending.losses
        #: Of each LLM over the log: predicted loss, and cost.
        self.sums = np.zeros((2, len(self.losses.names)))
        self.routable = 0

    def of(self, _: Part, prompts: Prompts) -> tuple[Steps, NDArray[np.float64], int]:
        sums, routable = np.zeros_like(self.sums), 0
        steps = Steps(len(prompts.texts))
        for losses in self.losses.of(prompts.texts):
            sums[0] += losses.counts @ losses.values.astype(np.float64)
            sums[1] += losses.cost_sums()
            routable += len(losses.rows)
            self.spending.count(losses, steps)
        return steps, sums, routable

    def add(self, part: tuple[Steps, NDArray[np.float64], int]) -> None:
        steps, sums, routable = part
        self.spending.add(steps)
        self.sums += sums
        self.routable += routable

    def rules(self, cost_weights: list[float] | None, budget: float | None) -> list[_Rule]:
        """Return what to compare: the dearest first."""
        loss, cost = self.sums
        rules = [_Rule(BEST_SINGLE, model=int(np.lexsort((cost, loss))[0]))]
        if cost_weights is None:
            least = self.spending.least
            spends = [least + share * (self.spending.spend - least) for share in SHARES]
            cost_weights = [self.spending.cost_weight(spend) for spend in spends]
        for weight in sorted({0.0, *cost_weights}):
            rules.append(_Rule(f"router, cost weight {weight:.4g}", weight))
        if budget is not None:
            weight = self.spending.cost_weight(budget)
            rules.append(_Rule(f"router, budget {budget:g}", weight))
        cheapest = int(np.lexsort((loss, cost))[0])
        return [*rules, _Rule(CHEAPEST, model=cheapest)]


class _Served:
    """Which LLM really served each row, and what that cost."""

    def __init__(self, losses: LossReader, model_column: str, cost_column: str | None) -> None:
        self.model_column, self.cost_column = model_column, cost_column
        self.index = {name: m for m, name in enumerate(losses.names)}

    def of(self, part: Part) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return each row's LLM, -1 where it is not in the pool, and logged cost, NaN without."""
        names = _values(part, self.model_column)
        models = np.array([self.index.get(name, -1) for name in names], np.int64)
        costs = np.full(len(models), np.nan)
        if self.cost_column is not None:
            costs = np.array([_logged_cost(v) for v in _values(part, self.cost_column)])
        return models, costs


@dataclass
class _Tally:
    """Sums of one rule, by cluster and LLM: [K, M]."""

    prompts: NDArray[np.int64]
    loss: NDArray[np.float64]
    loss_squares: NDArray[np.float64]
    cost: NDArray[np.float64]
    gain: float = 0.0
    gain_squares: float = 0.0

    def add(self, other: _Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class _Comparison:
    """Second pass: what each rule does with each prompt."""

    def __init__(self, prompter: Prompter, rules: list[_Rule], served: _Served | None) -> None:
        self.losses = LossReader(prompter)
        self.models = self.losses.names
        self.served = served
        self.rules = ([_Rule(NOW)] if served else []) + rules
        self.reference = self.rules[0].name
        self.shape = (prompter.router.n_clusters, len(self.models))
        self.tallies = [self._empty() for _ in self.rules]

    def of(self, part: Part, prompts: Prompts) -> list[_Tally]:
        """Return one part's tally of each rule. Several threads may call it at once."""
        tallies = [self._empty() for _ in self.rules]
        served = self.served.of(part) if self.served else None
        for losses in self.losses.of(prompts.texts):
            rows = np.arange(len(losses.which))
            values = losses.values.astype(np.float64)
            reference: NDArray[np.float64] | None = None
            for rule, tally in zip(self.rules, tallies, strict=True):
                if rule.name == NOW and served is not None:
                    models, logged = served[0][losses.rows], served[1][losses.rows]
                    known = models >= 0
                    costs = losses.cost_of(losses.which, models)
                    costs = np.where(np.isnan(logged), costs, logged)
                else:
                    models = self._choices(rule, values, losses.costs)[losses.which]
                    known = np.ones(len(rows), bool)
                    costs = losses.cost_of(losses.which, models)
                loss = np.where(known, values[losses.which, models], np.nan)
                reference = loss if reference is None else reference
                self._count(tally, losses.cluster[losses.which], models, loss, costs, reference)
        return tallies

    def add(self, tallies: list[_Tally]) -> None:
        """Add a part's tallies."""
        for total, tally in zip(self.tallies, tallies, strict=True):
            total.add(tally)

    def outcomes(self) -> list[Outcome]:
        """Return what the tallies come to."""
        paired = int(self.tallies[0].prompts.sum())
        found = zip(self.rules, self.tallies, strict=True)
        return [self._outcome(rule, tally, paired) for rule, tally in found]

    def _empty(self) -> _Tally:
        loss, squares, cost = np.zeros((3, *self.shape))
        return _Tally(np.zeros(self.shape, np.int64), loss, squares, cost)

    @staticmethod
    def _choices(
        rule: _Rule, values: NDArray[np.float64], costs: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the rule's LLM for each row of losses."""
        if rule.model >= 0:
            return np.full(len(values), rule.model)
        return winner(values + rule.cost_weight * costs, costs).astype(np.int64)

    def _count(
        self,
        tally: _Tally,
        cluster: NDArray[np.int64],
        models: NDArray[np.int64],
        loss: NDArray[np.float64],
        costs: NDArray[np.float64],
        reference: NDArray[np.float64],
    ) -> None:
        known = ~np.isnan(loss)
        at = (cluster * self.shape[1] + models)[known]
        size = self.shape[0] * self.shape[1]

        def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(at, values[known], size).astype(np.float64).reshape(self.shape)

        gain = (reference - loss)[~np.isnan(reference - loss)]
        tally.prompts += np.bincount(at, minlength=size).reshape(self.shape)
        tally.loss += sums(loss)
        tally.cost += sums(costs)
        tally.loss_squares += sums(loss**2)
        tally.gain += float(gain.sum())
        tally.gain_squares += float(np.sum(gain**2))

    def _outcome(self, rule: _Rule, tally: _Tally, paired: int) -> Outcome:
        rows = int(tally.prompts.sum())
        by_model = tally.prompts.sum(axis=0)
        order = [int(m) for m in np.argsort(-by_model, kind="stable") if by_model[m]]
        by_cluster = tally.prompts.sum(axis=1)
        clusters = []
        for k in np.flatnonzero(by_cluster):
            most = int(tally.prompts[k].argmax())
            clusters.append(
                {"cluster": int(k)}
                | _part(tally, np.s_[k])
                | {
                    "model": self.models[most],
                    "model_share": int(tally.prompts[k, most]) / int(by_cluster[k]),
                }
            )
        whole = _part(tally, np.s_[:])
        return Outcome(
            name=rule.name,
            cost_weight=rule.cost_weight,
            rows=rows,
            spend=whole["spend"],
            quality=whole["quality"],
            quality_2se=whole["quality_2se"],
            gain=tally.gain / paired if paired else math.nan,
            gain_2se=_two_se(tally.gain, tally.gain_squares, paired),
            models={self.models[m]: int(by_model[m]) for m in order},
            llms=[{"model": self.models[m]} | _part(tally, np.s_[:, m]) for m in order],
            clusters=sorted(clusters, key=lambda cluster: -cluster["prompts"]),
        )


def _part(tally: _Tally, where: Any) -> dict[str, Any]:
    """Return what some clusters and LLMs of a tally come to."""
    prompts, loss = int(tally.prompts[where].sum()), float(tally.loss[where].sum())
    return {
        "prompts": prompts,
        "spend": float(tally.cost[where].sum()),
        "quality": 1 - loss / prompts if prompts else math.nan,
        "quality_2se": _two_se(loss, float(tally.loss_squares[where].sum()), prompts),
    }


def _two_se(total: float, squares: float, count: int) -> float:
    """Return two standard errors of a mean, from sums."""
    if count < 2:
        return math.nan
    variance = max(0.0, squares - total**2 / count) / (count - 1)
    return 2 * math.sqrt(variance / count)


def _values(part: Part, column: str) -> list[Any]:
    try:
        return part.values(column)
    except (KeyError, ValueError) as error:
        raise InvalidArgumentError(f"column {column!r}: not in the log") from error


def _logged_cost(value: Any) -> float:
    """Return a logged cost; NaN where there is none."""
    if value is None or value == "":  # In CSV nothing else tells a null.
        return math.nan
    try:
        cost = float(value)
    except (TypeError, ValueError):
        cost = -1.0
    if cost < 0 or math.isinf(cost):
        raise InvalidArgumentError(
            f"cost_column: {str(value)[:40]!r} in it; expected finite numbers, 0 or more, or nulls"
        )
    return cost
