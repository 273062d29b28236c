"""What labelled prompts say of LLMs, summed up: enough to profile them, and to add to later.

Sums run over prompts, with features phi (cluster weights, and whatever else is known of a prompt),
prompt weights w and losses y. LLMs that were run on the same prompts share a *pattern*.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.arrays import as_losses, as_weights
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Evidence:
    """Sums over the labelled prompts of M LLMs.

    Attributes
    ----------
    gram : float64[P, K, K], or float64[P, 0, 0] where it is not kept
        Sum of w phi phi' over the prompts of each pattern.
    pattern : intp[M]
        Pattern of each LLM.
    phi, loss, square : float64[K, M]
        Sums of w phi, w phi y and w phi y² over the prompts that the LLM was run on.
    count, total, total_square : float64[M]
        Sums of w, w y and w y² over the same.
    """

    gram: NDArray[np.float64]
    pattern: NDArray[np.intp]
    phi: NDArray[np.float64]
    loss: NDArray[np.float64]
    square: NDArray[np.float64]
    count: NDArray[np.float64]
    total: NDArray[np.float64]
    total_square: NDArray[np.float64]

    @property
    def n_models(self) -> int:
        """M."""
        return len(self.pattern)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean loss of each LLM, float64[M]."""
        return self.total / self.count

    def features(self, index: NDArray[np.intp]) -> Evidence:
        """Return the evidence in terms of some of the features, by index and in that order."""
        return replace(
            self,
            gram=self.gram[:, index[:, None], index],
            phi=self.phi[index],
            loss=self.loss[index],
            square=self.square[index],
        )

    def select(self, models: NDArray[np.intp]) -> Evidence:
        """Return the evidence on some LLMs, by index and in that order."""
        used, pattern = np.unique(self.pattern[models], return_inverse=True)
        return Evidence(
            self.gram[used],
            pattern.astype(np.intp),
            self.phi[:, models],
            self.loss[:, models],
            self.square[:, models],
            self.count[models],
            self.total[models],
            self.total_square[models],
        )

    def joined(self, other: Evidence) -> Evidence:
        """Return the evidence on the LLMs of both."""
        return Evidence(
            np.concatenate([self.gram, other.gram]),
            np.concatenate([self.pattern, other.pattern + len(self.gram)]),
            np.hstack([self.phi, other.phi]),
            np.hstack([self.loss, other.loss]),
            np.hstack([self.square, other.square]),
            np.concatenate([self.count, other.count]),
            np.concatenate([self.total, other.total]),
            np.concatenate([self.total_square, other.total_square]),
        )

    def plus(self, other: Evidence) -> Evidence:
        """Return the evidence of both on the same LLMs, which are in the same order."""
        pairs, pattern = np.unique(
            np.column_stack([self.pattern, other.pattern]), axis=0, return_inverse=True
        )
        return Evidence(
            self.gram[pairs[:, 0]] + other.gram[pairs[:, 1]],
            pattern.reshape(-1).astype(np.intp),
            self.phi + other.phi,
            self.loss + other.loss,
            self.square + other.square,
            self.count + other.count,
            self.total + other.total,
            self.total_square + other.total_square,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields by name, as `from_arrays` takes them."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return arrays | {"pattern": self.pattern.astype(np.int64)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Evidence:
        """Restore evidence from `to_arrays`."""
        return cls(**{**arrays, "pattern": arrays["pattern"].astype(np.intp)})


def observe(
    phi: NDArray[np.floating],
    losses: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    gram: bool = True,
) -> Evidence:
    """Sum up losses on labelled prompts.

    Parameters
    ----------
    phi : float[N, K]
        Features of the prompts, such as `ClusterMap.phi`.
    losses : float[N, M]
        In [0, 1]; NaN = not run.
    weights : float[N], optional
        How much each prompt counts, finite and 0 or more. Default: 1 each.
    gram : bool
        Keep `Evidence.gram`, which profiles under a single nearest head do not need.

    Raises
    ------
    InvalidArgumentError
        Shapes that do not agree, a loss outside [0, 1], an LLM without any outcome, or weights
        that cannot be used. The message names row and column.

    Notes
    -----
    O(N K (K P + M)): LLMs with the same missing outcomes are summed up together.
    """
    losses = as_losses("losses", losses, len(phi))
    if not losses.size:
        raise InvalidArgumentError(f"losses: shape {losses.shape}; expected one of each or more")
    w = as_weights("weights", weights, len(phi))
    run = ~np.isnan(losses) & (w > 0)[:, None]
    if not run.any(axis=0).all():
        column = int(np.argmin(run.any(axis=0)))
        raise InvalidArgumentError(f"losses: column {column} has no outcome; expected at least one")
    known = np.where(run, losses, 0.0)
    squared = np.square(known)
    weighted = phi.astype(np.float64) * w[:, None]
    patterns, pattern = _patterns(run)
    if gram:
        grams = np.stack([weighted[rows].T @ phi[rows] for rows in patterns])
    else:
        grams = np.zeros((len(patterns), 0, 0))
    return Evidence(
        grams,
        pattern,
        weighted.T @ run,
        weighted.T @ known,
        weighted.T @ squared,
        w @ run,
        w @ known,
        w @ squared,
    )


def _patterns(run: NDArray[np.bool_]) -> tuple[list[NDArray[np.bool_]], NDArray[np.intp]]:
    """Return the distinct columns of a mask, and which of them each column is."""
    first: dict[bytes, int] = {}
    packed = np.packbits(run, axis=0).T
    pattern = [first.setdefault(column.tobytes(), len(first)) for column in packed]
    index = np.asarray(pattern, dtype=np.intp)
    firsts = np.unique(index, return_index=True)[1]
    return [run[:, column] for column in firsts], index
