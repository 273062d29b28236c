"""Prompts that seen LLMs were run on, known again by their keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
