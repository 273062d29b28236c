"""Arguments that are arrays, checked, with errors that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.ma import MaskedArray

from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


#: An outcome counts for so many at most: far heavier ones would leave no digits for the others.
GREATEST_WEIGHT = 1e9


def as_array(argument: str, values: ArrayLike) -> NDArray[Any]:
    """Return values as an array of any dtype; refuse what NumPy cannot read, and masks.

    Raises
    ------
    ArgumentTypeError
        A masked array (NumPy would drop the mask without a word), or no array at all.
    """
    if isinstance(values, MaskedArray):
        raise ArgumentTypeError(
            f"{argument}: a masked array; expected one without a mask, NaN where not run"
        )
    try:
        return np.asarray(values)
    except Exception as error:
        raise ArgumentTypeError(f"{argument}: not an array ({error})") from error


def as_numbers(
    argument: str, values: ArrayLike, expected: str = "real numbers", kinds: str = "biuf"
) -> NDArray[Any]:
    """Return values as an array of numbers: of a dtype of one of the kinds, as NumPy names them.

    Raises
    ------
    ArgumentTypeError
        Another dtype, a masked array, or no array at all; the message says what was `expected`.
    """
    array = as_array(argument, values)
    if array.dtype.kind not in kinds:
        raise ArgumentTypeError(f"{argument}: dtype {array.dtype}; expected {expected}")
    return array


def as_losses(argument: str, losses: ArrayLike, rows: int | None = None) -> NDArray[np.float64]:
    """Return losses as float64[prompts, models], checked.

    Parameters
    ----------
    argument : str
        Name of the caller's argument, for the message.
    losses : array-like [prompts, models]
        Values in [0, 1]; NaN = not run.
    rows : int, optional
        How many prompts there must be.

    Raises
    ------
    ArgumentTypeError
        Not an array of real numbers.
    InvalidArgumentError
        Another shape, or a value outside [0, 1].
    """
    array = as_numbers(argument, losses, "real numbers in [0, 1], NaN = not run")
    if array.ndim != 2:
        raise InvalidArgumentError(
            f"{argument}: shape {array.shape}; expected two dimensions, [prompts, models]"
        )
    if rows is not None and len(array) != rows:
        raise InvalidArgumentError(
            f"{argument}: {len(array)} rows; expected one for each of the {rows} texts"
        )
    array = array.astype(np.float64)
    outside = np.argwhere((array < 0) | (array > 1))
    if len(outside):
        row, column = outside[0]
        raise InvalidArgumentError(
            f"{argument}: {array[row, column]:g} in row {row}, column {column}; "
            "expected losses in [0, 1], NaN = not run"
        )
    return array


def as_column(argument: str, losses: ArrayLike) -> NDArray[Any]:
    """Return one LLM's losses, float[prompts] or float[prompts, 1], as a column."""
    column = as_numbers(argument, losses, "real numbers in [0, 1], NaN = not run")
    if column.ndim != 1 and column.shape[1:] != (1,):
        raise InvalidArgumentError(
            f"{argument}: shape {column.shape}; expected (n_val,) or (n_val, 1), for one LLM"
        )
    return column.reshape(-1, 1)


def as_weights(argument: str, weights: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    """Return weights of prompts as float64[rows], checked; 1 each for None.

    Raises
    ------
    ArgumentTypeError
        Not an array of real numbers.
    InvalidArgumentError
        Another shape, or a value that is not finite, below 0 or above `GREATEST_WEIGHT`.
    """
    if weights is None:
        return np.ones(rows)
    array = as_numbers(argument, weights)
    if array.shape != (rows,):
        raise InvalidArgumentError(f"{argument}: shape {array.shape}; expected ({rows},)")
    bad = ~((array >= 0) & (array <= GREATEST_WEIGHT))
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidArgumentError(
            f"{argument}: {array[row]:g} in row {row}; expected finite numbers, 0 or more and "
            f"{GREATEST_WEIGHT:g} at most"
        )
    return array.astype(np.float64)


def as_costs(argument: str, costs: ArrayLike, count: int | None = None) -> NDArray[np.float64]:
    """Return costs of LLMs as float64[models], checked; `count` of them where that is known.

    Raises
    ------
    ArgumentTypeError
        Not an array of real numbers.
    InvalidArgumentError
        Another shape, no cost, or one that is not finite or below 0.
    """
    array = as_numbers(argument, costs, kinds="iuf")
    if array.ndim != 1 or len(array) != (count or max(len(array), 1)):
        expected = f"({count or 'models'},), one for each LLM"
        raise InvalidArgumentError(f"{argument}: shape {array.shape}; expected {expected}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        raise InvalidArgumentError(
            f"{argument}: {array[bad[0]]} at index {bad[0]}; expected finite costs of 0 or more"
        )
    return array.astype(np.float64)
