"""DuckDB: the router as a SQL function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported
from uniroute_fast.integrations.engine import decide_struct

if TYPE_CHECKING:
    from uniroute_fast.batch import BatchRouter

#: SQL types of the decisions.
TYPES = ("VARCHAR", "FLOAT", "DOUBLE", "INTEGER", "FLOAT", "VARCHAR")


def register(connection: Any, router: BatchRouter, name: str = "uniroute") -> None:
    """Make a SQL function of a text that returns the router's decision as a struct.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    router : BatchRouter
        Its ``text_column`` does not matter here.
    name : str
        Of the function: ``SELECT uniroute(text).model FROM log``.

    Raises
    ------
    MissingExtraError
        DuckDB is not installed (extra ``duckdb``).
    """
    imported("duckdb", "duckdb", "DuckDB")
    fields = dict(zip(router.names, TYPES, strict=True))
    members = ", ".join(f'"{field}" {kind}' for field, kind in fields.items())
    # Nulls are given to the router too, which has a status for them.
    connection.create_function(
        name,
        lambda texts: decide_struct(router, texts),
        ["VARCHAR"],
        f"STRUCT({members})",
        type="arrow",
        null_handling="special",
    )
