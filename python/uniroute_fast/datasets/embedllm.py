"""EmbedLLM: right and wrong answers of 112 open LLMs (arXiv 2410.02223)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from uniroute_fast._checks.extras import imported
from uniroute_fast.datasets.collect import Collector
from uniroute_fast.datasets.prices import Costs, read_costs
from uniroute_fast.datasets.source import files_in, local_copy
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from uniroute_fast.datasets.dataset import Dataset

FILES = ("train.csv", "val.csv", "test.csv")
COLUMNS = ("prompt_id", "prompt", "model_name", "category", "label")


def from_embedllm(source: str | os.PathLike[str] = "RZ412/EmbedLLM", *, costs: Costs) -> Dataset:
    """Load EmbedLLM.

    Parameters
    ----------
    source : str or path-like
        One of its files, a folder with ``train.csv``, ``val.csv`` and ``test.csv`` or some of
        them, or its name on the Hugging Face hub. A row is one LLM's answer to one prompt:
        ``prompt_id``, ``prompt``, ``model_name``, ``category`` and ``label`` (1 right, 0 wrong).
    costs : path or mapping
        Cost of each LLM: a CSV file with the columns model and cost, or a dict. The data holds
        none.

    Returns
    -------
    Dataset
        Prompts are called after their file and their id, ``train/17``.

    Raises
    ------
    DatasetError
        Files that cannot be used; the message names file and row.
    MissingExtraError
        The extra ``datasets`` is not installed.
    """
    pa, csv = (imported(name, "datasets", "EmbedLLM") for name in ("pyarrow", "pyarrow.csv"))
    folder = local_copy(source, FILES)
    collector = Collector("EmbedLLM")
    strings = {column: pa.string() for column in COLUMNS if column != "label"}
    for file in files_in(folder, FILES):
        try:
            batches = csv.open_csv(
                file,
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    include_columns=COLUMNS, column_types=strings | {"label": pa.float64()}
                ),
            )
            row = 0
            for batch in batches:
                for prompt, text, model, category, label in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    where = f"{file}, row {row}"
                    row += 1
                    name = f"{file.stem}/{prompt}"
                    collector.prompt(name, category or "", text, where)
                    collector.outcome(name, model, label, where)
        except (pa.ArrowException, KeyError, MemoryError) as error:
            raise DatasetError(f"{file}: not a table of EmbedLLM: {error}") from error
    return collector.dataset(*read_costs(costs))
