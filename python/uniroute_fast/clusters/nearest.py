"""Embedding to cluster: the nearest centroid, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from uniroute_fast._native import Centroids, assign_once

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Centroids", "nearest_centroid"]


@overload
def nearest_centroid(
    x: ArrayLike,
    centroids: ArrayLike | Centroids,
    *,
    return_distance: Literal[True] = True,
    on_invalid: Literal["raise", "mark"] = "raise",
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]: ...
@overload
def nearest_centroid(
    x: ArrayLike,
    centroids: ArrayLike | Centroids,
    *,
    return_distance: Literal[False],
    on_invalid: Literal["raise", "mark"] = "raise",
) -> NDArray[np.uint32]: ...


def nearest_centroid(
    x: ArrayLike,
    centroids: ArrayLike | Centroids,
    *,
    return_distance: bool = True,
    on_invalid: Literal["raise", "mark"] = "raise",
) -> tuple[NDArray[np.uint32], NDArray[np.float32]] | NDArray[np.uint32]:
    """Find the nearest centroid of every row of `x`.

    The answer is that of float64 brute force,
    ``((x[:, None].astype(float64) - centroids) ** 2).sum(-1).argmin(-1)``, to the last bit of the
    sums: data far from the origin lose no digits to cancellation, and exact ties go to the lowest
    index. It is found at the speed of int8 arithmetic: rows and centroids are quantised, a bound on
    the quantisation's error rules out all but one or two centroids, and those are compared in
    float64. For a few hundred rows or fewer, float32 products do instead of quantised ones.

    Parameters
    ----------
    x : array_like of float32, shape [N, D]
        Embeddings; `N` may be 0. Other real dtypes and layouts are converted to float32 once.
    centroids : array_like of float32, shape [K, D], or Centroids
        `K` and `D` are at least 1. Where the same centroids serve many calls, pack them once with
        `Centroids`: a single query is then several times as fast.
    return_distance : bool, default True
        Whether to return squared distances too.
    on_invalid : {"raise", "mark"}, default "raise"
        What becomes of a row of `x` that holds NaN or infinity: an error that names the first such
        row, or the label ``2**32 - 1`` and the distance NaN for it alone.

    Returns
    -------
    labels : uint32 array, shape [N]
        Index of the nearest centroid, 0 to K - 1.
    distances : float32 array, shape [N]
        Squared Euclidean distance to it: the float64 sum rounded once. Left out if
        `return_distance` is false.

    Raises
    ------
    InvalidArgumentError
        Shapes that do not match, no centroids, NaN or infinity.
    ArgumentTypeError
        Not an array of real numbers.

    Notes
    -----
    Time O(N K D), memory O(K D) beside the results, on up to `get_num_threads()` threads without
    the GIL. Ctrl-C ends the call.

    Examples
    --------
    >>> import uniroute_fast as uf
    >>> labels, distances = uf.nearest_centroid([[0.0, 1.0], [4.0, 4.0]], [[0.0, 0.0], [4.0, 3.0]])
    >>> labels.tolist(), distances.tolist()
    ([0, 1], [1.0, 1.0])
    """
    if isinstance(centroids, Centroids):
        found = centroids.assign(x, return_distance=return_distance, on_invalid=on_invalid)
    else:
        found = assign_once(x, centroids, return_distance=return_distance, on_invalid=on_invalid)
    labels, distances = found
    return labels if distances is None else (labels, distances)
