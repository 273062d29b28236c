"""Polars: frames and expressions with the router's decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported
from uniroute_fast.integrations.engine import decide_struct

if TYPE_CHECKING:
    from uniroute_fast.batch import BatchRouter


def route_frame(frame: Any, router: BatchRouter) -> Any:
    """Return a frame with the decision columns appended.

    Parameters
    ----------
    frame : polars.DataFrame or polars.LazyFrame
        A lazy one stays lazy; it is routed when collected.
    router : BatchRouter

    Returns
    -------
    polars.DataFrame or polars.LazyFrame

    Raises
    ------
    InvalidArgumentError
        The prompts' column is missing or of another type, or an added one is there already.
    MissingExtraError
        Polars is not installed (extra ``polars``).
    """
    pl = imported("polars", "polars", "Polars")
    if isinstance(frame, pl.LazyFrame):
        added = {field.name: field.dtype for field in _struct(router).fields}
        schema = dict(frame.collect_schema()) | added
        return frame.map_batches(lambda part: route_frame(part, router), schema=schema)
    return pl.from_arrow(router(frame.to_arrow()))


def route_expr(text: Any, router: BatchRouter) -> Any:
    """Return an expression that gives the decisions on a column of texts, as structs.

    Parameters
    ----------
    text : polars.Expr or str
        The texts, or the name of their column.
    router : BatchRouter
        Its ``text_column`` does not matter here.

    Returns
    -------
    polars.Expr
        Structs of model, predicted_loss, cost, cluster, coverage and status.

    Raises
    ------
    MissingExtraError
        Polars is not installed (extra ``polars``).
    """
    pl = imported("polars", "polars", "Polars")
    column = pl.col(text) if isinstance(text, str) else text
    return column.map_batches(
        lambda texts: pl.Series(texts.name, decide_struct(router, texts.to_arrow())),
        return_dtype=_struct(router),
    )


def _struct(router: BatchRouter) -> Any:
    pl = imported("polars", "polars", "Polars")
    kinds = (pl.String, pl.Float32, pl.Float64, pl.Int32, pl.Float32, pl.String)
    return pl.Struct(dict(zip(router.names, kinds, strict=True)))
