"""pyarrow, which the extra ``batch`` installs."""

from __future__ import annotations

from typing import Any

from uniroute_fast._checks.extras import imported


def pyarrow() -> Any:
    """Return the module, or raise `MissingExtraError`."""
    return imported("pyarrow", "batch", "routing files")
