"""Record batch in, record batch out: the decision columns of a batch of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.scalars import as_number, as_string
from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.prompter import Prompter, Prompts
from uniroute_fast.errors import ArgumentTypeError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from uniroute_fast.router import Router

#: The columns that routing adds, in this order.
COLUMNS = ("model", "predicted_loss", "cost", "cluster", "coverage", "status")


class BatchRouter(Prompter):
    """Adds the router's decisions to Arrow tables and record batches.

    Picklable, and it loads the pool once in each process that uses it: the one callable for every
    engine.

    Parameters
    ----------
    pool : Router or path
    cost_weight : float
        Finite, 0 or more.
    text_column, messages_column
        As in `Prompter`.
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
        super().__init__(pool, text_column=text_column, messages_column=messages_column)
        self.cost_weight = as_number("cost_weight", cost_weight, 0)
        self.prefix = as_string("prefix", prefix)

    @property
    def names(self) -> list[str]:
        """Names of the columns that are added."""
        return [self.prefix + name for name in COLUMNS]

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
        "blank", "unknown", "invalid" or, of messages, "not text".
        """
        if not hasattr(batch, "schema"):
            raise ArgumentTypeError(
                f"batch: a {type(batch).__name__}; expected a table or record batch of Arrow"
            )
        self.check_schema(batch.schema)
        columns = self.decide(self.prompts(batch))
        for name, column in zip(self.names, columns, strict=True):
            batch = batch.append_column(name, column)
        return batch

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield each of many batches with its decisions, as Spark's ``mapInArrow`` wants it."""
        return map(self, batches)

    def decide(self, prompts: Prompts) -> list[Any]:
        """Route prompts and return the arrays of `COLUMNS`."""
        pa = pyarrow()
        inputs, failures = self.inputs(prompts.texts)
        decisions = self.router.route_batch(**inputs, cost_weight=self.cost_weight)
        failures |= prompts.statuses
        ok = decisions.ok
        ok[list(failures)] = False
        failed: NDArray[np.bool_] | None = None if ok.all() else ~ok
        if failed is None:
            status = pa.repeat(pa.scalar("ok"), len(ok))
        else:
            names = decisions.status
            for row, name in failures.items():
                names[row] = name
            status = pa.array(names, pa.string())

        def column(values: NDArray[Any], kind: Any) -> Any:
            return pa.array(values, kind, mask=failed)

        cluster = decisions.cluster.view(np.int32)
        return [
            pa.array(decisions.models, pa.string(), mask=failed),
            column(decisions.predicted_loss, pa.float32()),
            column(decisions.cost, pa.float64()),
            column(cluster, pa.int32()),
            column(decisions.coverage, pa.float32()),
            status,
        ]
