"""What an embedder is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from uniroute_fast import _native

if TYPE_CHECKING:
    pass


#: A list of str, a NumPy array of strings, or anything that exports an Arrow string column.
Texts: TypeAlias = Any


#: What a row's status number means.
STATUS_NAMES: tuple[str, ...] = tuple(_native.STATUS_NAMES)


@runtime_checkable
class Embedder(Protocol):
    """Anything that maps texts to vectors."""

    def embed(self, texts: Texts, /) -> NDArray[np.float32]:
        """Return one vector for each text, float32[N, D]."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors of texts, and what is known of each text beside its vector.

    Attributes
    ----------
    vectors : float32[N, D]
        Of Euclidean norm 1; zeros where the status is not ``"ok"``.
    coverage : float32[N]
        The share of the text's feature weight that the embedder knows, 0 to 1.
    status : list[str]
        ``"ok"``, ``"empty"``, ``"blank"`` (only white space, control or invisible characters),
        ``"unknown"`` (no feature that the embedder knows), ``"invalid"`` (lone surrogates) or
        ``"null"``.
    """

    vectors: NDArray[np.float32]
    coverage: NDArray[np.float32]
    status: list[str]
