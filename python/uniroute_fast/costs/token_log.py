"""What LLMs used on logged prompts, and what a token of each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.costs.tokens import as_prices, as_tokens, fit_usage
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast._native import Prompts
    from uniroute_fast.costs.tokens import Usage


@dataclass(frozen=True, eq=False)
class TokenLog:
    """Tokens and prices as a caller gave them; `checked` makes arrays of them.

    Attributes
    ----------
    output_tokens, input_tokens : float64[N, M], or None
        What each LLM's answers had, and what it was charged for as input; NaN = not known.
    tokens : float64[N], or None
        Lengths of the prompts. Default: those that the prompts are estimated to have.
    input_prices, output_prices : float64[M], or None
        Of a million tokens.
    """

    output_tokens: Any = None
    input_tokens: Any = None
    tokens: Any = None
    input_prices: Any = None
    output_prices: Any = None
    names: Sequence[str] = ()

    def checked(self, names: Sequence[str], rows: int) -> TokenLog:
        """Return the log as arrays, of these LLMs on `rows` prompts.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            An array of another shape, or one without the other that it needs.
        """
        if (self.input_prices is None) != (self.output_prices is None):
            raise InvalidArgumentError("input_prices, output_prices: one is missing; expected both")
        if self.input_tokens is not None and self.output_tokens is None:
            raise InvalidArgumentError("output_tokens: missing; expected beside input_tokens")
        shapes = {"output_tokens": len(names), "input_tokens": len(names), "tokens": 1}
        arrays: dict[str, Any] = {
            name: as_tokens(name, getattr(self, name), rows, columns)
            for name, columns in shapes.items()
            if self.output_tokens is not None and getattr(self, name) is not None
        }
        if "tokens" in arrays:
            arrays["tokens"] = arrays["tokens"][:, 0]
            if np.isnan(arrays["tokens"]).any():
                raise InvalidArgumentError("tokens: NaN; expected the length of each prompt")
        for name in ("input_prices", "output_prices"):
            if getattr(self, name) is not None:
                arrays[name] = as_prices(name, getattr(self, name), len(names))
        return replace(self, names=names, **arrays)

    @property
    def prices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Prices of input and output, where they are given."""
        return None if self.input_prices is None else (self.input_prices, self.output_prices)

    def usage(self, prompts: Prompts, usable: NDArray[np.bool_]) -> Usage | None:
        """Learn from the usable prompts what the LLMs use; None where their answers are not known.

        Raises
        ------
        InvalidArgumentError
            An LLM without any answer, or input tokens of prompts whose lengths are not known.
        """
        if self.output_tokens is None:
            return None
        output = self.output_tokens[usable]
        never = np.flatnonzero(np.isnan(output).all(axis=0))
        if len(never):
            raise InvalidArgumentError(
                f"output_tokens: {self.names[never[0]]!r} (column {never[0]}) has no answer to a "
                "prompt that can be embedded; expected at least one for each LLM"
            )
        lengths = self._lengths(prompts, usable)
        if self.input_tokens is None:
            return fit_usage(prompts.phi[usable], output, lengths)
        if lengths is None:
            raise InvalidArgumentError(
                "tokens: missing; expected the prompts' lengths beside input_tokens and embeddings"
            )
        return fit_usage(prompts.phi[usable], output, lengths, self.input_tokens[usable])

    def mean_costs(
        self, usage: Usage | None, prompts: Prompts, usable: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """Return what calls on the usable prompts cost on average, float64[M], if that is known."""
        lengths = self._lengths(prompts, usable)
        if usage is None or self.prices is None or lengths is None:
            return None
        costs = usage.cost(prompts.phi[usable], lengths, *self.prices)
        return np.asarray(costs.mean(axis=0))

    def _lengths(self, prompts: Prompts, usable: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Return lengths of the usable prompts; None where nothing tells them."""
        if self.tokens is not None:
            return np.asarray(self.tokens[usable])
        estimated = prompts.tokens
        return None if np.isnan(estimated).all() else np.nan_to_num(estimated[usable])
