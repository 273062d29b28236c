"""A check that no method sees what it must not.

A trial is run twice: as it is, and with every outcome that the method has no right to replaced by
its opposite. A method that predicts differently has seen them, whichever way they came.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.errors import UniRouteError
from uniroute_fast.evaluate.deferral import BlindPlan
from uniroute_fast.evaluate.methods import Method, resolve
from uniroute_fast.evaluate.trial import Split, Trial, make_trial, random_split
from uniroute_fast.evaluate.trials import lexical_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from uniroute_fast.datasets import Dataset


class LeakError(UniRouteError, AssertionError):
    """A method's predictions depend on outcomes that it must not see."""


def check_leaks(
    dataset: Dataset,
    methods: Iterable[str | Method] | None = None,
    seed: int = 0,
    *,
    embed: Callable[[Dataset, Split, int], NDArray[np.float32]] = lexical_embeddings,
    split: Callable[[Dataset, int], Split] = random_split,
) -> None:
    """Check that methods do not see test outcomes, nor unseen LLMs' outcomes in training.

    Parameters
    ----------
    dataset : Dataset
        Without missing outcomes.
    methods : iterable of str or Method, optional
        The oracle is left out: it sees test outcomes by definition.
    seed : int
    embed, split : callable
        As a study uses them; a leak may come in through either.

    Raises
    ------
    LeakError
        Parts of the split overlap, or a method predicts differently when outcomes are tampered
        with that it has no right to. The message names the method.
    """
    parts = split(dataset, seed)
    _refuse_overlap("prompts", parts.train, parts.validation, parts.test)
    _refuse_overlap("LLMs", parts.seen, parts.unseen)
    for method in resolve(methods):
        if method.name == "oracle":
            continue
        told = "train" if method.access == "train" else "validation"
        plain, tampered = (
            _predict(method, _trial(data, parts, embed, seed))
            for data in (dataset, _tampered(dataset, parts, keep_train=told == "train"))
        )
        if not np.array_equal(plain, tampered):
            raise LeakError(
                f"{method.name}: its predictions change with outcomes that it must not see"
            )


def _refuse_overlap(what: str, *parts: NDArray[np.intp]) -> None:
    together = np.concatenate(parts)
    if len(np.unique(together)) < len(together):
        raise LeakError(f"parts of the split overlap: some {what} are in two of them")


def _tampered(dataset: Dataset, split: Split, *, keep_train: bool) -> Dataset:
    """Return the dataset with the outcomes that are out of bounds turned into their opposite."""
    scores = dataset.scores.copy()
    forbidden = np.zeros(scores.shape, dtype=bool)
    forbidden[split.test] = True
    if not keep_train:
        forbidden[np.ix_(split.train, split.unseen)] = True
    scores[forbidden] = 1 - scores[forbidden]
    return replace(dataset, scores=scores)


def _trial(
    dataset: Dataset,
    split: Split,
    embed: Callable[[Dataset, Split, int], NDArray[np.float32]],
    seed: int,
) -> Trial:
    return make_trial(dataset, split, embed(dataset, split, seed), seed)


def _predict(method: Method, trial: Trial) -> NDArray[np.float64]:
    predicted = method.predict(trial.limited_to(method.access))
    return np.asarray(predicted.models if isinstance(predicted, BlindPlan) else predicted)
