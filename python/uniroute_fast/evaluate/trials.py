"""Repeated trials: split, embed, let every method predict, measure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.extras import imported
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate.deferral import (
    BlindPlan,
    area,
    deferral_curve,
    qnc,
    reaches_best,
)
from uniroute_fast.evaluate.methods import Method, resolve
from uniroute_fast.evaluate.table import Table
from uniroute_fast.evaluate.trial import Split, Trial, make_trial, random_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from uniroute_fast.datasets import Dataset
    from uniroute_fast.evaluate.deferral import DeferralCurve


def run_trials(
    dataset: Dataset,
    methods: Iterable[str | Method] | None = None,
    trials: int = 20,
    n_val: int | None = None,
    seed: int = 0,
    *,
    embed: Callable[[Dataset, Split, int], NDArray[np.float32]] | None = None,
    reference: str = "zero_router",
    progress: bool = False,
) -> Table:
    """Compare routing methods over random splits of prompts and LLMs.

    In each trial prompts are split 60/10/30 into train, validation and test, LLMs 2/3 seen and 1/3
    unseen. A method learns from the seen LLMs on the training prompts and from ``n_val``
    validation labels of each unseen LLM, then routes the test prompts among the unseen ones.

    Parameters
    ----------
    dataset : Dataset
        Its complete block is used: `Dataset.complete_block`.
    methods : iterable of str or Method, optional
        Names in `METHODS`, or methods of your own. Default: all.
    trials : int
        At least 1. Trial t uses seed ``seed + t`` for the split and whatever is drawn at random.
    n_val : int, optional
        Validation prompts of each trial. Default: 400, or 10% of the prompts where that is less.
    seed : int
        0 or more.
    embed : callable, optional
        Takes the dataset, the split and the seed and returns embeddings of all prompts,
        float32[N, D]. It must learn from the split's training prompts alone. Default: a
        `LexicalEmbedder` fitted on those.
    reference : str
        The method that the sign test compares with; added when it is not among ``methods``.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Table

    Raises
    ------
    InvalidArgumentError, DatasetError
        Settings or a dataset that cannot be used; before any work is done.
    MissingExtraError
        A method or the progress bar needs a package that is not installed (extra ``evaluate``).

    Examples
    --------
    >>> data = uniroute_fast.datasets.load("../shared/data/bfcl")  # doctest: +SKIP
    >>> print(run_trials(data, ["zero_router", "knn"], trials=5))  # doctest: +SKIP
    """
    if trials < 1 or seed < 0:
        raise InvalidArgumentError(
            f"trials, seed: {trials}, {seed}; expected at least 1, at least 0"
        )
    chosen = resolve(methods)
    if reference not in (method.name for method in chosen):
        chosen += resolve([reference])
    block = dataset.complete_block() if np.isnan(dataset.scores).any() else dataset
    first = random_split(block, seed, n_val)

    curves: dict[str, list[DeferralCurve]] = {method.name: [] for method in chosen}
    figures: dict[str, list[list[float]]] = {method.name: [] for method in chosen}
    spent = dict.fromkeys(curves, 0.0)
    cost_ranges: list[tuple[float, float]] = []
    for t in _progress(range(trials), progress, f"{block.name}, trials"):
        split = random_split(block, seed + t, n_val)
        embeddings = (embed or lexical_embeddings)(block, split, seed + t)
        trial = make_trial(block, split, embeddings, seed + t)
        cost_ranges.append((trial.costs.min(), trial.costs.max()))
        for method in chosen:
            start = time.perf_counter()
            curve = predict_curve(method, trial)
            spent[method.name] += time.perf_counter() - start
            curves[method.name].append(curve)
            figures[method.name].append(_figures(curve, trial))
    return Table(
        dataset=block.name,
        reference=reference,
        trials=trials,
        settings={
            "train": len(first.train),
            "n_val": len(first.validation),
            "test": len(first.test),
            "seen": len(first.seen),
            "unseen": len(first.unseen),
            "seed": seed,
        },
        figures={name: np.array(values) for name, values in figures.items()},
        curves=curves,
        cost_ranges=np.array(cost_ranges),
        seconds={name: total / trials for name, total in spent.items()},
    )


def predict_curve(method: Method, trial: Trial) -> DeferralCurve:
    """Run a method on what it may see of a trial and return its curve on the test prompts."""
    predicted = method.predict(trial.limited_to(method.access))
    if isinstance(predicted, BlindPlan):
        return predicted.curve(_quality(trial), trial.costs)
    return deferral_curve(predicted, _quality(trial), trial.costs)


def _quality(trial: Trial) -> NDArray[np.float64]:
    assert trial.test_losses is not None
    quality: NDArray[np.float64] = 1.0 - trial.test_losses
    return quality


def _figures(curve: DeferralCurve, trial: Trial) -> list[float]:
    """Return one trial's values of `FIGURES`."""
    quality, costs = _quality(trial), trial.costs
    return [
        area(curve, costs),
        area(curve, costs, fraction=0.5),
        qnc(curve, quality, costs),
        float(reaches_best(curve, quality, costs)),
        float(curve.quality.max()),
    ]


def lexical_embeddings(dataset: Dataset, split: Split, seed: int) -> NDArray[np.float32]:
    """Embed all prompts with a `LexicalEmbedder` fitted on the training prompts."""
    from uniroute_fast.embedding.lexical import LexicalEmbedder

    embedder = LexicalEmbedder.fit([dataset.texts[i] for i in split.train], seed=seed)
    embeddings: NDArray[np.float32] = embedder.embed(list(dataset.texts))
    return embeddings


def _progress(items: Iterable[int], wanted: bool, what: str) -> Iterator[int]:
    if not wanted:
        return iter(items)
    bar: Any = imported("tqdm", "evaluate", "the progress bar").tqdm(items, desc=what, unit="trial")
    return iter(bar)
