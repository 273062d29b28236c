"""pyarrow, which the extra ``batch`` installs."""

from __future__ import annotations

from typing import Any

from uniroute_fast.errors import MissingExtraError


def pyarrow() -> Any:
    """Return the module, or raise `MissingExtraError`."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError(
            "routing files needs pyarrow: pip install 'uniroute_fast[batch]'"
        ) from error
    return pa
