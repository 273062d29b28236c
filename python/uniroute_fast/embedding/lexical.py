"""Text to embedding.

An embedder is any object with ``embed(texts) -> float32[N, D]``. The default one is lexical:
n-grams looked up in a table, in microseconds and in Rust; see ``docs/embedding.md``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uniroute_fast import _native
from uniroute_fast._checks.arrays import as_numbers
from uniroute_fast._checks.extras import imported
from uniroute_fast._checks.scalars import as_count
from uniroute_fast._checks.sequences import as_sequence
from uniroute_fast.embedding.embedder import STATUS_NAMES, Embeddings, Texts
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


#: Table of 64 columns x 32,768 rows: 2 MiB, which stays in the caches of one core. More of either
#: costs time and gains nothing that shows in Area; see ``docs/embedding.md``.
DEFAULT_DIM = 64
DEFAULT_ROWS = 1 << 15
DEFAULT_NGRAMS = 2
MAX_SAMPLE = 50_000

#: Below this many texts every feature is kept; from here on, those of two texts or more.
FEW_TEXTS = 1_000


class LexicalEmbedder(_native.LexicalEmbedder):
    """Maps texts to vectors by hashed n-grams and a table; fitted with `fit` or `distill`.

    Words and single symbols, and pairs of them, are hashed; each known one adds a row of an int8
    table, weighted with ``1 + ln count`` and its inverse document frequency; the sum is scaled to
    norm 1. Immutable, picklable, safe to share between threads and forked processes.

    Source: section 5 of the method; the weights are those of Buckley et al. (TREC-3, "lnc").

    Attributes
    ----------
    dim : int
        Dimensions of a vector.
    rows : int
        Rows of the table, a power of two.
    n_features : int
        Rows that hold a feature.
    ngrams : int
        Highest order of the n-grams in use.
    info : dict
        How it was fitted, with the figures that the fit reported.

    Examples
    --------
    >>> import uniroute_fast as uf
    >>> texts = ["add two and two", "add three and four", "a poem on rain", "a poem on snow"]
    >>> e = uf.LexicalEmbedder.fit(texts, dim=2)
    >>> e.embed(["add six and one", "a poem"]).shape
    (2, 2)
    """

    @classmethod
    def fit(
        cls,
        texts: Texts,
        dim: int = DEFAULT_DIM,
        *,
        rows: int = DEFAULT_ROWS,
        ngrams: int = DEFAULT_NGRAMS,
        min_df: int | None = None,
        max_sample: int = MAX_SAMPLE,
        seed: int = 0,
    ) -> LexicalEmbedder:
        """Fit on texts alone: a truncated SVD of their weighted features, no model, no download.

        Document frequencies are counted over all texts in bounded memory; the SVD is that of a
        random sample. The same texts, arguments and seed give the same embedder.

        Parameters
        ----------
        texts : list[str], NumPy array of strings or Arrow string array
            What the embedder is for, unlabelled. Texts without features are left out.
        dim : int
            Dimensions of a vector, 1 to 4096. Where the sample has a lower rank, those beyond it
            are zero.
        rows : int
            Most rows of the table, rounded down to a power of two; the most frequent features get
            them. A row takes `dim` bytes.
        ngrams : int
            Highest order of n-grams, 1 to 3.
        min_df : int, optional
            Fewest texts that must have a feature; 2 unless given, 1 below 1,000 texts.
        max_sample : int
            Most texts that the SVD takes.
        seed : int
            Of the sample and of the SVD's random start.

        Raises
        ------
        InvalidArgumentError
            An argument out of range, or texts without any feature.
        ArgumentTypeError
            Texts that are no strings.
        MissingExtraError
            Without the extra ``fit``.

        Notes
        -----
        Takes time in proportion to the bytes of the texts and to ``min(N, max_sample) x dim``.
        """
        svd = imported("sklearn.utils.extmath", "fit", "LexicalEmbedder.fit")
        features = _Features.of(texts, dim, rows, ngrams, min_df, max_sample, seed)
        x = features.matrix
        rank = min(dim, *x.shape)
        _, singular_values, v = svd.randomized_svd(
            x, n_components=rank, n_oversamples=16, n_iter=4, random_state=seed
        )
        basis = np.zeros((features.vocabulary.rows, dim), np.float32)
        basis[:, :rank] = v.T
        energy = float((singular_values**2).sum() / max(x.multiply(x).sum(), 1e-12))
        return features.embedder(cls, basis, method="svd", energy=round(energy, 4), seed=seed)

    @classmethod
    def distill(
        cls,
        texts: Texts,
        teacher: Any,
        dim: int = DEFAULT_DIM,
        *,
        rows: int = DEFAULT_ROWS,
        ngrams: int = DEFAULT_NGRAMS,
        min_df: int | None = None,
        max_sample: int = MAX_SAMPLE,
        ridge: float = 0.3,
        seed: int = 0,
    ) -> LexicalEmbedder:
        """Fit by ridge regression of a teacher's vectors on the texts' weighted features.

        A tenth of the texts, 2,000 at most, is held out; the mean cosine between teacher and
        embedder on them is reported in ``info["held_out_cosine"]``.

        Parameters
        ----------
        texts : list[str], NumPy array of strings or Arrow string array
            What the embedder is for, unlabelled.
        teacher : float[N, E], embedder or callable
            The teacher's vectors of `texts`, or what makes them: an object with ``embed(texts)``
            or ``encode(texts)`` (model2vec, sentence-transformers), or a function of a list of
            texts. Teachers that make vectors are only asked for those of the sample.
        dim : int
            Dimensions of a vector. A teacher of more is first projected onto its `dim` principal
            directions; of fewer, the vectors have as many as the teacher's.
        ridge : float
            Penalty on the squared table, relative to features scaled to norm 1. Positive.
        rows, ngrams, min_df, max_sample, seed
            As in `fit`.

        Raises
        ------
        InvalidArgumentError
            An argument out of range, a teacher with other than one finite vector a text.
        ArgumentTypeError
            Texts that are no strings, a teacher that is none.
        MissingExtraError
            Without the extra ``fit``.
        """
        imported("scipy.sparse", "fit", "LexicalEmbedder.distill")
        if not ridge > 0 or not np.isfinite(ridge):
            raise InvalidArgumentError(f"ridge: {ridge}; expected a positive number")
        texts = texts if hasattr(texts, "__len__") else list(texts)
        features = _Features.of(texts, dim, rows, ngrams, min_df, max_sample, seed)
        target = _unit(_teach(teacher, texts, features.sample))
        held_out = np.zeros(len(target), bool)
        n_held_out = min(len(target) // 10, 2_000)
        held_out[np.random.default_rng(seed).permutation(len(target))[:n_held_out]] = True

        projected = _unit(target @ _principal_directions(target[~held_out], dim))
        weights = _ridge_regression(features.matrix[~held_out], projected[~held_out], ridge)
        embedder = features.embedder(cls, weights, method="distill", ridge=ridge, seed=seed)
        if not n_held_out:
            return embedder
        students = _unit(features.matrix[held_out] @ weights)
        cosine = float(np.einsum("nd,nd->n", students, projected[held_out]).mean())
        return features.embedder(
            cls,
            weights,
            method="distill",
            ridge=ridge,
            seed=seed,
            held_out_cosine=round(cosine, 4),
            n_held_out=n_held_out,
        )

    @property
    def info(self) -> dict[str, Any]:
        """How it was fitted, with the figures that the fit reported."""
        info: dict[str, Any] = json.loads(self.info_json)
        return info

    def embed(self, texts: Texts, /) -> NDArray[np.float32]:
        """Return one vector for each text.

        Parameters
        ----------
        texts : list[str], NumPy array of strings or Arrow string array
            Arrow columns are read in place, Python strings through CPython's own UTF-8 form.

        Returns
        -------
        float32[N, dim]
            Of norm 1; zeros for a text that cannot be embedded (see `embed_with_status`). A batch
            gives the same bits as its texts one by one.

        Raises
        ------
        ArgumentTypeError
            Anything else than texts.
        """
        return super().embed(texts)

    def embed_with_status(self, texts: Texts, /) -> Embeddings:  # type: ignore[override]
        """Return the vectors with each text's coverage and status.

        Parameters and errors as in `embed`.

        Examples
        --------
        >>> import uniroute_fast as uf
        >>> e = uf.LexicalEmbedder.fit(["a poem on rain", "two and two"], dim=2)
        >>> e.embed_with_status(["rain", "", None, "xyzzy"]).status
        ['ok', 'empty', 'null', 'unknown']
        """
        vectors, coverage, status = super().embed_with_status(texts)
        return Embeddings(vectors, coverage, [STATUS_NAMES[s] for s in status])

    def __repr__(self) -> str:
        return (
            f"LexicalEmbedder(dim={self.dim}, rows={self.rows}, n_features={self.n_features}, "
            f"ngrams={self.ngrams}, method={self.info.get('method')!r})"
        )


@dataclass
class _Features:
    """The weighted features of a sample of texts."""

    vocabulary: _native.Vocabulary
    matrix: csr_array
    sample: NDArray[np.int64] | None
    n_texts: int
    info: dict[str, Any]

    @classmethod
    def of(
        cls,
        texts: Texts,
        dim: int,
        rows: int,
        ngrams: int,
        min_df: int | None,
        max_sample: int,
        seed: int,
    ) -> _Features:
        sparse = imported("scipy.sparse", "fit", "fitting a LexicalEmbedder")
        as_count("dim", dim, 1, 4096)
        as_count("rows", rows, 4, 1 << 17)
        as_count("ngrams", ngrams, 1, 3)
        as_count("max_sample", max_sample, 2, 1 << 31)
        as_count("seed", seed, 0, (1 << 32) - 1)
        if min_df is not None:
            as_count("min_df", min_df, 1, 1 << 31)
        # A single str or a dict is refused by the count of features, which says what texts are.
        texts = texts if hasattr(texts, "__len__") else as_sequence("texts", texts)
        counter = _native.FeatureCounter(ngrams)
        counter.add(texts)
        if min_df is None:
            min_df = 1 if counter.n_texts < FEW_TEXTS else 2
        vocabulary = counter.vocabulary(min_df, rows)
        if vocabulary.n_features == 0:
            raise InvalidArgumentError(
                f"texts: no feature that {min_df} of {counter.n_texts} texts have; "
                "expected texts with words or symbols"
            )
        n = len(texts)
        sample = None
        if n > max_sample:
            sample = np.sort(np.random.default_rng(seed).choice(n, max_sample, replace=False))
        starts, columns, weights = vocabulary.features(texts, sample)
        shape = (len(starts) - 1, vocabulary.rows)
        matrix = sparse.csr_array((weights, columns, starts), shape=shape)
        info = {
            "n_texts": n,
            "n_sampled": shape[0],
            "min_df": min_df,
            "max_rows": rows,
            "n_features": vocabulary.n_features,
        }
        return cls(vocabulary, matrix, sample, n, info)

    def embedder(
        self, cls: type[LexicalEmbedder], basis: NDArray[np.float32], **info: Any
    ) -> LexicalEmbedder:
        """Return the embedder whose vector of a text is its weighted features times `basis`."""
        table = basis * self.vocabulary.idf[:, None]
        return cls(self.vocabulary.embedder(table, json.dumps(self.info | info)))


def _teach(teacher: Any, texts: Texts, sample: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Return the teacher's vectors of the sampled texts, float32[n, E]."""
    if isinstance(teacher, (str, bytes)) or teacher is None:
        raise ArgumentTypeError(
            f"teacher: a {type(teacher).__name__}; expected vectors, an embedder or a callable"
        )
    make = getattr(teacher, "embed", None) or getattr(teacher, "encode", None)
    if make is None and callable(teacher):
        make = teacher
    if make is not None:
        chosen = _as_list(texts)
        if sample is not None:
            chosen = [chosen[i] for i in sample]
        vectors, expected = np.asarray(make(chosen)), len(chosen)
    else:
        vectors, expected = np.asarray(teacher), len(texts)
    vectors = as_numbers("teacher", vectors, "vectors of floats", "iuf")
    if vectors.ndim != 2 or len(vectors) != expected or not np.isfinite(vectors).all():
        raise InvalidArgumentError(
            f"teacher: gives an array of shape {vectors.shape}; "
            f"expected one finite vector for each of {expected} texts"
        )
    if make is None and sample is not None:
        vectors = vectors[sample]
    return np.asarray(vectors, np.float32)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to norm 1; zero rows stay zero."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return unit


def _principal_directions(x: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return the directions in which rows are longest, float32[E, min(E, dim)]."""
    _, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1][:, :dim], np.float32)


def _ridge_regression(
    x: csr_array, y: NDArray[np.float32], ridge: float, tolerance: float = 1e-3
) -> NDArray[np.float32]:
    """Minimise ``|x w - y|^2 + ridge |w|^2`` by conjugate gradient, all columns at once.

    Stops when every column's residual has fallen by `tolerance`, or after 100 steps.
    """
    xt = x.T.tocsr()
    w = np.zeros((x.shape[1], y.shape[1]), np.float32)
    residual = xt @ y
    direction = residual.copy()
    square = np.einsum("vd,vd->d", residual, residual)
    goal = square * tolerance**2
    for _ in range(100):
        if (square <= goal).all():
            break
        image = xt @ (x @ direction) + ridge * direction
        step = square / np.maximum(np.einsum("vd,vd->d", direction, image), 1e-30)
        w += step * direction
        residual -= step * image
        previous, square = square, np.einsum("vd,vd->d", residual, residual)
        direction = residual + (square / np.maximum(previous, 1e-30)) * direction
    return w


def _as_list(texts: Texts) -> list[str]:
    """Return texts as a list, whatever they came in."""
    if isinstance(texts, (str, bytes)):
        raise ArgumentTypeError(f"texts: a single {type(texts).__name__}; expected a list of str")
    for name in ("tolist", "to_pylist", "to_list"):
        if hasattr(texts, name):
            return list(getattr(texts, name)())
    return list(texts)
