"""What LLMs cost, for data that does not say."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from uniroute_fast.datasets.folder import read_models
from uniroute_fast.errors import DatasetError

#: A CSV file with the columns model and cost, or the costs by model.
Costs: TypeAlias = "str | os.PathLike[str] | Mapping[str, float]"

#: A CSV file with the columns model, input and output, or (input, output) by model: USD for a
#: million tokens.
Prices: TypeAlias = "str | os.PathLike[str] | Mapping[str, tuple[float, float]]"


def read_costs(costs: Costs) -> tuple[Mapping[str, float], str]:
    """Return costs by model, and their unit.

    Raises
    ------
    DatasetError
        A file that cannot be used; the message names column and row.
    """
    if isinstance(costs, Mapping):
        return costs, "cost"
    models, values, unit = read_models(Path(costs))
    return dict(zip(models, values, strict=True)), unit


def read_prices(prices: Prices) -> Mapping[str, tuple[float, float]]:
    """Return prices of input and output by model.

    Raises
    ------
    DatasetError
        A file that cannot be used; the message names column and row.
    """
    if isinstance(prices, Mapping):
        return prices
    file = Path(prices)
    if not file.is_file():
        raise DatasetError(f"{file}: no such file")
    found: dict[str, tuple[float, float]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            for column in ("model", "input", "output"):
                if column not in (reader.fieldnames or ()):
                    raise DatasetError(f"{file}: no column {column!r}; it has {reader.fieldnames}")
            for row, record in enumerate(reader):
                if record["model"] in found:
                    raise DatasetError(
                        f"{file}: column 'model', row {row}: {record['model']!r} appears twice"
                    )
                found[record["model"]] = (
                    _price(file, row, record, "input"),
                    _price(file, row, record, "output"),
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: not a CSV file that can be read: {error}") from error
    return found


def _price(file: Path, row: int, record: dict[str, str], column: str) -> float:
    try:
        price = float(record[column] or "")
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise DatasetError(
            f"{file}: column {column!r}, row {row}: {record[column]!r} is not a finite price of "
            "0 or more"
        )
    return price
