"""Dask: a data frame routed partition by partition."""

from __future__ import annotations

import functools
import hashlib
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported

if TYPE_CHECKING:
    from uniroute_fast.batch import BatchRouter
    from uniroute_fast.batch.prompter import Prompts

#: Pools that a worker keeps loaded.
KEPT = 4


def route_frame(frame: Any, router: BatchRouter) -> Any:
    """Return a data frame with the decision columns appended.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
    router : BatchRouter
        Made from a path that every worker can read, or from a router, which is then sent along. A
        worker loads it once.

    Returns
    -------
    dask.dataframe.DataFrame
        Lazy, as Dask's are; no shuffle, and the same index. The added columns have the types of
        Arrow (`pandas.ArrowDtype`), all others stay as they are.

    Raises
    ------
    InvalidArgumentError
        The prompts' column is missing or of another type, or an added one is there already.
    MissingExtraError
        Dask's data frames are not installed (extra ``dask``).
    """
    imported("dask.dataframe", "dask", "Dask")
    import pandas as pd
    import pyarrow as pa

    schema = pa.Schema.from_pandas(frame._meta, preserve_index=False)
    added = list(router.output_schema(schema))[len(schema) :]
    meta = frame._meta.assign(
        **{new.name: pd.Series([], dtype=pd.ArrowDtype(new.type)) for new in added}
    )
    return frame.map_partitions(_routed, _Shipped.of(router), meta=meta)


@dataclass(frozen=True)
class _Shipped:
    """A router on its way to the workers.

    Its key also tells Dask that results of another pool under the same path are other results.
    """

    key: str
    router: BatchRouter = field(compare=False)

    @classmethod
    def of(cls, router: BatchRouter) -> _Shipped:
        state = pickle.dumps(router) + router.digest().encode()
        return cls(hashlib.sha256(state).hexdigest(), router)


@functools.lru_cache(maxsize=KEPT)
def _first(shipped: _Shipped) -> BatchRouter:
    """Return the first router that came with this key: every task brings one, not yet loaded."""
    return shipped.router


def _routed(part: Any, shipped: _Shipped) -> Any:
    """Return a partition, a frame of pandas, with its decisions."""
    import pandas as pd

    router = _first(shipped)
    columns = zip(router.names, router.decide(_prompts(part, router)), strict=True)
    return part.assign(
        **{
            name: pd.Series(pd.arrays.ArrowExtensionArray(column), index=part.index)
            for name, column in columns
        }
    )


def _prompts(part: Any, router: BatchRouter) -> Prompts:
    """Return the prompts of a partition; pandas lets a column hold objects of any types."""
    import pyarrow as pa

    column = part[router.messages_column or router.text_column]
    try:
        return router.prompts(pa.table({column.name: pa.Array.from_pandas(column)}))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        present = zip(column, column.notna(), strict=True)
        return router.prompts_of(value if there else None for value, there in present)
