"""Posteriors under each head of a cluster map, and one profile of them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.profiles.bayes import Posterior, Prior, posterior
from uniroute_fast.profiles.evidence import Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray


def head_posteriors(
    evidence: Evidence, sizes: Sequence[int], priors: Sequence[Prior], spread: float
) -> list[Posterior]:
    """Return the posterior under each head, from evidence on [clusters of all heads, factors].

    A head's background cluster takes no part: what it predicts, the overall mean, is known.
    """
    factors = np.arange(sum(sizes), len(evidence.phi))
    starts = np.cumsum([0, *sizes])
    return [
        posterior(
            evidence.features(np.concatenate([start + np.arange(prior.n_clusters), factors])),
            prior,
            spread,
        )
        for start, prior in zip(starts, priors, strict=False)
    ]


def overall_mean(
    evidence: Evidence,
    posteriors: Sequence[Posterior],
    sizes: Sequence[int],
    mix: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return each LLM's mean loss over prompts of a mix, float64[M].

    The mean over the labelled prompts, plus what the posterior expects of the difference between
    their mix and this one: an LLM that is tried on hard prompts is not a worse one for it. Factors
    are 0 on average over all prompts, and say how hard the labelled ones were for their clusters.
    """
    found = np.zeros(evidence.n_models)
    hard = evidence.phi[sum(sizes) :] / evidence.count
    starts = np.cumsum([0, *sizes])
    for posterior_, start, size in zip(posteriors, starts, sizes, strict=False):
        shift = (
            mix[start : start + size, None] - evidence.phi[start : start + size] / evidence.count
        )
        k = len(posterior_.mean)
        moved = evidence.mean + (shift[:k] * posterior_.mean).sum(axis=0)
        moved -= (hard * posterior_.loadings).sum(axis=0)
        found += moved / (1 - shift[k:].sum(axis=0))
    return np.clip(found / len(posteriors), 0.0, 1.0)


def averaged(
    posteriors: Sequence[Posterior],
    sizes: Sequence[int],
    mean: NDArray[np.float64],
    trust: float,
) -> NDArray[np.float32]:
    """Return profiles float32[K_total, M] whose product with phi averages the heads' predictions.

    Predictions are drawn towards each LLM's overall mean as far as ``trust`` falls short of 1. A
    head with one cluster more than its posterior has a background: the overall mean itself.
    """
    rows = []
    for found, size in zip(posteriors, sizes, strict=True):
        rows.append(mean + trust * (found.mean - mean))
        rows.append(np.tile(mean, (size - len(found.mean), 1)))
    return np.asarray(np.vstack(rows) / len(posteriors), dtype=np.float32)
