"""Choosing among the LLMs that a gateway can call, which need not be the whole pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._native import Constraints
from uniroute_fast.errors import InvalidArgumentError, NoCandidateError, UnroutableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from uniroute_fast.router import Router


def refuse_allow(constraints: Constraints | None, sayer: str) -> None:
    """Fail on constraints that list what is allowed, which is for `sayer` to say."""
    if constraints is not None and "allow" in constraints._arguments():
        raise InvalidArgumentError(f"constraints: with allow; expected {sayer} to say it")


def allowing(names: Iterable[str], constraints: Constraints | None) -> Constraints:
    """Return constraints without ``allow`` as such with it: the LLMs of these names alone."""
    given = {} if constraints is None else constraints._arguments()
    return Constraints(**{**given, "allow": [_literal(name) for name in names]})


def route_among(
    router: Router,
    text: str,
    cost_weight: float,
    constraints: Constraints,
    names: Collection[str],
) -> str:
    """Return the LLM that takes a prompt; `constraints` are those of `allowing` for `names`.

    A prompt that cannot be embedded goes to the LLM with the least mean of predicted loss over the
    clusters + cost weight x cost.
    """
    try:
        return router.route(text, cost_weight, constraints=constraints).model
    except UnroutableError:
        pass
    snapshot = router.snapshot()
    objective = snapshot.profiles.mean(axis=0, dtype=np.float64) + cost_weight * snapshot.costs
    known = [i for i, name in enumerate(snapshot.models) if name in names]
    usable = [i for i in known if snapshot.enabled[i]]
    if not usable:
        raise NoCandidateError("models: none is left for this prompt")
    return snapshot.models[min(usable, key=lambda i: objective[i])]


def _literal(name: str) -> str:
    """Return a pattern that matches a name alone: brackets stand for what globs read otherwise."""
    return "".join(f"[{c}]" if c in "*?[{\\" else c for c in name)
