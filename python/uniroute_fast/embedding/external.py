"""Embedders behind other libraries and services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uniroute_fast._checks.extras import imported
from uniroute_fast.embedding.embedder import Texts
from uniroute_fast.embedding.lexical import _as_list

if TYPE_CHECKING:
    pass


class SentenceTransformerEmbedder:
    """Maps texts to vectors with a sentence-transformers model.

    Parameters
    ----------
    model : str
        Name on the hub, or path of a folder.
    **options
        Passed on to ``SentenceTransformer``: ``device``, ``backend`` ("torch", "onnx",
        "openvino"), ...

    Raises
    ------
    MissingExtraError
        Without the extra ``sentence-transformers``.
    """

    def __init__(self, model: str, *, batch_size: int = 32, **options: Any):
        module = imported("sentence_transformers", "sentence-transformers", type(self).__name__)
        self.model = module.SentenceTransformer(model, **options)
        self.batch_size = batch_size

    def embed(self, texts: Texts, /) -> NDArray[np.float32]:
        """Return one vector of norm 1 for each text, float32[N, D]."""
        texts = _as_list(texts)
        if not texts:
            dim = self.model.get_sentence_embedding_dimension()
            return np.zeros((0, dim), np.float32)
        vectors = self.model.encode(
            texts,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, np.float32)


class OpenAIEmbedder:
    """Maps texts to vectors with an OpenAI-compatible embeddings endpoint.

    Parameters
    ----------
    client : openai.OpenAI
        Or anything with its ``embeddings.create(model=..., input=[...])``.
    model : str
        Name of the model at that endpoint.
    batch_size : int
        Texts of one request.

    Examples
    --------
    >>> teacher = uf.OpenAIEmbedder(openai.OpenAI(), "text-embedding-3-small")  # doctest: +SKIP
    >>> uf.LexicalEmbedder.distill(texts, teacher)  # doctest: +SKIP
    """

    def __init__(self, client: Any, model: str, *, batch_size: int = 256):
        self.client = client
        self.model = model
        self.batch_size = batch_size

    def embed(self, texts: Texts, /) -> NDArray[np.float32]:
        """Return one vector for each text, float32[N, D]; the endpoint's errors pass through."""
        texts = _as_list(texts)
        vectors: list[list[float]] = []
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            answer = self.client.embeddings.create(model=self.model, input=batch)
            by_index = sorted(answer.data, key=lambda item: item.index)
            vectors += [item.embedding for item in by_index]
        return np.asarray(vectors, np.float32).reshape(len(texts), -1 if texts else 0)
