"""Why a prompt goes to the LLM that it goes to, and what would change that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.scalars import as_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import Alternative, Constraints, Decision, Exclusion, Snapshot
    from uniroute_fast.clusters.examples import Typical


#: Foreign shares from this one on are shown: most prompts have a little.
WORTH_TELLING = 0.1


@dataclass(frozen=True)
class Flip:
    """Where the choice changes as the cost weight moves.

    Attributes
    ----------
    cost_weight : float
        The first cost weight, in that direction, at which another LLM is chosen: exact to the last
        bit of float64.
    model : str
        That LLM.
    """

    cost_weight: float
    model: str


@dataclass(frozen=True)
class Explanation:
    """What stands behind one decision.

    Attributes
    ----------
    decision : Decision
    clusters : list of (int, float)
        The clusters that the prompt belongs to and how much each counts, the heaviest first. Under
        a map of several heads they are of all of these; the weights of each head sum to 1.
    backgrounds : frozenset of int
        Those of them that are a head's background, where an LLM's predicted loss is its overall
        mean.
    alternatives : list of Alternative
        The other LLMs that may answer, best first.
    excluded : list of Exclusion
        Those that may not, with the reasons.
    runner_up : Alternative or None
        The one that would answer if the chosen LLM could not: the first of `alternatives`, or the
        conversation's LLM where leaving it costs more than it is behind.
    margin : float or None
        By how much the runner-up's predicted loss + cost weight x cost is higher; None where there
        is none. Leaving the conversation's LLM counts as a cost, here and below.
    flip_up, flip_down : Flip or None
        Where the choice changes as the cost weight rises, or falls; None where it never does.
    flip_price : float or None
        The cost of the chosen LLM above which the runner-up is chosen; None at cost weight 0, or
        where there is no runner-up.
    standard_errors : dict of str to float
        How well each LLM's predicted loss is known: at most this standard error. LLMs without a
        record of their outcomes are not in it.
    typical_prompts : dict of int to list of str
        For the clusters above, the beginnings of a few prompts that the router was fitted on, the
        most typical first; empty where it kept none.
    """

    decision: Decision
    clusters: list[tuple[int, float]]
    backgrounds: frozenset[int]
    alternatives: list[Alternative]
    excluded: list[Exclusion]
    runner_up: Alternative | None
    margin: float | None
    flip_up: Flip | None
    flip_down: Flip | None
    flip_price: float | None
    standard_errors: dict[str, float]
    typical_prompts: dict[int, list[str]]

    @property
    def foreign(self) -> float:
        """How far the prompt is unlike those that the router was fitted on, 0 to 1.

        The share of its weight that lies on backgrounds: so far what is predicted of an LLM is
        blind to the prompt.
        """
        far = sum(weight for k, weight in self.clusters if k in self.backgrounds)
        return far / sum(weight for _, weight in self.clusters)

    def __str__(self) -> str:
        """Return the explanation in a few lines."""
        chosen = self.decision
        lines = [
            f"{chosen.model}: {self._predicted(chosen)}, cost {chosen.cost:g}, "
            f"at cost weight {chosen.cost_weight:g}"
            + (", kept for the conversation" if chosen.stayed else ""),
            "clusters: " + ", ".join(f"{k} ({weight:.0%})" for k, weight in self.clusters[:5]),
        ]
        if self.foreign >= WORTH_TELLING:
            lines.append(f"foreign: {self.foreign:.0%} of what is predicted is blind to the prompt")
        heaviest = self.clusters[0][0]
        lines += [f"  such as: {text!r}" for text in self.typical_prompts.get(heaviest, [])]
        lines += [
            f"  then {other.model}: {self._predicted(other)}, cost "
            f"{other.cost:g}, {self._behind(other)}"
            for other in self.alternatives[:3]
        ]
        for flip, side in ((self.flip_up, "above"), (self.flip_down, "below")):
            if flip is not None:
                lines.append(f"{side} cost weight {flip.cost_weight:g}: {flip.model}")
        if self.flip_price is not None and self.runner_up is not None:
            lines.append(f"above a cost of {self.flip_price:g}: {self.runner_up.model}")
        lines += [f"excluded {e.model}: {'; '.join(e.reasons)}" for e in self.excluded[:10]]
        if len(self.excluded) > 10:
            lines.append(f"and {len(self.excluded) - 10} more excluded")
        return "\n".join(lines)

    def _behind(self, other: Alternative) -> str:
        gap = other.objective - self._objective
        return f"behind by {gap:.4g}" if gap >= 0 else f"ahead by {-gap:.4g} but for the switch"

    def _predicted(self, one: Decision | Alternative) -> str:
        error = self.standard_errors.get(one.model)
        told = "" if error is None else f" (standard error {error:.4f})"
        return f"predicted loss {one.predicted_loss:.4f}{told}"

    @property
    def _objective(self) -> float:
        chosen = self.decision
        return chosen.predicted_loss + chosen.cost_weight * chosen.cost


def explain(
    snapshot: Snapshot,
    text: str | None,
    cost_weight: float,
    *,
    embeddings: ArrayLike | None,
    constraints: Constraints | None,
    tokens: int | None,
    current_model: str | None = None,
    switch_cost: float | None = None,
    cached_tokens: int | None = None,
    standard_errors: NDArray[np.float32] | None = None,
    typical: Typical | None = None,
    backgrounds: frozenset[int] = frozenset(),
) -> Explanation:
    """Explain one decision over a snapshot; see `Router.explain`."""

    def choose(weight: float) -> Decision:
        return snapshot.route(
            text,
            weight,
            embeddings=embeddings,
            constraints=constraints,
            tokens=tokens,
            current_model=current_model,
            switch_cost=switch_cost,
            cached_tokens=cached_tokens,
        )

    cost_weight = as_number("cost_weight", cost_weight, 0) + 0.0  # -0.0 is 0.0.
    decision = choose(cost_weight)
    one = None if embeddings is None else np.atleast_2d(embeddings)
    phi = snapshot.phi(None if text is None else [text], embeddings=one)[0]
    order = [int(k) for k in np.argsort(-phi, kind="stable") if phi[k] > 0]
    errors = {}
    if standard_errors is not None:
        of_prompt = prompt_errors(phi[None], standard_errors)[0]
        errors = {
            name: float(error)
            for name, error in zip(snapshot.models, of_prompt, strict=True)
            if not np.isnan(error)
        }
    others = decision.alternatives
    lost = dict.fromkeys([decision.model, *(other.model for other in others)], 0.0)
    if current_model is not None and current_model in lost:
        # Whoever else answers costs so much more.
        switch = _switch(snapshot, current_model, switch_cost, cached_tokens)
        lost = dict.fromkeys(lost, switch) | {current_model: 0.0}

    def objective(one: Alternative) -> float:
        return one.objective + cost_weight * lost[one.model]

    spent = cost_weight * lost[decision.model]
    own = decision.predicted_loss + cost_weight * decision.cost + spent
    runner_up = min(others, key=objective, default=None)
    price = None
    if runner_up is not None and cost_weight > 0:
        price = (objective(runner_up) - decision.predicted_loss - spent) / cost_weight
    return Explanation(
        decision=decision,
        clusters=[(k, float(phi[k])) for k in order],
        backgrounds=backgrounds.intersection(order),
        alternatives=others,
        excluded=decision.excluded,
        runner_up=runner_up,
        margin=None if runner_up is None else objective(runner_up) - own,
        flip_up=_flip(decision, others, lost, choose, upwards=True),
        flip_down=_flip(decision, others, lost, choose, upwards=False),
        flip_price=price,
        standard_errors=errors,
        typical_prompts={} if typical is None else {k: typical.prompts[k] for k in order},
    )


def prompt_errors(
    phi: NDArray[np.float32], standard_errors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return a bound on the standard error of each predicted loss, float64[N, M].

    Parameters
    ----------
    phi : float32[N, K]
        Cluster weights of the prompts.
    standard_errors : float32[K, M]
        `Router.standard_errors`.

    Notes
    -----
    The errors in several clusters, and under several heads, are taken to be wholly correlated: the
    standard error of a weighted mean is then the weighted mean of standard errors, and never
    larger.
    """
    # Each head's weights sum to 1.
    weights = phi.astype(np.float64)
    return np.asarray(weights @ standard_errors / weights.sum(axis=1, keepdims=True))


def _flip(
    decision: Decision,
    others: list[Alternative],
    lost: Mapping[str, float],
    choose: Callable[[float], Decision],
    *,
    upwards: bool,
) -> Flip | None:
    """Find where the choice changes, first by the lines' crossings, then to the last bit.

    ``lost`` is what each LLM costs besides its own cost, for leaving another one.
    """
    weight, chosen = decision.cost_weight, decision.index
    saved = {o.index: decision.cost + lost[decision.model] - o.cost - lost[o.model] for o in others}
    rivals = [o for o in others if (saved[o.index] > 0 if upwards else saved[o.index] < 0)]
    if not rivals or (not upwards and weight == 0):
        return None
    crossings = [(o.predicted_loss - decision.predicted_loss) / saved[o.index] for o in rivals]
    if upwards:
        beyond = 2 * max(min(crossings), weight, 1e-300)
        while choose(beyond).index == chosen:
            if not np.isfinite(2 * beyond):
                return None
            beyond *= 2
    else:
        beyond = 0.0
        if choose(beyond).index == chosen:
            return None
    # The winner changes once on the way: halve the floats between the two, which are ordered as
    # their bits are.
    inside, outside = _bits(weight), _bits(beyond)
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        if choose(_float(middle)).index == chosen:
            inside = middle
        else:
            outside = middle
    flipped = _float(outside)
    return Flip(flipped, choose(flipped).model)


def _switch(
    snapshot: Snapshot, current: str, switch_cost: float | None, cached_tokens: int | None
) -> float:
    """Return what leaving an LLM costs, as the router counts it."""
    if switch_cost is not None:
        return float(switch_cost)
    info = snapshot.info(current)
    saved = (info.input_price or 0.0) - (info.cached_input_price or 0.0)
    return max(saved / 1e6 * (cached_tokens or 0), 0.0)


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


def _float(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))
