"""Losses of LLMs on prompts: what is known before routing starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.arrays import as_costs, as_losses
from uniroute_fast._checks.sequences import as_strings
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Outcomes:
    """Losses of already-evaluated LLMs on the prompts that a router is fitted on.

    Parameters
    ----------
    losses : array-like [prompts, models]
        Loss of each LLM on each prompt, in [0, 1], lower is better; NaN = not run.
    names : sequence of str, optional
        Their names; informative only: seen LLMs do not join the pool.
    costs : float array-like [models], optional
        Their costs per prompt, finite, 0 or more. With them the router's settings are chosen for
        quality at every cost; without, for quality alone.

    Raises
    ------
    ArgumentTypeError, InvalidArgumentError
        Losses, names or costs of another type, shape or range; an LLM without any outcome.

    Examples
    --------
    >>> import uniroute_fast as uf
    >>> uf.Outcomes([[0.0, 1.0], [1.0, float("nan")]], names=["small", "large"]).n_models
    2
    """

    losses: NDArray[np.float64]
    names: tuple[str, ...] | None
    costs: NDArray[np.float64] | None

    def __init__(
        self,
        losses: ArrayLike,
        names: Sequence[str] | None = None,
        costs: ArrayLike | None = None,
    ) -> None:
        array = as_losses("seen.losses", losses)
        if names is not None:
            names = as_strings("seen.names", names)
        if names is not None and len(names) != array.shape[1]:
            raise InvalidArgumentError(
                f"seen.names: {len(names)} names; expected one for each of the "
                f"{array.shape[1]} columns of seen.losses"
            )
        if names is not None and len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise InvalidArgumentError(f"seen.names: {twice!r} is there twice; expected each once")
        if array.shape[1] == 0:
            raise InvalidArgumentError("seen.losses: no column; expected one for each seen LLM")
        never = np.flatnonzero(np.isnan(array).all(axis=0))
        if len(never):
            raise InvalidArgumentError(
                f"seen.losses: column {never[0]} has no outcome; expected at least one for each LLM"
            )
        object.__setattr__(self, "losses", array)
        object.__setattr__(self, "names", None if names is None else tuple(names))
        checked = None if costs is None else as_costs("seen.costs", costs, array.shape[1])
        object.__setattr__(self, "costs", checked)

    @property
    def n_models(self) -> int:
        """Number of LLMs."""
        return int(self.losses.shape[1])
