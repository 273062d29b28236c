"""Arguments of a certain class: embedders, routers, constraints."""

from __future__ import annotations

from typing import Any

from uniroute_fast import _native
from uniroute_fast.errors import ArgumentTypeError


def as_instance(argument: str, value: Any, kind: Any, expected: str | None = None) -> Any:
    """Return a value that is of a class; `expected` says more than the name of the class."""
    if not isinstance(value, kind):
        expected = expected or f"a {kind.__name__}"
        raise ArgumentTypeError(f"{argument}: a {type(value).__name__}; expected {expected}")
    return value


def as_embedder(embedder: Any) -> Any:
    """Return an embedder, or None."""
    if embedder is not None and not callable(getattr(embedder, "embed", None)):
        raise ArgumentTypeError(
            f"embedder: a {type(embedder).__name__}; expected an object with embed(texts)"
        )
    return embedder


def as_router(argument: str, value: Any) -> _native.Router | _native.Snapshot:
    """Return a router, or a snapshot of one."""
    if not isinstance(value, _native.Routing):
        raise ArgumentTypeError(
            f"{argument}: a {type(value).__name__}; expected a Router, or a Snapshot of one"
        )
    return value  # type: ignore[return-value]


def as_snapshot(argument: str, value: Any) -> _native.Snapshot:
    """Return a snapshot, of a router the one at this moment: what it routes is no traffic."""
    router = as_router(argument, value)
    return router if isinstance(router, _native.Snapshot) else router.snapshot()


def as_constraints(value: Any) -> _native.Constraints | None:
    """Return constraints, or None."""
    if value is None:
        return None
    given: _native.Constraints = as_instance(
        "constraints", value, _native.Constraints, "Constraints, or None"
    )
    return given
