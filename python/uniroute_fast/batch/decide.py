"""Record batch in, record batch out: the decision columns of a batch of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast.router import Router

#: The columns that routing adds, in this order.
COLUMNS = ("model", "predicted_loss", "cost", "cluster", "coverage", "status")


class BatchRouter:
    """Adds the router's decisions to Arrow tables and record batches.

    Picklable: it carries the path of the pool, or the router itself, and loads the pool once in
    each process that uses it. That makes it the one callable for every engine.

    Parameters
    ----------
    pool : Router or path
    cost_weight : float
        Finite, 0 or more.
    text_column : str
        Holds the prompts: strings, or bytes of UTF-8.
    messages_column : str, optional
        In place of ``text_column``: lists of chat messages, structs of ``role`` and ``content``;
        the last content of role "user" is routed.
    prefix : str
        Put before the names of the added columns.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import uniroute_fast as uf
    >>> from uniroute_fast.batch import BatchRouter
    >>> texts = ["2 + 2", "name a river"] * 10
    >>> router = uf.Router.fit(texts, n_clusters=2)
    >>> router.add_model("small", cost=1.0, texts=texts, losses=[0.0, 0.5] * 10)
    >>> routed = BatchRouter(router)(pa.table({"text": ["3 + 4", None]}))
    >>> routed.column("model").to_pylist(), routed.column("status").to_pylist()
    (['small', None], ['ok', 'null'])
    """

    def __init__(
        self,
        pool: Router | str | os.PathLike[str],
        cost_weight: float = 0.0,
        *,
        text_column: str = "text",
        messages_column: str | None = None,
        prefix: str = "",
    ) -> None:
        if not (np.isfinite(cost_weight) and cost_weight >= 0):
            raise InvalidArgumentError(
                f"cost_weight: {cost_weight}; expected a finite number, 0 or more"
            )
        self.pool = pool
        self.cost_weight = float(cost_weight)
        self.text_column = text_column
        self.messages_column = messages_column
        self.prefix = prefix
        self._router: Router | None = None
        self._names: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a process loads for itself."""
        return self.__dict__ | {"_router": None, "_names": None}

    @property
    def router(self) -> Router:
        """The router, loaded when first asked for."""
        from uniroute_fast.router import Router

        if self._router is None:
            self._router = self.pool if isinstance(self.pool, Router) else Router.load(self.pool)
        return self._router

    @property
    def names(self) -> list[str]:
        """Names of the columns that are added."""
        return [self.prefix + name for name in COLUMNS]

    def check_schema(self, schema: Any) -> None:
        """Refuse a schema without the prompts' column, or that already has an added one.

        Raises
        ------
        InvalidArgumentError
        """
        self._text_type(schema)
        taken = [name for name in self.names if name in schema.names]
        if taken:
            raise InvalidArgumentError(
                f"column {taken[0]!r}: the input has it already; expected another name: "
                "give a prefix for the added columns"
            )

    def output_schema(self, schema: Any) -> Any:
        """Return the schema of the output for that of the input."""
        pa = pyarrow()
        self.check_schema(schema)
        kinds = (pa.string(), pa.float32(), pa.float64(), pa.int32(), pa.float32(), pa.string())
        for name, kind in zip(self.names, kinds, strict=True):
            schema = schema.append(pa.field(name, kind))
        return schema

    def __call__(self, batch: Any) -> Any:
        """Return the table or record batch with the decision columns appended.

        Rows that cannot be routed have nulls and a status that says why: "null", "empty",
        "blank", "unknown" or "invalid".
        """
        self.check_schema(batch.schema)
        for name, column in zip(self.names, self.decide(self.texts(batch)), strict=True):
            batch = batch.append_column(name, column)
        return batch

    def texts(self, batch: Any) -> Any:
        """Return the prompts of a table or record batch as an Arrow array of strings."""
        from uniroute_fast.batch.messages import last_user_content

        self._text_type(batch.schema)
        if self.messages_column is not None:
            return last_user_content(batch.column(self.messages_column))
        return _as_strings(batch.column(self.text_column))

    def decide(
        self,
        texts: Any,
        cost_weight: ArrayLike | None = None,
        statuses: dict[int, str] | None = None,
    ) -> list[Any]:
        """Route texts and return the arrays of `COLUMNS`.

        Parameters
        ----------
        texts : list[str] or Arrow string array
        cost_weight : float, optional
            In place of the one given at first.
        statuses : dict of int to str, optional
            Rows whose status is known better than the router can tell.
        """
        pa = pyarrow()
        weight = self.cost_weight if cost_weight is None else cost_weight
        decisions = self.router.route_batch(texts, weight)
        if self._names is None:
            self._names = pa.array(self.router.models, pa.string())
        ok: NDArray[np.bool_] = decisions.ok
        failed = None if ok.all() else ~ok
        if failed is None:
            status = pa.repeat(pa.scalar("ok"), len(ok))
        else:
            names = decisions.status
            for row, name in (statuses or {}).items():
                names[row] = name
            status = pa.array(names, pa.string())

        def column(values: NDArray[Any], kind: Any) -> Any:
            return pa.array(values, kind, mask=failed)

        cluster = decisions.cluster.view(np.int32)
        return [
            self._names.take(column(decisions.index, pa.uint32())),
            column(decisions.predicted_loss, pa.float32()),
            column(decisions.cost, pa.float64()),
            column(cluster, pa.int32()),
            column(decisions.coverage, pa.float32()),
            status,
        ]

    def _text_type(self, schema: Any) -> None:
        pa = pyarrow()
        name = self.messages_column or self.text_column
        if name not in schema.names:
            raise InvalidArgumentError(
                f"column {name!r}: not in the input, which has {schema.names[:8]}"
            )
        kind = schema.field(name).type
        if self.messages_column is not None:
            right = pa.types.is_list(kind) or pa.types.is_large_list(kind)
            right = right and pa.types.is_struct(kind.value_type)
            expected = "a list of structs of role and content"
        else:
            value = kind.value_type if pa.types.is_dictionary(kind) else kind
            right = any(
                test(value)
                for test in (
                    pa.types.is_string,
                    pa.types.is_large_string,
                    pa.types.is_string_view,
                    pa.types.is_binary,
                    pa.types.is_large_binary,
                    pa.types.is_null,
                )
            )
            expected = "strings"
        if not right:
            raise InvalidArgumentError(f"column {name!r}: is {kind}; expected {expected}")


def _as_strings(column: Any) -> Any:
    """Return a column as strings; bytes are taken for UTF-8, which the router checks."""
    pa = pyarrow()
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    strings = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string()}.get(kind)
    if strings is None:
        return column
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array(
        [
            pa.Array.from_buffers(strings, len(c), c.buffers(), c.null_count, c.offset)
            for c in chunks
        ],
        strings,
    )
