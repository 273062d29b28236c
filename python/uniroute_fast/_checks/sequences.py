"""Arguments of many values that have an order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.scalars import as_string
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_sequence(argument: str, values: Any) -> Any:
    """Return values that have an order and a length, as they are or listed."""
    if isinstance(values, (str, bytes)):
        raise ArgumentTypeError(f"{argument}: a single {type(values).__name__}; expected many")
    if isinstance(values, (set, frozenset, dict)):
        raise ArgumentTypeError(
            f"{argument}: a {type(values).__name__}, whose order is not that of the other "
            "arguments; expected a list or an array"
        )
    if getattr(values, "shape", None) == ():
        raise ArgumentTypeError(f"{argument}: an array of no dimensions; expected one of many")
    if hasattr(values, "__len__") and not isinstance(values, type):
        return values
    if not hasattr(values, "__iter__") or isinstance(values, type):
        raise ArgumentTypeError(f"{argument}: a {type(values).__name__}; expected a list")
    return list(values)


def as_strings(argument: str, values: Any) -> list[str]:
    """Return a list of strs that are valid Unicode."""
    return [as_string(argument, value, i) for i, value in enumerate(as_sequence(argument, values))]


def as_names(names: Sequence[str]) -> list[str]:
    """Return names of LLMs, one at least."""
    listed = as_strings("names", names)
    if not listed:
        raise InvalidArgumentError("names: no model; expected at least one")
    return listed
