"""The rule of every decision, on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def winner(objectives: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which LLM is chosen: the least objective, ties to the lower cost, then to the index.

    Parameters
    ----------
    objectives : float64[..., M]
        Predicted loss + cost weight x cost.
    costs : float64[..., M] or what broadcasts to it

    Returns
    -------
    intp[...]
        Indices of LLMs, as `Router.route` chooses them.
    """
    tied = objectives == objectives.min(axis=-1, keepdims=True)
    return np.asarray(np.where(tied, costs, np.inf).argmin(axis=-1))
