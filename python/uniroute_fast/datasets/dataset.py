"""The outcomes of a pool of LLMs on a set of prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Scores of M LLMs on N prompts; checked when made, never changed afterwards.

    Parameters
    ----------
    name : str
        What tables and messages call it.
    ids, tasks, texts : sequence of str, each of length N
        Ids are unique. A task groups prompts (a benchmark, a subject); it may be empty.
    scores : float64[N, M]
        Score of each LLM on each prompt in [0, 1], higher is better; NaN where it was not run.
    models : sequence of str, length M
        Unique names.
    costs : float64[M]
        Mean cost of one prompt, finite and not negative, in ``cost_unit``.
    cost_unit : str
        Any unit, the same for all.

    Raises
    ------
    DatasetError
        Shapes that do not agree, repeated ids or names, a score outside [0, 1], an LLM without
        any outcome, a cost that is negative or not finite. The message names column and row.

    Examples
    --------
    >>> data = Dataset("two", ["a", "b"], ["", ""], ["1+1?", "2+2?"], [[1, 0], [1, 1]],
    ...                ["large", "small"], [10, 1])
    >>> data.losses
    array([[0., 1.],
           [0., 0.]])
    """

    name: str
    ids: Sequence[str]
    tasks: Sequence[str]
    texts: Sequence[str]
    scores: NDArray[np.float64]
    models: Sequence[str]
    costs: NDArray[np.float64]
    cost_unit: str = "cost"

    def __post_init__(self) -> None:
        for field in ("ids", "tasks", "texts", "models"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field in ("scores", "costs"):
            array = np.array(getattr(self, field), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        self._check_shapes()
        self._check_unique("id", self.ids)
        self._check_unique("model", self.models)
        self._check_scores()
        self._check_costs()

    @property
    def losses(self) -> NDArray[np.float64]:
        """Losses in [0, 1], ``1 - scores``: float64[N, M], NaN where an LLM was not run."""
        losses: NDArray[np.float64] = 1.0 - self.scores
        return losses

    def select(
        self, prompts: NDArray[np.integer] | None = None, models: NDArray[np.integer] | None = None
    ) -> Dataset:
        """Return the dataset of some prompts and some LLMs, by index and in that order."""
        rows = list(range(len(self.ids))) if prompts is None else prompts.tolist()
        columns = list(range(len(self.models))) if models is None else models.tolist()
        return replace(
            self,
            ids=[self.ids[i] for i in rows],
            tasks=[self.tasks[i] for i in rows],
            texts=[self.texts[i] for i in rows],
            scores=self.scores[np.ix_(rows, columns)],
            models=[self.models[m] for m in columns],
            costs=self.costs[columns],
        )

    def complete_block(self, min_share: float = 0.9) -> Dataset:
        """Return the part without missing outcomes.

        Keeps the LLMs that were run on at least ``min_share`` of the prompts, then the prompts
        that all of those were run on.

        Raises
        ------
        DatasetError
            Nothing is left.
        """
        run = ~np.isnan(self.scores)
        models = np.flatnonzero(run.mean(axis=0) >= min_share)
        prompts = np.flatnonzero(run[:, models].all(axis=1))
        if not models.size or not prompts.size:
            raise DatasetError(
                f"{self.name}: no LLM was run on {min_share:.0%} of the prompts together with "
                f"others: {models.size} LLMs and {prompts.size} prompts are left"
            )
        return self.select(prompts, models)

    def _check_shapes(self) -> None:
        n, m = len(self.ids), len(self.models)
        if not n or not m:
            raise DatasetError(f"{self.name}: {n} prompts and {m} LLMs; at least one of each")
        for field in ("tasks", "texts"):
            if len(getattr(self, field)) != n:
                raise DatasetError(
                    f"{self.name}: {len(getattr(self, field))} {field} for {n} prompts"
                )
        if self.scores.shape != (n, m):
            raise DatasetError(
                f"{self.name}: scores of shape {self.scores.shape}; expected ({n}, {m})"
            )
        if self.costs.shape != (m,):
            raise DatasetError(f"{self.name}: costs of shape {self.costs.shape}; expected ({m},)")

    def _check_unique(self, what: str, names: Sequence[str]) -> None:
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            if first.setdefault(name, row) != row:
                raise DatasetError(
                    f"{self.name}: {what} {name!r} appears twice, in rows {first[name]} and {row}"
                )

    def _check_scores(self) -> None:
        with np.errstate(invalid="ignore"):
            bad = (self.scores < 0) | (self.scores > 1)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise DatasetError(
                f"{self.name}: scores: column {self.models[column]!r}, row {row} "
                f"(id {self.ids[row]!r}): {self.scores[row, column]} is outside [0, 1]"
            )
        empty = np.isnan(self.scores).all(axis=0)
        if empty.any():
            raise DatasetError(
                f"{self.name}: scores: column {self.models[int(np.argmax(empty))]!r} "
                "has no outcome at all"
            )

    def _check_costs(self) -> None:
        bad = ~(np.isfinite(self.costs) & (self.costs >= 0))
        if bad.any():
            row = int(np.argmax(bad))
            raise DatasetError(
                f"{self.name}: models: column 'cost', row {row} (model {self.models[row]!r}): "
                f"{self.costs[row]} is not a finite cost of 0 or more"
            )
