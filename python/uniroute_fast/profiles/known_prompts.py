"""Prompts that seen LLMs were run on, known again by their keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.prompts import as_list

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class KnownPrompts:
    """What seen LLMs tell of the prompts that they were run on.

    Attributes
    ----------
    keys : uint64[N]
        Of the prompts, ascending: see `prompt_keys`.
    factors : float32[N, R]
        See `uniroute_fast.profiles.bayes.fit_priors`.
    """

    keys: NDArray[np.uint64]
    factors: NDArray[np.float32]

    def look_up(self, keys: NDArray[np.uint64] | None, n: int) -> NDArray[np.float32]:
        """Return the factors of n prompts, float32[n, R]: 0 for those that are not known."""
        found = np.zeros((n, self.factors.shape[1]), dtype=np.float32)
        if keys is None or not len(self.keys):
            return found
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[at] == keys
        found[known] = self.factors[at[known]]
        return found


def prompt_keys(prompts: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return a 64-bit key for each prompt, by which it is known again: a BLAKE2b digest."""
    digests = b"".join(hashlib.blake2b(prompt, digest_size=8).digest() for prompt in prompts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def keys_of(texts: Any, embeddings: NDArray[Any] | None) -> NDArray[np.uint64]:
    """Return keys of prompts, from their text or, without, their vector."""
    if texts is None:
        return prompt_keys(row.tobytes() for row in np.asarray(embeddings, dtype=np.float32))
    return prompt_keys(
        text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""
        for text in as_list(texts)
    )


def embedded(
    routing: _native.Router | _native.Snapshot, texts: Any, embeddings: NDArray[Any] | None
) -> _native.Prompts:
    """Return prompts embedded by what a router routes by, with their keys."""
    prompts = _native.Routing.embed(routing, texts, embeddings=embeddings)
    if isinstance(texts, _native.Prompts):
        return prompts
    return prompts.with_keys(keys_of(texts, embeddings))
