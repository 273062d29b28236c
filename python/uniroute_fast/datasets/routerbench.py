"""RouterBench: answers of 11 LLMs with scores and what each call cost (arXiv 2403.12031)."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.datasets.collect import Collector, as_number
from uniroute_fast.datasets.source import files_in, local_copy
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from uniroute_fast.datasets.dataset import Dataset

COST = "|total_cost"

#: What the pickle of a table of strings and numbers is made of, by pandas 1.5 to 3. A pickle may
#: name any function of any module, and unpickling calls it: no other name is looked up.
_TABLES = {
    "__builtin__": {"slice"},
    "builtins": {"slice"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "pandas": {"DataFrame", "Index", "RangeIndex"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.internals.managers": {"BlockManager"},
}


def from_routerbench(
    source: str | os.PathLike[str] = "withmartian/routerbench",
    *,
    shots: Literal[0, 5] = 0,
) -> Dataset:
    """Load RouterBench.

    Parameters
    ----------
    source : str or path-like
        ``routerbench_0shot.pkl`` or ``routerbench_5shot.pkl``, the same table as .parquet or .csv,
        a folder that holds it, or its name on the Hugging Face hub. Columns: ``sample_id``,
        ``prompt``, ``eval_name``, and for each LLM its score in [0, 1] and ``LLM|total_cost``.
    shots : {0, 5}
        Which of the two tables, in a folder or on the hub.

    Returns
    -------
    Dataset
        Costs are mean USD for a prompt.

    Raises
    ------
    DatasetError
        A table that cannot be used; the message names file, column and row. A pickle that asks for
        more than a table is made of is refused, and nothing in it is run.
    MissingExtraError
        The extra ``datasets`` is not installed.
    """
    pd = imported("pandas", "datasets", "RouterBench")
    name = f"routerbench_{shots}shot"
    file = files_in(
        local_copy(source, [f"{name}.pkl"]), [f"{name}.pkl", f"{name}.parquet", f"{name}.csv"]
    )[0]
    read: dict[str, Any] = {".pkl": _unpickle, ".parquet": pd.read_parquet, ".csv": pd.read_csv}
    if file.suffix not in read:
        raise DatasetError(f"{file}: unknown suffix; expected one of {', '.join(read)}")
    try:
        table = read[file.suffix](file)
    except Exception as error:  # Damaged pickles raise whatever comes to them.
        raise DatasetError(f"{file}: not a table that can be read: {error}") from error
    for column in ("sample_id", "prompt", "eval_name"):
        if column not in table.columns:
            raise DatasetError(f"{file}: no column {column!r}; it has {list(table.columns)[:8]}")
    models = [str(c).removesuffix(COST) for c in table.columns if str(c).endswith(COST)]
    if not models:
        raise DatasetError(f"{file}: no column LLM{COST}")
    return _collect(file, table, models)


def _collect(file: Path, table: Any, models: list[str]) -> Dataset:
    collector = Collector(file.stem)
    names = [str(name) for name in table["sample_id"]]
    first: dict[str, int] = {}
    for row, (name, task, prompt) in enumerate(
        zip(names, table["eval_name"], table["prompt"], strict=True)
    ):
        if first.setdefault(name, row) != row:
            raise DatasetError(
                f"{file}: column 'sample_id': {name!r} appears twice, in rows {first[name]} "
                f"and {row}"
            )
        collector.prompt(name, str(task), _text(prompt), f"{file}, row {row}")
    for model in models:
        if model not in table.columns:
            raise DatasetError(f"{file}: no column {model!r} beside {model + COST!r}")
        for row, (score, cost) in enumerate(zip(table[model], table[model + COST], strict=True)):
            where = f"{file}, column {model!r}, row {row}"
            spent = as_number(cost, where, "the cost")
            collector.outcome(names[row], model, score, where, spent)
    return collector.dataset(collector.mean_costs(), "USD a prompt")


def _text(prompt: Any) -> Any:
    """Return a prompt as one text: it is a list of turns, or what a list looks like printed."""
    if isinstance(prompt, str) and prompt.startswith("[") and prompt.endswith("]"):
        try:
            prompt = ast.literal_eval(prompt)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return prompt  # A text in brackets, after all.
    if isinstance(prompt, list | tuple):
        return "\n".join(str(turn) for turn in prompt)
    return prompt


class _TableUnpickler(pickle.Unpickler):
    """Unpickles a pandas table of strings and numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _TABLES.get(module, ()):
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no table needs; save it as .parquet where "
                "you trust it"
            )
        if hasattr(np, "_core"):  # As NumPy 2 calls it.
            module = module.replace("numpy.core.", "numpy._core.")
        return super().find_class(module, name)


def _unpickle(file: Path) -> Any:
    import pandas as pd

    with file.open("rb") as stream:
        table = _TableUnpickler(stream).load()
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"it holds a {type(table).__name__}, not a table")
    return table
