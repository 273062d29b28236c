"""SPROUT: judged answers of 13 or more LLMs with their tokens (arXiv 2502.03261)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported
from uniroute_fast.datasets.collect import Collector, as_number
from uniroute_fast.datasets.prices import Prices, read_prices
from uniroute_fast.datasets.source import files_in, local_copy
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from uniroute_fast.datasets.dataset import Dataset

FILES = ("train-*.parquet", "validation-*.parquet", "test-*.parquet")
#: What an LLM's column holds, of what is needed: the answers themselves are not read.
OUTCOME = ("score", "num_input_tokens", "num_output_tokens")
#: Rows that are read at once.
ROWS = 1 << 10


def from_sprout(
    source: str | os.PathLike[str] = "CARROT-LLM-Routing/SPROUT", *, prices: Prices
) -> Dataset:
    """Load SPROUT.

    Parameters
    ----------
    source : str or path-like
        One of its Parquet files, a folder with some, or its name on the Hugging Face hub. Columns:
        ``key``, ``dataset``, ``prompt``, and one for each LLM, a struct with ``score`` (in [0, 1]),
        ``num_input_tokens`` and ``num_output_tokens``.
    prices : path or mapping
        USD for a million tokens: a CSV file with the columns model, input and output, or a dict
        of pairs. The data holds tokens and no prices.

    Returns
    -------
    Dataset
        Costs are mean USD for a prompt. Prompts are called after their split and row.

    Raises
    ------
    DatasetError
        Files that cannot be used, or an LLM without a price; the message names file and row.
    MissingExtraError
        The extra ``datasets`` is not installed.
    """
    pa, pq = (imported(name, "datasets", "SPROUT") for name in ("pyarrow", "pyarrow.parquet"))
    priced = read_prices(prices)
    collector = Collector("SPROUT")
    for file in files_in(local_copy(source, [f"**/{name}" for name in FILES]), FILES):
        try:
            table = pq.ParquetFile(file)
            models = _models(file, table.schema_arrow, priced)
            wanted = ["dataset", "prompt", *(f"{m}.{part}" for m in models for part in OUTCOME)]
            row = 0
            for batch in table.iter_batches(ROWS, columns=wanted):
                for record in batch.to_pylist():
                    _add(collector, file, row, record, models, priced)
                    row += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
            raise DatasetError(f"{file}: not a Parquet file that can be read: {error}") from error
    return collector.dataset(collector.mean_costs(), "USD a prompt")


def _models(file: Path, schema: Any, priced: Any) -> list[str]:
    """Return the columns that are LLMs."""
    import pyarrow as pa

    for column in ("dataset", "prompt"):
        if column not in schema.names:
            raise DatasetError(f"{file}: no column {column!r}; it has {schema.names[:8]}")
    models = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and {inner.name for inner in field.type}.issuperset(OUTCOME)
    ]
    if not models:
        raise DatasetError(f"{file}: no column of an LLM: a struct with {', '.join(OUTCOME)}")
    missing = [model for model in models if model not in priced]
    if missing:
        raise DatasetError(
            f"{file}: no price for {missing[0]!r}, nor for {len(missing) - 1} others; expected "
            "model, input and output (USD for a million tokens)"
        )
    return models


def _add(
    collector: Collector,
    file: Path,
    row: int,
    record: dict[str, Any],
    models: list[str],
    priced: Any,
) -> None:
    where = f"{file}, row {row}"
    # Splits come in several files: each row has a name of its own.
    name = f"{file.stem}/{row}"
    collector.prompt(name, record["dataset"] or "", record["prompt"], where)
    for model in models:
        outcome = record[model] or {}
        if outcome.get("score") is None:
            continue
        tokens = [
            as_number(outcome[part], f"{where}, {model!r}", part)
            for part in ("num_input_tokens", "num_output_tokens")
        ]
        cost = sum(price * n for price, n in zip(priced[model], tokens, strict=True)) / 1e6
        collector.outcome(name, model, outcome["score"], where, cost)
