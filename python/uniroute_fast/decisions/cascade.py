"""A second decision, once a cheap LLM has answered and something tells how sure it is.

Whatever the score is (a mean log probability, the agreement of two samples, a judge's mark), it is
used by its rank among the scores of labelled prompts. Three small regressions on these prompts say
what it tells: how likely the answer is wrong, how likely each other LLM is to be wrong on the same
prompt (a prompt that makes one LLM unsure is a hard one for others too), and how the score will
come out before it is known. Both decisions then follow the rule of routing itself: least predicted
loss + cost_weight x cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_losses, as_numbers
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.prompts import one_embedded
from uniroute_fast._checks.scalars import as_count, as_number
from uniroute_fast.decisions.rule import winner
from uniroute_fast.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NoCandidateError,
    UnroutableError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import Prompts, Snapshot

#: Fewest labelled prompts that an LLM's scores are learnt from.
MIN_PROMPTS = 20

#: Predicted losses are kept so far from 0 and 1.
EDGE = 0.01

#: Standard Gaussian values, and their weights, over which scores to come are averaged.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(12)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

#: How many outcomes the regressions' starting point (the router is right, the score says nothing)
#: counts for.
PRIOR = 4.0


@dataclass(frozen=True, eq=False)
class ScoreModel:
    """What the scores of one LLM's answers tell.

    Attributes
    ----------
    scores, ranks : float64[Q]
        Scores of labelled prompts, ascending, and their ranks as standard Gaussian values.
    own : float64[3]
        Logit of this LLM's loss: constant, per unit of rank, per unit of the predicted logit.
    others : float64[3]
        The same for every other LLM.
    expected : float64[2]
        Mean rank: constant, and per unit of this LLM's predicted logit.
    width : float
        Standard deviation of the rank about it.
    """

    scores: NDArray[np.float64]
    ranks: NDArray[np.float64]
    own: NDArray[np.float64]
    others: NDArray[np.float64]
    expected: NDArray[np.float64]
    width: float

    @classmethod
    def fit(
        cls,
        scores: NDArray[np.float64],
        predicted: NDArray[np.float64],
        losses: NDArray[np.float64],
        model: int,
    ) -> ScoreModel:
        """Fit to scores float64[N] of one LLM, and predicted and measured losses float64[N, M]."""
        values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
        # Ties share the middle of their ranks.
        middle = (np.cumsum(counts) - counts / 2) / len(scores)
        ranks = _gaussian_quantile(np.asarray(middle, np.float64))
        rank, logits = ranks[inverse], _logit(predicted)
        own = _regress(rank, logits[:, model], losses[:, model])
        rest = np.arange(losses.shape[1]) != model
        known = ~np.isnan(losses[:, rest])
        others = _regress(
            np.broadcast_to(rank[:, None], known.shape)[known],
            logits[:, rest][known],
            losses[:, rest][known],
            # One prompt's outcomes are as good as one: what it has, all LLMs share.
            repeats=max(1.0, known.sum() / known.any(axis=1).sum()),
        )
        design = np.column_stack([np.ones(len(rank)), logits[:, model]])
        expected = np.linalg.lstsq(design, rank, rcond=None)[0]
        width = float(np.sqrt(np.mean((rank - design @ expected) ** 2)))
        return cls(values, ranks, own, others, np.asarray(expected, np.float64), width)

    def rank(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the ranks of scores, as standard Gaussian values; flat beyond the known ones."""
        return np.asarray(np.interp(score, self.scores, self.ranks), np.float64)

    def losses(
        self, predicted: NDArray[np.float64], model: int, rank: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return expected losses of all LLMs given ranks: [N, M] and [N, ...] give [N, ..., M]."""
        logits = _logit(predicted)
        logits = logits.reshape(len(logits), *[1] * (rank.ndim - 1), -1)
        found = _expit(self.others[0] + self.others[1] * rank[..., None] + self.others[2] * logits)
        found[..., model] = _expit(
            self.own[0] + self.own[1] * rank + self.own[2] * logits[..., model]
        )
        return np.asarray(found)

    def ranks_to_come(self, predicted: NDArray[np.float64], model: int) -> NDArray[np.float64]:
        """Return the ranks that prompts may get, float64[N, Q], of the weights `WEIGHTS`."""
        mean = self.expected[0] + self.expected[1] * _logit(predicted[:, model])
        return np.asarray(mean[:, None] + self.width * NODES)


@dataclass(frozen=True, eq=False)
class Predicted:
    """What routing knows of N prompts before anything answered.

    Attributes
    ----------
    snapshot : Snapshot
        Of a router with M LLMs.
    losses, costs : float64[N, M]
        Predicted for each LLM; NaN where a prompt cannot be embedded.
    """

    snapshot: Snapshot
    losses: NDArray[np.float64]
    costs: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        texts: Sequence[str] | Prompts | None = None,
        *,
        embeddings: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
    ) -> Predicted:
        """Predict losses and costs over a snapshot."""
        prompts = snapshot.embed(texts, embeddings=embeddings)
        losses = snapshot.predict_loss(prompts).astype(np.float64)
        if not snapshot.metered.any():
            return cls(snapshot, losses, np.tile(snapshot.costs, (len(losses), 1)))
        costs = snapshot.predict_cost(prompts, tokens=tokens)
        return cls(snapshot, losses, costs)

    def take(self, rows: NDArray[np.integer]) -> Predicted:
        """Return some of the prompts."""
        return Predicted(self.snapshot, self.losses[rows], self.costs[rows])

    def penalties(self, cost_weight: float) -> NDArray[np.float64]:
        """Return cost_weight x cost, infinite for LLMs that may not answer, float64[N, M]."""
        return np.where(self.snapshot.enabled, cost_weight * self.costs, np.inf)

    def least(
        self, losses: NDArray[np.float64], model: int, cost_weight: float
    ) -> NDArray[np.intp]:
        """Return the best LLM other than one, given losses [N, ..., M] instead: intp[N, ...]."""
        penalties = self.penalties(cost_weight)
        penalties[:, model] = np.inf
        shape = [len(penalties), *[1] * (losses.ndim - 2), -1]
        return winner(losses + penalties.reshape(shape), self.costs.reshape(shape))


@dataclass(frozen=True)
class First:
    """The first decision: which LLM answers, and whether its answer is to be looked at again.

    Attributes
    ----------
    model : str
    index : int
    cost : float
        Of this LLM.
    expected_cost : float
        With that of a second answer, as often as one is expected.
    final : bool
        Whether this answer is kept whatever its score.
    cost_weight : float
    """

    model: str
    index: int
    cost: float
    expected_cost: float
    final: bool
    cost_weight: float
    _prompt: Predicted


@dataclass(frozen=True)
class Second:
    """The second decision: keep the answer, or ask another LLM.

    Attributes
    ----------
    keep : bool
    model : str
        Whose answer is used: the first LLM's where it is kept.
    index : int
    cost : float
        Of both answers together.
    predicted_loss : float
        Of the answer that is used, given the score.
    threshold : float or None
        The least score at which this answer would have been kept; None where no score would do.
    """

    keep: bool
    model: str
    index: int
    cost: float
    predicted_loss: float
    threshold: float | None


class Cascade:
    """Routing in two steps: a second LLM is asked where the first one's answer is not sure enough.

    Made by `Cascade.fit`. It holds no LLM: ask the LLM that `first` names, then hand the score of
    its answer to `second`.

    Examples
    --------
    >>> import numpy as np, uniroute_fast as uf
    >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 25
    >>> router = uf.Router.fit(texts, n_clusters=2)
    >>> wrong = np.random.default_rng(0).random(100) < 0.4
    >>> losses = np.column_stack([wrong, 0.2 * wrong])
    >>> router.add_models(["small", "large"], [1.0, 9.0], texts, losses)
    >>> score = np.where(wrong, 0.2, 0.9)  # how sure the small LLM was
    >>> cascade = uf.Cascade.fit(router, texts, {"small": score}, losses)
    >>> first = cascade.first("8 - 3", cost_weight=0.01)
    >>> first.model, first.final
    ('small', False)
    >>> cascade.second(first, 0.95).keep, cascade.second(first, 0.1).model
    (True, 'large')
    """

    def __init__(self, router: _native.Router, scores: Mapping[str, ScoreModel]) -> None:
        self._router, self._scores = router, dict(scores)

    @classmethod
    def fit(
        cls,
        router: _native.Router,
        texts: Sequence[str] | Prompts | None,
        scores: Mapping[str, ArrayLike],
        losses: ArrayLike,
        *,
        embeddings: ArrayLike | None = None,
    ) -> Cascade:
        """Learn on labelled prompts what scores tell.

        Parameters
        ----------
        router : Router
        texts : sequence of str, N of them
            Those that cannot be embedded are left out. Best not those the profiles were made from.
        scores : dict of str to float[N]
            For each LLM that may answer first, the score of its answer to each prompt: higher, or
            lower, is surer; NaN where there is none.
        losses : float[N, M]
            Models in the order of ``router.models``, in [0, 1]; NaN = not run.
        embeddings : float32[N, D], optional
            In place of `texts`, which is then None.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError, UnknownModelError
            Arguments that cannot be used, or fewer than 20 prompts with a score and a loss.

        Notes
        -----
        O(N M) for each LLM that may answer first. LLMs that join the pool later take part as second
        ones without another fit.
        """
        if not isinstance(scores, Mapping):
            raise ArgumentTypeError(
                f"scores: a {type(scores).__name__}; expected a dict of LLMs' names to their scores"
            )
        as_instance("router", router, _native.Router, "a Router")
        snapshot = router.snapshot()
        predicted = snapshot.predict_loss(texts, embeddings=embeddings).astype(np.float64)
        measured = as_losses("losses", losses, len(predicted))
        if measured.shape[1] != predicted.shape[1]:
            raise InvalidArgumentError(
                f"losses: {measured.shape[1]} columns; expected one for each of the "
                f"{predicted.shape[1]} models, in the order of `models`"
            )
        if not scores or predicted.shape[1] < 2:
            raise InvalidArgumentError(
                f"scores: of {len(scores)} LLMs, in a pool of {predicted.shape[1]}; expected one "
                "or more, in a pool of two or more"
            )
        models = {}
        for name, values in scores.items():
            if not isinstance(name, str):
                raise ArgumentTypeError(f"scores: {name!r} is no name; expected str")
            index = snapshot.info(name).index
            score = as_numbers(f"scores[{name!r}]", values).astype(np.float64)
            if score.shape != (len(predicted),):
                raise InvalidArgumentError(
                    f"scores[{name!r}]: shape {score.shape}; expected ({len(predicted)},)"
                )
            usable = np.isfinite(predicted[:, 0]) & np.isfinite(score)
            usable &= ~np.isnan(measured[:, index])
            if usable.sum() < MIN_PROMPTS:
                raise InvalidArgumentError(
                    f"scores[{name!r}]: {usable.sum()} prompts with a score and a loss; expected "
                    f"{MIN_PROMPTS} or more"
                )
            models[name] = ScoreModel.fit(score[usable], predicted[usable], measured[usable], index)
        return cls(router, models)

    def first(
        self,
        text: str | Prompts | None = None,
        cost_weight: float = 0.0,
        *,
        embeddings: ArrayLike | None = None,
        tokens: int | None = None,
    ) -> First:
        """Choose the LLM that answers first.

        Parameters
        ----------
        text : str
        cost_weight : float
        embeddings : float32[D] or float32[1, D], optional
            In place of `text`.
        tokens : int, optional
            As in `Router.route`: the prompt's length, where LLMs are charged by the token.

        Raises
        ------
        UnroutableError, EmptyPoolError, NoCandidateError, InvalidArgumentError, ArgumentTypeError
            As `Router.route`.

        Notes
        -----
        O(M) for each LLM that may answer first. A final answer is that of `Router.route` unless a
        cascade is expected to do better.
        """
        weight = as_number("cost_weight", cost_weight, 0)
        if tokens is not None:
            tokens = as_count("tokens", tokens, 0, 2**63 - 1)
        snapshot = self._router.snapshot()
        one = one_embedded(snapshot, text, embeddings)
        prompt = Predicted.of(snapshot, one, tokens=tokens)
        if not np.isfinite(prompt.losses).all():
            raise UnroutableError("text: it cannot be embedded; expected text that can")
        if not snapshot.enabled.any():
            raise NoCandidateError("router: all models are disabled; expected one that may answer")
        found = self.decide_first(prompt, weight)
        index = int(found.index[0])
        return First(
            model=snapshot.models[index],
            index=index,
            cost=float(prompt.costs[0, index]),
            expected_cost=float(found.expected_cost[0]),
            final=bool(found.final[0]),
            cost_weight=weight,
            _prompt=prompt,
        )

    def second(self, first: First, score: float) -> Second:
        """Decide, by the score of the first answer, whether to keep it or whom else to ask.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            A score that is no finite number, or a first decision that is none.
        """
        if not isinstance(first, First):
            raise ArgumentTypeError(f"first: a {type(first).__name__}; expected what `first` gave")
        score = as_number("score", score)
        prompt, own = first._prompt, first.index
        model = self._scores.get(first.model)
        if first.final or model is None:
            loss = float(prompt.losses[0, own])
            return Second(True, first.model, own, first.cost, loss, None)
        # The score at hand, then all known ones, for the threshold.
        options = np.append(score, model.scores)
        rows = np.zeros(len(options), np.intp)
        same = prompt.take(rows)
        losses = model.losses(same.losses, own, model.rank(options))
        other = same.least(losses, own, first.cost_weight)
        each = np.arange(len(options))
        again = losses[each, other] + first.cost_weight * same.costs[each, other]
        kept = losses[:, own] <= again
        sure = model.scores[kept[1:]]
        # Scores may rise or fall with how sure an LLM is.
        threshold = None
        if len(sure):
            threshold = float(sure.min() if model.own[1] <= 0 else sure.max())
        index = own if kept[0] else int(other[0])
        return Second(
            keep=bool(kept[0]),
            model=prompt.snapshot.models[index],
            index=index,
            cost=first.cost if kept[0] else first.cost + float(prompt.costs[0, index]),
            predicted_loss=float(losses[0, index]),
            threshold=threshold,
        )

    def decide_first(self, prompts: Predicted, cost_weight: float) -> FirstDecisions:
        """Return the first decisions on many prompts, in columns."""
        snapshot, costs = prompts.snapshot, prompts.costs
        penalties = prompts.penalties(cost_weight)
        rows = np.arange(len(costs))
        index = winner(prompts.losses + penalties, costs)
        saved, final = np.zeros(len(rows)), np.ones(len(rows), bool)
        expected = costs[rows, index]
        places = {name: m for m, name in enumerate(snapshot.models)}
        for name, model in self._scores.items():
            own = places.get(name)
            if own is None or not snapshot.enabled[own]:
                continue
            losses = model.losses(prompts.losses, own, model.ranks_to_come(prompts.losses, own))
            other = prompts.least(losses, own, cost_weight)
            second = np.take_along_axis(losses, other[..., None], -1)[..., 0]
            price = np.take_along_axis(costs, other, axis=1)
            kept, again = losses[..., own], second + cost_weight * price
            value = np.minimum(kept, again) @ WEIGHTS + penalties[:, own]
            # What it is better by than the best that can be had without, on the same terms.
            blind = np.tensordot(losses, WEIGHTS, axes=([1], [0])) + penalties
            gain = blind.min(axis=1) - value
            better = gain > saved + 1e-12
            asked = np.where(again < kept, price, 0.0) @ WEIGHTS + costs[:, own]
            index[better], saved[better], final[better] = own, gain[better], False
            expected[better] = asked[better]
        return FirstDecisions(index, final, expected)

    def decide_second(
        self, prompts: Predicted, cost_weight: float, name: str, scores: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """Return whose answer is used, intp[N], where `name` answered with scores float64[N]."""
        model, own = self._scores[name], prompts.snapshot.info(name).index
        losses = model.losses(prompts.losses, own, model.rank(scores))
        other = prompts.least(losses, own, cost_weight)
        rows = np.arange(len(scores))
        again = losses[rows, other] + cost_weight * prompts.costs[rows, other]
        return np.where(losses[:, own] <= again, own, other)


@dataclass(frozen=True, eq=False)
class FirstDecisions:
    """First decisions in columns: see `First`."""

    index: NDArray[np.intp]
    final: NDArray[np.bool_]
    expected_cost: NDArray[np.float64]


def _regress(
    rank: NDArray[np.float64],
    logit: NDArray[np.float64],
    loss: NDArray[np.float64],
    repeats: float = 1.0,
) -> NDArray[np.float64]:
    """Return the logistic regression of losses in [0, 1] on 1, rank and logit, float64[3].

    Newton's method; `PRIOR` outcomes hold it to the router's own prediction. What the score seems
    to tell is shrunk by what chance alone would show (the positive part of 1 - error² / slope²),
    where so many outcomes count for one: both decisions seize on whatever looks like a gain.
    """
    design = np.column_stack([np.ones(len(rank)), rank, logit])
    start = np.array([0.0, 0.0, 1.0])
    found = start.copy()
    for _ in range(25):
        mean = _expit(design @ found)
        slope = design.T @ (loss - mean) - PRIOR * (found - start)
        curvature = (design * (mean * (1 - mean))[:, None]).T @ design + PRIOR * np.eye(3)
        step = np.linalg.solve(curvature, slope)
        found += step
        if np.abs(step).max() < 1e-8:
            break
    chance = repeats * np.linalg.inv(curvature)[1, 1]
    found[1] *= max(0.0, 1 - chance / found[1] ** 2) if found[1] else 0.0
    return found


def _logit(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(loss, EDGE, 1 - EDGE)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _expit(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def _gaussian_quantile(share: NDArray[np.float64]) -> NDArray[np.float64]:
    from statistics import NormalDist

    quantile = NormalDist().inv_cdf
    return np.array([quantile(value) for value in share.tolist()])
