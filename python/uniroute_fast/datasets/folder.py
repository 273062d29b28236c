"""A dataset as a folder: ``prompts.parquet``, ``scores.parquet``, ``models.csv``."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.datasets.dataset import Dataset
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray


def load(path: str | os.PathLike[str]) -> Dataset:
    """Load a dataset folder.

    Parameters
    ----------
    path : str or path-like
        A folder with ``prompts.parquet`` (columns id, task, text; task may be absent),
        ``scores.parquet`` (id, then one column per LLM: score in [0, 1], null or NaN = not run)
        and ``models.csv`` (model, cost and, when wanted, cost_unit). Rows of the scores are
        matched to the prompts by id, columns to the models by name; both orders are free.

    Returns
    -------
    Dataset
        Prompts in the order of ``prompts.parquet``, LLMs in the order of ``models.csv``.

    Raises
    ------
    DatasetError
        A file is missing or cannot be read, ids or models do not match, or a value cannot be
        used; the message names file, column and row (counted from 0, without the header).
    MissingExtraError
        pyarrow is not installed (extra ``fit``).
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: not a folder")
    prompts = _read_parquet(folder / "prompts.parquet")
    scores = _read_parquet(folder / "scores.parquet")
    models, costs, unit = read_models(folder / "models.csv")

    ids = _strings(folder / "prompts.parquet", prompts, "id")
    texts = _strings(folder / "prompts.parquet", prompts, "text")
    tasks = (
        _strings(folder / "prompts.parquet", prompts, "task")
        if "task" in prompts.column_names
        else [""] * len(ids)
    )
    _refuse_repeats(folder / "prompts.parquet", "id", ids)
    rows = _match_ids(
        folder / "scores.parquet", ids, _strings(folder / "scores.parquet", scores, "id")
    )
    matrix = _score_matrix(folder, scores, models)[rows]
    return Dataset(folder.name, ids, tasks, texts, matrix, models, np.array(costs), unit)


def save(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Write a dataset as a folder that `load` reads back unchanged.

    Raises
    ------
    DatasetError
        There is something under its name, other than an empty folder.
    MissingExtraError
        pyarrow is not installed (extra ``fit``).
    """
    pa, pq = _pyarrow()
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder}: is no folder")
    if folder.exists() and any(folder.iterdir()):
        raise DatasetError(f"{folder}: exists and is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    prompts = {"id": dataset.ids, "task": dataset.tasks, "text": dataset.texts}
    columns = {"id": pa.array(dataset.ids, pa.string())}
    columns |= {m: pa.array(s) for m, s in zip(dataset.models, dataset.scores.T, strict=True)}
    table = pa.table({name: pa.array(column, pa.string()) for name, column in prompts.items()})
    with contextlib.ExitStack() as undone:

        def new(name: str) -> IO[bytes]:
            """Create a file, which goes again where the folder is not finished."""
            # Only where there is none, and no link either.
            file = (folder / name).open("xb")
            undone.callback((folder / name).unlink)
            return file

        with new("prompts.parquet") as file:
            pq.write_table(table, file)
        with new("scores.parquet") as file:
            pq.write_table(pa.table(columns), file)
        with new("models.csv") as file:
            file.write(_models_csv(dataset).encode())
        undone.pop_all()


def _models_csv(dataset: Dataset) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["model", "cost", "cost_unit"])
    for model, cost in zip(dataset.models, dataset.costs, strict=True):
        writer.writerow([model, repr(float(cost)), dataset.cost_unit])
    return text.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    pa, pq = (imported(name, "fit", "a dataset folder") for name in ("pyarrow", "pyarrow.parquet"))
    return pa, pq


def _read_parquet(file: Path) -> Any:
    pa, pq = _pyarrow()
    if not file.is_file():
        raise DatasetError(f"{file}: no such file")
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise DatasetError(f"{file}: not a parquet file that can be read: {error}") from error
    repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    if repeated:
        raise DatasetError(f"{file}: column {min(repeated)!r} appears twice")
    if not table.num_rows:
        raise DatasetError(f"{file}: no rows")
    return table


def _strings(file: Path, table: Any, column: str) -> list[str]:
    """Return a column as strings; ids that are numbers are taken as their decimal form."""
    if column not in table.column_names:
        raise DatasetError(f"{file}: no column {column!r}; it has {table.column_names[:5]}")
    values: list[Any] = table[column].to_pylist()
    for row, value in enumerate(values):
        if isinstance(value, int) and column == "id":
            values[row] = str(value)
        elif not isinstance(value, str):
            raise DatasetError(f"{file}: column {column!r}, row {row}: {value!r} is not a string")
    return values


def _refuse_repeats(file: Path, column: str, values: list[str]) -> None:
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        if first.setdefault(value, row) != row:
            raise DatasetError(
                f"{file}: column {column!r}: {value!r} appears twice, in rows {first[value]} "
                f"and {row}"
            )


def _match_ids(file: Path, ids: list[str], found: list[str]) -> NDArray[np.intp]:
    """Return, for every prompt, its row in the scores."""
    _refuse_repeats(file, "id", found)
    row_of = {name: row for row, name in enumerate(found)}
    missing = next((name for name in ids if name not in row_of), None)
    if missing is not None:
        raise DatasetError(f"{file}: column 'id': no row for prompt {missing!r}")
    if len(found) != len(ids):
        known = set(ids)
        row, name = next((r, name) for r, name in enumerate(found) if name not in known)
        raise DatasetError(
            f"{file}: column 'id', row {row}: {name!r} is not a prompt of prompts.parquet"
        )
    return np.array([row_of[name] for name in ids])


def _score_matrix(folder: Path, scores: Any, models: list[str]) -> NDArray[np.float64]:
    file = folder / "scores.parquet"
    columns = [name for name in scores.column_names if name != "id"]
    unknown = [name for name in columns if name not in set(models)]
    if unknown:
        raise DatasetError(
            f"{folder / 'models.csv'}: no row for model {unknown[0]!r} of {file.name}"
        )
    absent = [name for name in models if name not in set(columns)]
    if absent:
        raise DatasetError(f"{file}: no column for model {absent[0]!r} of models.csv")
    matrix = np.empty((scores.num_rows, len(models)))
    for position, name in enumerate(models):
        matrix[:, position] = _numbers(file, scores[name], name)
    return matrix


def _numbers(file: Path, column: Any, name: str) -> NDArray[np.float64]:
    try:
        values: NDArray[np.float64] = column.cast("float64").to_numpy().astype(np.float64)
    except Exception as error:
        raise DatasetError(f"{file}: column {name!r} is {column.type}, not numbers") from error
    with np.errstate(invalid="ignore"):
        bad = (values < 0) | (values > 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise DatasetError(f"{file}: column {name!r}, row {row}: {values[row]} is outside [0, 1]")
    if np.isnan(values).all():
        raise DatasetError(f"{file}: column {name!r} has no outcome at all")
    return values


def read_models(file: Path) -> tuple[list[str], list[float], str]:
    """Return names, costs and the unit of a file with the columns model, cost and cost_unit."""
    if not file.is_file():
        raise DatasetError(f"{file}: no such file")
    names: list[str] = []
    costs: list[float] = []
    unit: str | None = None
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            for column in ("model", "cost"):
                if column not in (reader.fieldnames or ()):
                    raise DatasetError(f"{file}: no column {column!r}; it has {reader.fieldnames}")
            for row, record in enumerate(reader):
                if not record["model"]:
                    raise DatasetError(f"{file}: column 'model', row {row}: no name")
                names.append(record["model"])
                costs.append(_cost(file, row, record["cost"]))
                here = record.get("cost_unit") or "cost"
                unit = here if unit is None else unit
                if here != unit:
                    raise DatasetError(
                        f"{file}: column 'cost_unit', row {row}: {here!r}, but {unit!r} in the "
                        "rows before; expected one unit for all"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: not a CSV file that can be read: {error}") from error
    if unit is None:
        raise DatasetError(f"{file}: no rows")
    _refuse_repeats(file, "model", names)
    return names, costs, unit


def _cost(file: Path, row: int, text: str | None) -> float:
    try:
        cost = float(text or "")
    except ValueError:
        cost = float("nan")
    if not (np.isfinite(cost) and cost >= 0):
        raise DatasetError(
            f"{file}: column 'cost', row {row}: {text!r} is not a finite cost of 0 or more"
        )
    return cost
