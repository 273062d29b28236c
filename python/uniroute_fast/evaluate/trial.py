"""One trial of a study: who may see what.

Prompts are split into train, validation and test, LLMs into seen and unseen. A method learns from
the seen LLMs on the training prompts, profiles the unseen ones on the validation prompts, and is
judged by routing the test prompts among the unseen ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uniroute_fast.errors import DatasetError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    from uniroute_fast.datasets import Dataset

#: What a method may see of the unseen LLMs: their validation labels; those and their labels on the
#: training prompts (*clairvoyant*: an upper bound); or also the test labels (*oracle*).
Access = Literal["validation", "train", "test"]


@dataclass(frozen=True)
class Split:
    """Indices into a dataset: three disjoint sets of prompts, two disjoint sets of LLMs."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]
    seen: NDArray[np.intp]
    unseen: NDArray[np.intp]


def random_split(
    dataset: Dataset,
    seed: int,
    n_val: int | None = None,
    shares: tuple[float, float] = (0.6, 0.1),
    seen_share: float = 2 / 3,
) -> Split:
    """Split prompts and LLMs at random.

    Parameters
    ----------
    dataset : Dataset
    seed : int
        Same seed, same split. The split of prompts and LLMs does not depend on ``n_val``: fewer
        labels are a subset of more.
    n_val : int, optional
        Validation prompts used, at most the validation share. Default: 400, or the whole
        validation share where that is smaller.
    shares : (float, float)
        Shares of the prompts for training and validation; the rest is for testing.
    seen_share : float
        Share of the LLMs that are seen.

    Raises
    ------
    DatasetError
        Too few prompts or LLMs: every part needs one, and the unseen LLMs need two.
    InvalidArgumentError
        ``n_val`` below 1 or above the validation share.
    """
    n, m = len(dataset.ids), len(dataset.models)
    n_train, n_share = round(shares[0] * n), round(shares[1] * n)
    n_seen = round(seen_share * m)
    if min(n_train, n_share, n - n_train - n_share, n_seen) < 1 or m - n_seen < 2:
        raise DatasetError(
            f"{dataset.name}: {n} prompts and {m} LLMs are too few to split into "
            f"{n_train} training, {n_share} validation and {n - n_train - n_share} test prompts, "
            f"{n_seen} seen and {m - n_seen} unseen LLMs"
        )
    if n_val is None:
        n_val = min(400, n_share)
    if not 1 <= n_val <= n_share:
        raise InvalidArgumentError(
            f"n_val: {n_val}; expected 1 to {n_share}, the validation share of {dataset.name}"
        )
    rng = np.random.default_rng(seed)
    prompts, models = rng.permutation(n), rng.permutation(m)
    return Split(
        train=prompts[:n_train],
        validation=prompts[n_train : n_train + n_val],
        test=prompts[n_train + n_share :],
        seen=models[:n_seen],
        unseen=models[n_seen:],
    )


@dataclass(frozen=True, eq=False)
class Trial:
    """What one method is given in one trial.

    Attributes
    ----------
    train, validation, test : float32[n, D]
        Embeddings of the prompts, from an embedder that was fitted on the training prompts.
    seen_train, seen_validation : float64[n, S]
        Losses of the seen LLMs.
    losses : float64[n_validation, U]
        Losses of the unseen LLMs on the validation prompts.
    costs, seen_costs : float64[U], float64[S]
    seed : int
        For whatever the method draws at random.
    train_losses, test_losses : float64[n, U] or None
        Losses of the unseen LLMs that only clairvoyant methods, or the oracle, are given.
    """

    train: NDArray[np.float32]
    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    seen_train: NDArray[np.float64]
    seen_validation: NDArray[np.float64]
    losses: NDArray[np.float64]
    costs: NDArray[np.float64]
    seen_costs: NDArray[np.float64]
    seed: int
    train_losses: NDArray[np.float64] | None = None
    test_losses: NDArray[np.float64] | None = None
    _shared: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gives, made once for all methods of this trial that ask for it.

        Whatever is shared must come from what every method sees.
        """
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def limited_to(self, access: Access) -> Trial:
        """Return the trial without the labels that lie beyond ``access``."""
        return replace(
            self,
            train_losses=None if access == "validation" else self.train_losses,
            test_losses=self.test_losses if access == "test" else None,
        )


def make_trial(dataset: Dataset, split: Split, embeddings: NDArray[np.float32], seed: int) -> Trial:
    """Cut a trial out of a dataset without missing outcomes.

    Parameters
    ----------
    dataset : Dataset
    split : Split
    embeddings : float32[N, D]
        Of all prompts of the dataset.
    seed : int
    """
    losses = dataset.losses
    return Trial(
        train=embeddings[split.train],
        validation=embeddings[split.validation],
        test=embeddings[split.test],
        seen_train=losses[np.ix_(split.train, split.seen)],
        seen_validation=losses[np.ix_(split.validation, split.seen)],
        losses=losses[np.ix_(split.validation, split.unseen)],
        costs=dataset.costs[split.unseen],
        seen_costs=dataset.costs[split.seen],
        seed=seed,
        train_losses=losses[np.ix_(split.train, split.unseen)],
        test_losses=losses[np.ix_(split.test, split.unseen)],
    )
