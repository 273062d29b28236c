"""Arguments that are prompts: texts, embeddings, or `Prompts` that are embedded already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_array, as_numbers
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.sequences import as_sequence
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Largest magnitude in the embeddings that a router is fitted on.
LARGEST_FITTED = 1e15


def as_prompts(
    texts: Any, embeddings: ArrayLike | None, argument: str = "texts", *, least: int = 1
) -> tuple[Any, NDArray[Any] | None, int]:
    """Return texts, or embeddings in their place, and how many there are.

    Parameters
    ----------
    texts : sequence of str, Prompts, or None
    embeddings : array-like, or None
        Exactly one of the two must be given.
    argument : str
        What the caller calls the texts.
    least : int
        How many there must be.

    Raises
    ------
    InvalidArgumentError, ArgumentTypeError
        Both or neither, no sequence, no array, or too few.
    """
    if (texts is None) == (embeddings is None):
        raise InvalidArgumentError(f"{argument}, embeddings: expected exactly one of them")
    if embeddings is None:
        texts = as_sequence(argument, texts)
    else:
        embeddings = np.atleast_1d(as_array("embeddings", embeddings))
    rows = len(texts if embeddings is None else embeddings)
    if rows < least:
        given = argument if embeddings is None else "embeddings"
        raise InvalidArgumentError(f"{given}: no prompts; expected at least one")
    return texts, embeddings, rows


def one_embedded(
    routing: _native.Router | _native.Snapshot, text: Any, embeddings: ArrayLike | None
) -> _native.Prompts:
    """Return one prompt, embedded: a text, `Prompts` of one, or float32[D] or float32[1, D]."""
    if text is not None and not isinstance(text, _native.Prompts):
        text = [as_instance("text", text, str, "a str, or Prompts of one")]
    one = None if embeddings is None else np.atleast_2d(as_array("embeddings", embeddings))
    prompts = routing.embed(text, embeddings=one)
    if len(prompts) != 1:
        given = "embeddings" if text is None else "text"
        raise InvalidArgumentError(f"{given}: {len(prompts)} prompts; expected one")
    return prompts


def as_list(texts: Any) -> list[Any]:
    """Return texts by position: a Series knows its own by labels."""
    return texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)


def as_embeddings(argument: str, embeddings: ArrayLike) -> NDArray[np.float32]:
    """Return float32[N, D] to fit on, contiguous, finite, of at least one row and column."""
    array = as_numbers(argument, embeddings, "float32[N, D]")
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidArgumentError(
            f"{argument}: shape {array.shape}; expected [N, D], at least one of each"
        )
    x = np.ascontiguousarray(array, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        raise InvalidArgumentError(
            f"{argument}: {x[row, column]} in row {row}, column {column}; expected finite values"
        )
    # Squares must not overflow float32, in which clusters are fitted.
    largest = np.abs(x).max()
    if largest > LARGEST_FITTED:
        raise InvalidArgumentError(
            f"{argument}: a value of magnitude {largest:.3g}; expected {LARGEST_FITTED:.0e} at most"
        )
    return x
