"""A cluster map from attributes of prompts that the user names, such as topic or needed skill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.arrays import as_numbers
from uniroute_fast._checks.extras import imported
from uniroute_fast.clusters.cluster_map import SoftmaxHead
from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.clusters.nearest import nearest_centroid
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Inverse strength of the penalty on the weights, for embeddings of norm 1.
FREEDOM = 30.0


def attribute_head(
    embeddings: NDArray[np.float32],
    attributes: NDArray[np.float64],
    n_clusters: int,
    seed: int = 0,
) -> SoftmaxHead:
    """Cluster prompts by their attributes, and learn to predict the cluster from the embedding.

    The paper clusters *predicted* attributes of a prompt. Here prompts are clustered by their given
    attributes, and a multinomial logistic regression predicts the cluster: it serves as one softmax
    head, with nothing between.

    Parameters
    ----------
    embeddings : float32[N, D]
    attributes : float64[N, A]
        In [0, 1]: see `checked_attributes`.
    n_clusters : int
        At most; prompts with the same attributes are never parted, so there are no more clusters
        than there are different rows.
    seed : int

    Returns
    -------
    SoftmaxHead

    Raises
    ------
    MissingExtraError
        scikit-learn or faiss is not installed (extra ``fit``).

    Notes
    -----
    Jitkrittum et al., arXiv 2502.08773, appendix on prompt attributes. O(N K D) an iteration.
    """
    LogisticRegression = imported("sklearn.linear_model", "fit", "attributes").LogisticRegression
    kinds, labels = np.unique(attributes, axis=0, return_inverse=True)
    labels = labels.reshape(-1)
    if len(kinds) > n_clusters:
        points = np.ascontiguousarray(attributes, np.float32)
        nearest, _ = nearest_centroid(points, kmeans(points, n_clusters, seed))
        labels = np.unique(nearest, return_inverse=True)[1]
    dim, count = embeddings.shape[1], int(labels.max()) + 1
    if count == 1:
        return SoftmaxHead(np.zeros((1, dim), np.float32), np.zeros(1, np.float32))
    model = LogisticRegression(C=FREEDOM, max_iter=500).fit(embeddings, labels)
    weights, bias = model.coef_, model.intercept_
    if count == 2:  # One row of log odds, of the second against the first.
        weights, bias = np.vstack([0 * weights, weights]), np.append(0.0, bias)
    return SoftmaxHead(
        np.ascontiguousarray(weights, np.float32), np.ascontiguousarray(bias, np.float32)
    )


def checked_attributes(attributes: ArrayLike, n_prompts: int) -> NDArray[np.float64]:
    """Return attributes as float64[N, A], or raise.

    Raises
    ------
    ArgumentTypeError, InvalidArgumentError
        Not numbers, another shape, or a value outside [0, 1].
    """
    array = as_numbers("attributes", attributes, "booleans or numbers in [0, 1]")
    if array.ndim != 2 or len(array) != n_prompts or not array.size:
        raise InvalidArgumentError(
            f"attributes: shape {array.shape}; expected ({n_prompts}, A), one row for each prompt"
        )
    values = array.astype(np.float64)
    bad = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(bad):
        row, column = bad[0]
        raise InvalidArgumentError(
            f"attributes: {values[row, column]:g} in row {row}, column {column}; expected 0 to 1"
        )
    return values
