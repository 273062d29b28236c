"""Parts of a file: arrays and settings that may have been forged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from uniroute_fast._checks.scalars import shown
from uniroute_fast.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


#: Named arrays and a dict that JSON can hold: what an object is saved as, and restored from.
Parts: TypeAlias = "tuple[dict[str, NDArray[Any]], dict[str, Any]]"


#: Settings of a file, which are all above 0, lie between these.
LEAST_SETTING, LARGEST_SETTING = 1e-30, 1e30


def part(
    arrays: dict[str, NDArray[Any]],
    name: str,
    shape: tuple[int | None, ...],
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Return the part of that name, as it must be: what a file holds may have been forged.

    Parameters
    ----------
    arrays : dict
    name : str
    shape : tuple
        None: any length but 0.
    dtype : dtype

    Raises
    ------
    KeyError
        There is none.
    ArtifactError
        It is of another shape or dtype, or not finite.
    """
    found = arrays[name]
    lengths = zip(found.shape, shape, strict=False)
    fits = found.ndim == len(shape) and all(
        have == want or (want is None and have > 0) for have, want in lengths
    )
    if not fits or found.dtype != dtype or not np.isfinite(found).all():
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ArtifactError(
            f"part {name!r} is {found.dtype}{list(found.shape)}; expected finite "
            f"{np.dtype(dtype)}[{wanted}]"
        )
    return found


def above_zero(what: str, value: object) -> float:
    """Return a number of a file, above 0 and of ordinary size: else `ArtifactError`."""
    fits = isinstance(value, float | int) and LEAST_SETTING <= value <= LARGEST_SETTING
    if not fits or isinstance(value, bool):
        raise ArtifactError(
            f"{what} is {shown(value)}; expected a number, {LEAST_SETTING:g} to {LARGEST_SETTING:g}"
        )
    return float(value)  # type: ignore[arg-type]


#: Stored priors and factors are at most this: they are in units of one LLM's standard deviation.
LARGEST_STANDARDISED = 1e9


def moderate_part(
    arrays: dict[str, NDArray[Any]],
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Return a `part` whose values are of the size of standardised losses."""
    found = part(arrays, name, shape, dtype)
    if (np.abs(found) > LARGEST_STANDARDISED).any():
        raise ArtifactError(f"part {name!r} has a value above {LARGEST_STANDARDISED:g}")
    return found
