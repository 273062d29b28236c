"""Arguments that are no arrays: numbers, counts, names, paths, checked, with errors that name them.

Booleans are no numbers: ``True`` as a cost is a slip.
"""

from __future__ import annotations

import math
import numbers
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniroute_fast.router import Router


def as_number(
    argument: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> float:
    """Return a finite number from `least` to `most`; with `above` and `below` not these themselves.

    Raises
    ------
    ArgumentTypeError
        No real number.
    InvalidArgumentError
        A number that is not finite, or out of range.
    """
    expected = "a number"
    if most < math.inf:
        start, end = "above" if above else "from", "below" if below else "to"
        expected += f" {start} {least:g} {end} {most:g}"
    elif least > -math.inf:
        expected += f" above {least:g}" if above else f", {least:g} or more"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    # NumPy says that durations are integers.
    none = (bool, np.bool_, np.timedelta64)
    if isinstance(value, none) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"{argument}: a {type(value).__name__}; expected {expected}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    inside = (number > least or (number == least and not above)) and (
        number < most or (number == most and not below)
    )
    if not (math.isfinite(number) and inside):
        raise InvalidArgumentError(f"{argument}: {number:g}; expected {expected}, finite")
    return number


def as_count(argument: str, value: Any, least: int, most: int) -> int:
    """Return an integer from `least` to `most`; NumPy's integers are integers."""
    none = (bool, np.timedelta64)
    if isinstance(value, none) or not isinstance(value, (int, np.integer)):
        raise ArgumentTypeError(
            f"{argument}: a {type(value).__name__}; expected an integer, {least} to {most}"
        )
    if not least <= value <= most:
        raise InvalidArgumentError(f"{argument}: {shown(value)}; expected {least} to {most}")
    return int(value)


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


def as_router(argument: str, value: Any) -> Router | _native.Snapshot:
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


def as_string(argument: str, value: Any, index: int | None = None) -> str:
    """Return a str that is valid Unicode; `index` says where among many it stands."""
    where = "" if index is None else f" at index {index}"
    if not isinstance(value, str):
        throughout = "" if index is None else " throughout"
        raise ArgumentTypeError(
            f"{argument}: a {type(value).__name__}{where}; expected str{throughout}"
        )
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidArgumentError(
            f"{argument}: {value!r}{where} has a lone surrogate; expected valid Unicode"
        )
    # Not `str(value)`, which is another text for members of an Enum.
    return str.__str__(value)


def as_names(names: Sequence[str]) -> list[str]:
    """Return names of LLMs, one at least."""
    listed = as_strings("names", names)
    if not listed:
        raise InvalidArgumentError("names: no model; expected at least one")
    return listed


def as_path(argument: str, path: str | os.PathLike[str]) -> str:
    """Return a path as a non-empty str."""
    try:
        text = os.fspath(path)
    except TypeError:
        raise ArgumentTypeError(
            f"{argument}: a {type(path).__name__}; expected str or os.PathLike"
        ) from None
    if not isinstance(text, str) or not text:
        raise InvalidArgumentError(f"{argument}: {text!r}; expected a non-empty str")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{argument}: {text!r}; expected a name of a file") from None
    return text


def at_least(value: float) -> str:
    """Return a least value as a message shows it: four digits, rounded up so that it will do."""
    if not value > 0:
        return f"{value:g}"
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit) * unit:.4g}"


def shown(value: Any) -> str:
    """Return a value as a message shows it: its start, where it is long, and printable."""
    try:
        text = str(value)
    except ValueError:  # Python prints no integer of very many digits.
        text = f"an integer of {value.bit_length()} bits"
    start = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:40])
    return start if len(text) <= 40 else f"{start}..."
