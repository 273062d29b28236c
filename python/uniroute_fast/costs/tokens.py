"""What tokens an LLM's calls use, learned from logs: what it is charged for.

The input tokens of a call are taken to be a line, ``scale * tokens of the prompt + extra``: an LLM
has its own tokeniser, and is sent more than the prompt, such as a system prompt or descriptions of
tools. The output tokens are expected to be those of the prompt's cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_numbers
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: How many answers the prior of a cluster counts for.
STRENGTH = 10.0

#: Most tokens of a call, and the largest price of a million: beyond lie mistakes, and costs that
#: overflow. The core holds the same bounds.
MOST_TOKENS = 1e15
LARGEST_PRICE = 1e30


@dataclass(frozen=True, eq=False)
class Usage:
    """What tokens M LLMs use, under a cluster map of K clusters.

    Attributes
    ----------
    output_tokens : float32[K, M]
        ``phi @ output_tokens`` are the expected tokens of answers. Under a map of H heads an entry
        is the expectation in that cluster, divided by H.
    input_scale, input_extra : float64[M]
        Input tokens of a call on a prompt of t tokens are ``input_scale * t + input_extra``.
    """

    output_tokens: NDArray[np.float32]
    input_scale: NDArray[np.float64]
    input_extra: NDArray[np.float64]

    def parts(self) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """Return the three, as `Router.insert` and `Router.set_usage` take them."""
        return self.output_tokens, self.input_scale, self.input_extra

    def cost(
        self,
        phi: NDArray[np.float32],
        tokens: NDArray[np.float64],
        input_prices: NDArray[np.float64],
        output_prices: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return what calls on prompts of those lengths are expected to cost, float64[N, M]."""
        answers = phi @ self.output_tokens
        return _native.call_costs(
            tokens, answers, input_prices, output_prices, self.input_scale, self.input_extra
        )


def fit_usage(
    phi: NDArray[np.float32],
    output_tokens: NDArray[np.float64],
    tokens: NDArray[np.float64] | None = None,
    input_tokens: NDArray[np.float64] | None = None,
    strength: float = STRENGTH,
) -> Usage:
    """Learn from logs what tokens LLMs use.

    Parameters
    ----------
    phi : float32[N, K]
        Cluster weights of the prompts; rows sum to the number of heads.
    output_tokens : float64[N, M]
        Tokens of answers, 0 or more; NaN = not run. Each LLM has one at least.
    tokens : float64[N], optional
        Lengths of the prompts; needed with `input_tokens`.
    input_tokens : float64[N, M], optional
        Tokens that each call was charged for as input; NaN = not known. Default: those of the
        prompt, as they are.
    strength : float
        How many answers the prior of a cluster counts for.

    Notes
    -----
    A cluster's mean is pulled towards a prior: the LLM's overall mean, times how much longer than
    elsewhere the answers of all LLMs are in that cluster. So a few answers of a new LLM are enough
    to tell where it will be dear. O(N K M).
    """
    run = ~np.isnan(output_tokens)
    known = np.where(run, output_tokens, 0.0)
    level = known.sum(axis=0) / run.sum(axis=0)
    talking = run & (level > 0)
    relative = np.divide(known, level, out=np.zeros_like(known), where=talking)
    # Each prompt counts once, however many LLMs answered it: their lengths go together.
    answers = talking.sum(axis=1)
    length = relative.sum(axis=1) / np.maximum(answers, 1)
    weights = phi.astype(np.float64)
    pooled = weights.T @ np.where(answers > 0, length, 0.0) + strength
    factor = pooled / (weights.T @ (answers > 0) + strength)
    prior = factor[:, None] * level
    mean = (weights.T @ known + strength * prior) / (weights.T @ run + strength)
    heads = max(round(float(weights.sum(axis=1).max(initial=1.0))), 1)
    scale, extra = np.ones(len(level)), np.zeros(len(level))
    if input_tokens is not None and tokens is not None:
        for m, column in enumerate(input_tokens.T):
            scale[m], extra[m] = _line(tokens, column)
    return Usage((mean / heads).astype(np.float32), scale, extra)


def as_tokens(argument: str, values: ArrayLike, rows: int, columns: int) -> NDArray[np.float64]:
    """Return numbers of tokens as float64[rows, columns], NaN where not known, checked."""
    array = as_numbers(argument, values, "numbers of tokens, NaN = not known", "iuf")
    if array.ndim == 1 and columns == 1:
        array = array[:, None]
    if array.shape != (rows, columns):
        raise InvalidArgumentError(
            f"{argument}: shape {array.shape}; expected ({rows}, {columns}), [prompts, models]"
        )
    array = array.astype(np.float64)
    bad = np.argwhere((array < 0) | (array > MOST_TOKENS))
    if len(bad):
        row, column = bad[0]
        raise InvalidArgumentError(
            f"{argument}: {array[row, column]} in row {row}, column {column}; expected numbers, "
            f"0 to {MOST_TOKENS:.0e}, NaN = not known"
        )
    return array


def as_prices(argument: str, prices: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return prices of a million tokens as float64[count], checked."""
    array = np.atleast_1d(as_numbers(argument, prices, kinds="iuf"))
    if array.shape != (count,):
        raise InvalidArgumentError(
            f"{argument}: shape {array.shape}; expected ({count},), one for each of the names"
        )
    bad = np.flatnonzero(~((array >= 0) & (array <= LARGEST_PRICE)))
    if len(bad):
        raise InvalidArgumentError(
            f"{argument}: {array[bad[0]]} at index {bad[0]}; expected numbers, 0 to "
            f"{LARGEST_PRICE:.0e}"
        )
    return array.astype(np.float64)


def estimate_tokens(texts: Any) -> NDArray[np.float64]:
    """Return how many tokens texts have, more or less: a quarter of their UTF-8 bytes, rounded up.

    Parameters
    ----------
    texts : iterable of str, NumPy array of strings or Arrow string array, N of them

    Returns
    -------
    float64[N]
        As the serving path estimates them. What cannot be routed has none, and counts 0: a null,
        and a text that is not valid Unicode (one with lone surrogates), whose status is
        ``"invalid"``.

    Raises
    ------
    ArgumentTypeError
        No texts.
    """
    return _native.estimate_tokens(texts)


def _line(tokens: NDArray[np.float64], charged: NDArray[np.float64]) -> tuple[float, float]:
    """Return the least-squares line through what was charged, neither part of it negative."""
    known = ~np.isnan(charged)
    if not known.any():
        return 1.0, 0.0
    x, y = tokens[known], charged[known]
    spread = float(np.square(x - x.mean()).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
    slope = max(slope, 0.0)
    extra = float(y.mean() - slope * x.mean())
    if extra < 0:
        return float(y.mean() / x.mean()), 0.0
    return slope, extra
