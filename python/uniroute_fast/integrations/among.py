"""Choosing among the LLMs that a gateway can call, which need not be the whole pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.instances import as_constraints
from uniroute_fast._native import Constraints
from uniroute_fast.costs.tokens import estimate_tokens
from uniroute_fast.errors import InvalidArgumentError, UnroutableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uniroute_fast._native import Alternative, Decision
    from uniroute_fast.router import Router


def refuse_allow(constraints: Constraints | None, sayer: str) -> None:
    """Fail on constraints that list what is allowed, which is for `sayer` to say."""
    as_constraints(constraints)
    if constraints is not None and "allow" in constraints._arguments():
        raise InvalidArgumentError(f"constraints: with allow; expected {sayer} to say it")


def allowing(names: Iterable[str], constraints: Constraints | None) -> Constraints:
    """Return constraints without ``allow`` as such with it: the LLMs of these names alone."""
    allowed = Constraints(allow=[_literal(name) for name in names])
    return allowed if constraints is None else constraints & allowed


def route_among(
    router: Router,
    text: str,
    cost_weight: float,
    constraints: Constraints,
) -> str:
    """Return the LLM that takes a prompt; `constraints` are those of `allowing`.

    A prompt that cannot be embedded goes to the LLM with the least mean of predicted loss over the
    clusters + cost weight x cost, among those that meet the constraints.
    """
    try:
        return router.route(text, cost_weight, constraints=constraints).model
    except UnroutableError:
        pass
    snapshot = router.snapshot()
    nothing = np.zeros((1, snapshot.dim), np.float32)
    # Routed for the sake of who may answer: of the prompt this says nothing.
    decision = snapshot.route(
        embeddings=nothing,
        constraints=constraints,
        tokens=int(estimate_tokens([text])[0]),
    )
    heads = round(float(snapshot.phi(embeddings=nothing).sum()))
    losses = heads * snapshot.profiles.mean(axis=0, dtype=np.float64)
    able: list[Decision | Alternative] = [decision, *decision.alternatives]
    best = min(able, key=lambda m: (losses[m.index] + cost_weight * m.cost, m.cost, m.index))
    return best.model


def _literal(name: str) -> str:
    """Return a pattern that matches a name alone: brackets stand for what globs read otherwise."""
    return "".join(f"[{c}]" if c in "*?[{\\" else c for c in name)
