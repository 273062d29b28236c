"""Values that JSON can hold."""

from __future__ import annotations

import math
from typing import Any


def without_nan(value: Any) -> Any:
    """Return dicts, lists and numbers with None for NaN and infinities, which JSON does not know.

    Examples
    --------
    >>> without_nan({"p": (0.5, float("nan"))})
    {'p': [0.5, None]}
    """
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
