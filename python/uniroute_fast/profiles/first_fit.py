"""A router's first fit: from unlabelled prompts to embedder, cluster map and profiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uniroute_fast._checks.instances import as_embedder, as_instance
from uniroute_fast._checks.prompts import as_embeddings, as_list, as_prompts
from uniroute_fast._checks.scalars import as_count
from uniroute_fast.clusters.attributes import checked_attributes
from uniroute_fast.clusters.examples import MOST_PROMPTS, Examples
from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.profiles.fit import fit_profiler
from uniroute_fast.profiles.known_prompts import keys_of
from uniroute_fast.profiles.learner import Learner
from uniroute_fast.profiles.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from uniroute_fast.clusters.cluster_map import ClusterMap
    from uniroute_fast.embedding.embedder import Embedder


class FirstFit(NamedTuple):
    """What a router is made of.

    Attributes
    ----------
    embedder : Embedder or None
    cluster_map : ClusterMap
    learner : Learner
    baseline : dict
        The prompts that those to come are compared with: texts, or embeddings.
    """

    embedder: Any
    cluster_map: ClusterMap
    learner: Learner
    baseline: dict[str, Any]


def fit_first(
    texts: Sequence[str] | None,
    *,
    embedder: Embedder | None,
    n_clusters: int | None,
    seen: Outcomes | None,
    attributes: ArrayLike | None,
    seed: int,
    embeddings: ArrayLike | None,
    typical_prompts: int,
    area: Callable[..., float],
) -> FirstFit:
    """Fit on prompts; parameters and errors are those of `Router.fit`.

    `area` is the measure that settings are chosen by: see `fit_profiler`.
    """
    if seen is not None:
        as_instance("seen", seen, Outcomes, "uniroute_fast.Outcomes, or None")
    texts, vectors, rows = as_prompts(texts, embeddings)
    seed = as_count("seed", seed, 0, 2**31 - 1)
    typical_prompts = as_count("typical_prompts", typical_prompts, 0, MOST_PROMPTS)
    if vectors is None:
        embedder = as_embedder(embedder)
        if embedder is None:
            embedder = LexicalEmbedder.fit(texts, seed=seed)
        vectors = np.asarray(embedder.embed(texts))
        if len(vectors) != rows:
            raise InvalidArgumentError(
                f"embedder: {len(vectors)} vectors for {rows} texts; expected one for each"
            )
    elif embedder is not None:
        raise InvalidArgumentError("embedder: given beside embeddings=; expected one of them")
    x = as_embeddings("embeddings", vectors)
    if seen is not None and len(seen.losses) != rows:
        raise InvalidArgumentError(
            f"seen.losses: {len(seen.losses)} rows; expected one for each of the {rows} texts"
        )
    known = None if attributes is None else checked_attributes(attributes, rows)
    usable = np.any(x != 0, axis=1)
    if not usable.any():
        raise InvalidArgumentError("texts: none can be embedded; expected at least one")
    if n_clusters is not None:
        # Not more than there are prompts that can be embedded.
        n_clusters = as_count("n_clusters", n_clusters, 1, int(usable.sum()))
    losses, seen_costs = (None, None) if seen is None else (seen.losses[usable], seen.costs)
    if losses is not None and np.isnan(losses).all(axis=0).any():
        column = int(np.argmax(np.isnan(losses).all(axis=0)))
        raise InvalidArgumentError(
            f"seen.losses: column {column} has no outcome on a prompt that can be embedded; "
            "expected at least one for each LLM"
        )
    profiler = fit_profiler(
        x[usable],
        losses,
        seen_costs,
        keys=keys_of(texts, x)[usable],
        n_clusters=n_clusters,
        attributes=None if known is None else known[usable],
        seed=seed,
        area=area,
    )
    listed = None
    if texts is not None:
        listed = [text for text, ok in zip(as_list(texts), usable, strict=True) if ok]
    examples = Examples.of(profiler.map, x[usable], listed, typical_prompts)
    learner = Learner(profiler, examples, (texts, x if texts is None else None))
    own = isinstance(embedder, LexicalEmbedder)
    baseline = {"texts": texts} if own else {"embeddings": x[usable]}
    return FirstFit(embedder, profiler.map, learner, baseline)
