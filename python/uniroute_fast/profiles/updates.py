"""Outcomes that arrive while a router serves: the profiles are refined in place.

Sums of outcomes add up, so an LLM's profile after feedback is the one that profiling with all its
outcomes at once would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast._checks.arrays import GREATEST_WEIGHT, as_numbers
from uniroute_fast._checks.scalars import as_number, as_string
from uniroute_fast._checks.sequences import as_strings
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.profiles.evidence import observe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast.profiles.profilers import Profiler
    from uniroute_fast.profiles.records import Records, Tally


def refined(
    profiler: Profiler,
    records: Records,
    features: NDArray[np.float32],
    models: Sequence[str],
    losses: NDArray[np.float64],
    weights: NDArray[np.float64],
    half_life: float | None = None,
) -> dict[str, Tally]:
    """Return the tallies of the LLMs concerned after these outcomes.

    Parameters
    ----------
    profiler : Profiler
    records : Records
        They know all of `models`.
    features : float32[N, F]
        Of the prompts: `Profiler.features`.
    models : sequence of str, N of them
        Which LLM answered each prompt.
    losses, weights : float64[N]
    half_life : float, optional
        After so many further outcomes of an LLM, an outcome counts for half.

    Notes
    -----
    O(N F), and O(F²) for each F/2 outcomes of an LLM.
    """
    names = np.asarray(models, dtype=object)
    decay = 1.0 if half_life is None else 0.5 ** (1 / float(half_life))
    tallies = {}
    for name in dict.fromkeys(models):
        rows = np.flatnonzero(names == name)
        own = features[rows]
        weight = weights[rows] * decay ** np.arange(len(rows) - 1, -1, -1)
        new = observe(own, losses[rows, None], weight, gram=False)
        tallies[name] = records[name].plus(new, own, weight, decay ** len(rows))
    return tallies


def checked(
    models: Any, losses: ArrayLike, weights: ArrayLike | None, half_life: float | None, n: int
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return the arguments of `Router.observe_many`, checked: names, losses and weights."""
    if isinstance(models, str):
        names = [as_string("models", models)] * n
    else:
        names = as_strings("models", models)
        if len(names) != n:
            raise InvalidArgumentError(
                f"models: {len(names)} names for {n} prompts; expected one, or one for each"
            )
    if half_life is not None:
        as_number("half_life", half_life, 0, above=True)
    loss = _numbers("losses", losses, n)
    bad = ~((loss >= 0) & (loss <= 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidArgumentError(f"losses: {loss[row]:g} in row {row}; expected 0 to 1")
    weight = np.ones(n) if weights is None else _numbers("weights", weights, n)
    bad = ~((weight > 0) & (weight <= GREATEST_WEIGHT))
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidArgumentError(
            f"weights: {weight[row]:g} in row {row}; expected numbers above 0, "
            f"{GREATEST_WEIGHT:g} at most"
        )
    return names, loss, weight


def _numbers(argument: str, values: ArrayLike, n: int) -> NDArray[np.float64]:
    array = as_numbers(argument, values)
    if array.shape not in ((), (n,)):
        raise InvalidArgumentError(
            f"{argument}: shape {array.shape}; expected one number, or {n}, one for each prompt"
        )
    return np.array(np.broadcast_to(array, n), dtype=np.float64)
