"""Why a prompt goes to the LLM that it goes to, and what would change that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.scalars import as_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import (
        Alternative,
        Constraints,
        Decision,
        Exclusion,
        Prompts,
        Snapshot,
    )
    from uniroute_fast.clusters.examples import Examples


#: Shares out of distribution from this one on are shown: most prompts have a little.
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
    out_of_distribution : float
        How far the prompt is unlike those that the router was fitted on, 0 to 1: the share of its
        weight that lies on backgrounds. So far what is predicted of an LLM is blind to the prompt.
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
    out_of_distribution: float
    standard_errors: dict[str, float]
    typical_prompts: dict[int, list[str]]

    def __str__(self) -> str:
        """Return the explanation in a few lines."""
        chosen = self.decision
        lines = [
            f"{chosen.model}: {self._predicted(chosen)}, cost {chosen.cost:g}, "
            f"at cost weight {chosen.cost_weight:g}"
            + (", kept for the conversation" if chosen.stayed else ""),
            "clusters: " + ", ".join(f"{k} ({weight:.0%})" for k, weight in self.clusters[:5]),
        ]
        if self.out_of_distribution >= WORTH_TELLING:
            share = f"{self.out_of_distribution:.0%}"
            lines.append(
                f"out of distribution: {share} of what is predicted is blind to the prompt"
            )
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
        known = "" if error is None else f" (standard error {error:.4f})"
        return f"predicted loss {one.predicted_loss:.4f}{known}"

    @property
    def _objective(self) -> float:
        chosen = self.decision
        return chosen.predicted_loss + chosen.cost_weight * chosen.cost


def explain(
    snapshot: Snapshot,
    text: str | Prompts | None,
    cost_weight: float,
    *,
    embeddings: ArrayLike | None,
    constraints: Constraints | None,
    tokens: int | None,
    current_model: str | None = None,
    switch_cost: float | None = None,
    cached_tokens: int | None = None,
    standard_errors: NDArray[np.float32] | None = None,
    typical: Examples | None = None,
) -> Explanation:
    """Explain one decision over a snapshot; see `Router.explain`."""
    decision = snapshot.route(
        text,
        as_number("cost_weight", cost_weight, 0),
        embeddings=embeddings,
        constraints=constraints,
        tokens=tokens,
        current_model=current_model,
        switch_cost=switch_cost,
        cached_tokens=cached_tokens,
    )
    found = decision._explain()
    own, weights = zip(*found["clusters"], strict=True)
    errors = {}
    if standard_errors is not None:
        phi = np.array([weights], np.float32)
        of_prompt = prompt_errors(phi, standard_errors[list(own)])[0]
        errors = {
            name: float(error)
            for name, error in zip(snapshot.models, of_prompt, strict=True)
            if not np.isnan(error)
        }
    return Explanation(
        decision=decision,
        clusters=found["clusters"],
        backgrounds=frozenset(found["backgrounds"]),
        alternatives=found["alternatives"],
        excluded=found["excluded"],
        runner_up=found["runner_up"],
        margin=found["margin"],
        flip_up=_flip(found["flip_up"]),
        flip_down=_flip(found["flip_down"]),
        flip_price=found["flip_price"],
        out_of_distribution=found["out_of_distribution"],
        standard_errors=errors,
        typical_prompts={} if typical is None else {k: typical.prompts[k] for k in own},
    )


def _flip(found: tuple[float, str] | None) -> Flip | None:
    return None if found is None else Flip(*found)


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
