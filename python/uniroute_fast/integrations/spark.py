"""Spark: a data frame routed by its executors, in Arrow batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported

if TYPE_CHECKING:
    from uniroute_fast.batch import BatchRouter

#: Spark's types of the decisions.
TYPES = ("string", "float", "double", "integer", "float", "string")


def route_dataframe(frame: Any, router: BatchRouter) -> Any:
    """Return a data frame with the decision columns appended.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
    router : BatchRouter
        Made from a path that every executor can read, or from a router, which is then sent to
        each. A Python worker loads it once for each task.

    Returns
    -------
    pyspark.sql.DataFrame
        Lazy, as Spark's are; no shuffle.

    Raises
    ------
    MissingExtraError
        PySpark is not installed (extra ``spark``).
    """
    types = imported("pyspark.sql.types", "spark", "Spark")
    schema = types.StructType(list(frame.schema.fields))
    for name, kind in zip(router.names, TYPES, strict=True):
        schema = schema.add(name, kind)
    return frame.mapInArrow(router.over, schema)
