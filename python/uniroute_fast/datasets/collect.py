"""From single outcomes, in whatever order they come, to a dataset."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.datasets.dataset import Dataset
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Collector:
    """Gathers prompts and outcomes; `dataset` puts them together.

    Prompts and LLMs keep the order in which they first came.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._rows: dict[str, int] = {}
        self._tasks: list[str] = []
        self._texts: list[str] = []
        self._columns: dict[str, int] = {}
        self._at = array("q"), array("q")
        self._scores = array("d")
        self._costs = array("d")

    @property
    def models(self) -> list[str]:
        """LLMs so far."""
        return list(self._columns)

    def prompt(self, name: str, task: str, text: Any, where: str) -> None:
        """Add a prompt, unless it is there already."""
        if not isinstance(text, str):
            raise DatasetError(f"{where}: the prompt is {text!r:.60}, not a string")
        if name not in self._rows:
            self._rows[name] = len(self._rows)
            self._tasks.append(task)
            self._texts.append(text)

    def outcome(
        self, prompt: str, model: str, score: Any, where: str, cost: float = math.nan
    ) -> None:
        """Add an LLM's score on a prompt that was added, and what the call cost, if known.

        None and NaN mean that the LLM was not run.
        """
        column = self._columns.setdefault(model, len(self._columns))
        value = math.nan if score is None else as_number(score, where, "the score")
        if value < 0 or value > 1:
            raise DatasetError(f"{where}: score {value:g} of {model!r} is outside [0, 1]")
        if math.isnan(value):
            return
        self._at[0].append(self._rows[prompt])
        self._at[1].append(column)
        self._scores.append(value)
        self._costs.append(cost)

    def mean_costs(self) -> dict[str, float]:
        """Return each LLM's mean cost over its calls; without those whose costs are not known."""
        columns, costs = np.frombuffer(self._at[1], np.int64), np.frombuffer(self._costs)
        known = ~np.isnan(costs)
        counts = np.bincount(columns[known], minlength=len(self._columns))
        sums = np.bincount(columns[known], costs[known], len(self._columns))
        return {m: float(sums[c] / counts[c]) for m, c in self._columns.items() if counts[c]}

    def dataset(self, costs: Mapping[str, float], unit: str) -> Dataset:
        """Return all of it as a dataset.

        Raises
        ------
        DatasetError
            Nothing was added, two outcomes are of one LLM on one prompt, or an LLM has no cost.
        """
        if not self._rows or not self._columns:
            raise DatasetError(f"{self.name}: no outcomes in it")
        missing = [model for model in self._columns if model not in costs]
        if missing:
            raise DatasetError(
                f"{self.name}: no cost for {missing[0]!r}"
                + (f" and {len(missing) - 1} more LLMs" if len(missing) > 1 else "")
                + "; expected a file of costs with the columns model and cost"
            )
        return Dataset(
            self.name,
            list(self._rows),
            self._tasks,
            self._texts,
            self._matrix(),
            list(self._columns),
            np.array([costs[model] for model in self._columns]),
            unit,
        )

    def _matrix(self) -> NDArray[np.float64]:
        rows, columns = (np.frombuffer(at, np.int64) for at in self._at)
        matrix = np.full((len(self._rows), len(self._columns)), np.nan)
        matrix[rows, columns] = np.frombuffer(self._scores)
        if np.count_nonzero(~np.isnan(matrix)) < len(rows):
            cells, counts = np.unique(rows * len(self._columns) + columns, return_counts=True)
            row, column = divmod(int(cells[np.argmax(counts > 1)]), len(self._columns))
            raise DatasetError(
                f"{self.name}: {list(self._columns)[column]!r} has two scores on prompt "
                f"{list(self._rows)[row]!r}"
            )
        return matrix


def as_number(value: Any, where: str, what: str) -> float:
    """Return a number, or a truth value as 0 or 1."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    raise DatasetError(f"{where}: {what} is {value!r:.60}, not a number")
