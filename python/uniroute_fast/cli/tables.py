"""The files that commands read whole: prompts, scores, prices."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Kind of file by suffix.
KINDS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
}


def read_prompts(path: str, text_column: str) -> Any:
    """Read prompts as an Arrow table that has a column of texts.

    Parameters
    ----------
    path : str
        Parquet, JSON lines, CSV or Arrow with ``text_column``, or a .txt of one prompt a line.
    text_column : str
        Its name.

    Raises
    ------
    DatasetError
        The file cannot be read, has no rows or no such column of strings.
    """
    import pyarrow as pa

    table = read_table(path, text_column)
    require_column(path, table, text_column)
    kind = table.schema.field(text_column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DatasetError(f"{path}: column {text_column!r} is {kind}; expected strings")
    return table


def read_table(path: str, text_column: str = "text") -> Any:
    """Read a file whole, by its suffix, as an Arrow table of one row or more.

    Lines of a .txt file become the column ``text_column``.
    """
    pa = imported("pyarrow", "fit", "a table")
    file = Path(path)
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        raise DatasetError(f"{path}: unknown suffix; expected one of {', '.join(KINDS)}")
    if not file.is_file():
        raise DatasetError(f"{path}: no such file")
    try:
        table = _read(file, kind, text_column)
        # Also that all strings, and the names of columns, are UTF-8.
        table.validate(full=True)
        repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    except (pa.ArrowException, UnicodeDecodeError, MemoryError) as error:
        raise DatasetError(f"{path}: not a {kind} file that can be read: {error}") from error
    if not table.num_rows:
        raise DatasetError(f"{path}: no rows")
    if repeated:
        raise DatasetError(f"{path}: column {min(repeated)!r} appears twice")
    return table


def _read(file: Path, kind: str, text_column: str) -> Any:
    import pyarrow as pa

    if kind == "parquet":
        import pyarrow.parquet as pq

        return pq.read_table(file)
    if kind == "jsonl":
        from pyarrow import json

        return json.read_json(file)
    if kind == "csv":
        from pyarrow import csv as arrow_csv

        newlines = arrow_csv.ParseOptions(newlines_in_values=True)
        return arrow_csv.read_csv(file, parse_options=newlines)
    if kind == "arrow":
        from pyarrow import feather

        return feather.read_table(file)
    return pa.table({text_column: file.read_text(encoding="utf-8").splitlines()})


def require_column(path: str, table: Any, column: str) -> None:
    """Refuse a table without a column."""
    if column not in table.column_names:
        raise DatasetError(f"{path}: no column {column!r}; it has {table.column_names[:8]}")


def read_ids(path: str, table: Any, column: str) -> list[str]:
    """Return a column of unique ids as strings; numbers in their decimal form."""
    require_column(path, table, column)
    ids: list[str] = []
    first: dict[str, int] = {}
    for row, value in enumerate(table[column].to_pylist()):
        if not isinstance(value, str | int):
            raise DatasetError(f"{path}: column {column!r}, row {row}: {value!r} is no id")
        ids.append(str(value))
        if first.setdefault(ids[-1], row) != row:
            raise DatasetError(
                f"{path}: column {column!r}: {value!r} appears twice, in rows "
                f"{first[ids[-1]]} and {row}"
            )
    return ids


def read_losses(
    path: str, ids: list[str], prompts: str, models: list[str] | None, id_column: str
) -> tuple[list[str], NDArray[np.float64]]:
    """Read a table of scores and return it as losses, in the order of the prompts.

    Parameters
    ----------
    path : str
        ``id_column``, then one column a model: scores in [0, 1], higher is better; null or NaN =
        not run.
    ids : list of str
        The prompts'; each must have a row. Rows of other prompts are left out.
    prompts : str
        Where they come from, for the message.
    models : list of str, optional
        The columns wanted. Default: all but the id.
    id_column : str

    Returns
    -------
    models : list of str
    losses : float64[len(ids), len(models)]
        ``1 - score``.
    """
    table = read_table(path)
    row_of = {name: row for row, name in enumerate(read_ids(path, table, id_column))}
    missing = [name for name in ids if name not in row_of]
    if missing:
        raise DatasetError(
            f"{path}: column {id_column!r}: no row for {len(missing)} of the {len(ids)} prompts "
            f"of {prompts}, such as {missing[0]!r}"
        )
    if models is None:
        models = [name for name in table.column_names if name != id_column]
        if not models:
            raise DatasetError(f"{path}: no column beside {id_column!r}; expected one for each LLM")
    scores = np.empty((table.num_rows, len(models)))
    for position, name in enumerate(models):
        require_column(path, table, name)
        scores[:, position] = _scores(path, table[name], name)
    return models, 1.0 - scores[[row_of[name] for name in ids]]


def _scores(path: str, column: Any, name: str) -> NDArray[np.float64]:
    import pyarrow as pa

    try:
        values: NDArray[np.float64] = column.cast("float64").to_numpy()
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: column {name!r} is {column.type}; expected numbers") from error
    bad = np.flatnonzero((values < 0) | (values > 1))
    if len(bad):
        raise DatasetError(
            f"{path}: column {name!r}, row {bad[0]}: {values[bad[0]]:g} is outside [0, 1]"
        )
    return values


def read_costs(path: str) -> dict[str, float]:
    """Read the columns ``model`` and ``cost`` of a CSV file."""
    costs: dict[str, float] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            for column in ("model", "cost"):
                if column not in (reader.fieldnames or ()):
                    raise DatasetError(f"{path}: no column {column!r}; it has {reader.fieldnames}")
            for row, record in enumerate(reader):
                name = record["model"]
                if not name:
                    raise DatasetError(f"{path}: column 'model', row {row}: no name")
                if name in costs:
                    raise DatasetError(f"{path}: column 'model', row {row}: {name!r} appears twice")
                costs[name] = _cost(path, row, record["cost"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file that can be read: {error}") from error
    if not costs:
        raise DatasetError(f"{path}: no rows")
    return costs


def _cost(path: str, row: int, text: str | None) -> float:
    try:
        cost = float(text or "")
    except ValueError:
        cost = math.nan
    if not (math.isfinite(cost) and cost >= 0):
        raise DatasetError(
            f"{path}: column 'cost', row {row}: {text!r} is not a finite cost of 0 or more"
        )
    return cost
