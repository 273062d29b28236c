"""What all engines share: importing one, and the decisions as a struct."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from uniroute_fast.errors import MissingExtraError

if TYPE_CHECKING:
    from uniroute_fast.batch import BatchRouter


def engine(module: str, extra: str) -> Any:
    """Import an engine, or raise `MissingExtraError`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not installed: pip install 'uniroute_fast[{extra}]'"
        ) from error


def decide_struct(router: BatchRouter, texts: Any) -> Any:
    """Return the decisions on an Arrow array of texts as one array of structs."""
    import pyarrow as pa

    from uniroute_fast.batch.prompter import Prompts

    return pa.StructArray.from_arrays(router.decide(Prompts(texts)), names=router.names)
