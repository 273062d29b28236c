"""Arguments that are no arrays: numbers, counts, names, paths, checked, with errors that name them.

Booleans are no numbers: ``True`` as a cost is a slip.
"""

from __future__ import annotations

import math
import numbers
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

if TYPE_CHECKING:
    pass


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
