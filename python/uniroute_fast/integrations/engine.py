"""What all engines share: the decisions as a struct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniroute_fast.batch import BatchRouter


def decide_struct(router: BatchRouter, texts: Any) -> Any:
    """Return the decisions on an Arrow array of texts as one array of structs."""
    import pyarrow as pa

    from uniroute_fast.batch.prompter import Prompts

    return pa.StructArray.from_arrays(router.decide(Prompts(texts)), names=router.names)
