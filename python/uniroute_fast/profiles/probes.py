"""Which prompts to run on a new LLM next: a design of experiments under the prior.

The prior says how an LLM's losses in different clusters hang together, so some outcomes tell more
of the others. Prompts are chosen one by one, each the one that lowers the mean variance of the
predicted loss the most, given those before it (a greedy V-optimal design; Chaloner and Verdinelli,
"Bayesian experimental design: a review", 1995). What an outcome will be does not matter to the
variance, so all of them can be named beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.profiles.bayes import COMMON_LEVEL
from uniroute_fast.profiles.profilers import BayesProfiler, MeansProfiler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from uniroute_fast.profiles.evidence import Evidence
    from uniroute_fast.profiles.profilers import Profiler

#: Where no LLM was seen: standard deviation of a loss, and variances of a cluster's deviation from
#: its coarse cluster's and of that from the LLM's level, in units of the loss's own.
UNKNOWN_SCALE, FINE_VARIANCE, COARSE_VARIANCE = 0.5, 0.05, 0.1


#: Prompts that stand out the most among those that seen LLMs were run on, so large a share, are no
#: probes: nearly every LLM passes them, or fails, and their outcomes say less than a linear model
#: of them believes.
EXTREME = 0.2


@dataclass(frozen=True, eq=False)
class Probes:
    """Prompts to run next, the most telling first.

    Attributes
    ----------
    indices : intp[n]
        Which of the candidates.
    texts : list of str, or None
        The same as texts, where the candidates were texts.
    standard_error : float64[n + 1]
        Standard error of the LLM's predicted loss, root mean square over the candidates, after none
        of the probes, after the first, and so on.
    """

    indices: NDArray[np.intp]
    texts: list[str] | None
    standard_error: NDArray[np.float64]


def choose_probes(
    profiler: Profiler,
    features: NDArray[np.float32],
    n: int,
    known: Evidence | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Choose n of the candidates, and tell what each does to the error.

    Parameters
    ----------
    profiler : Profiler
    features : float32[N, F]
        Of the candidates: cluster weights, then what else is known of them.
    n : int
        At most N.
    known : Evidence, optional
        On the one LLM in question. Default: nothing is known of it.

    Returns
    -------
    intp[n], float64[n + 1]
        Candidates in order, and the root mean square standard error of predicted losses.

    Notes
    -----
    O(n N F + N F² + F³) time, 24 N F bytes.
    """
    scale = UNKNOWN_SCALE
    if known is not None:
        mean = float(np.clip(known.mean[0], 0.05, 0.95))
        scale = float(np.sqrt(mean * (1 - mean)))
    designs = _designs(profiler, features.astype(np.float64), known)
    left = _ordinary(features[:, profiler.map.n_clusters :], n)
    chosen, errors = [], [_error(designs)]
    for _ in range(n):
        gain = np.sum([design.gain() for design in designs], axis=0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        left[best] = False
        for design in designs:
            design.add(best)
        chosen.append(best)
        errors.append(_error(designs))
    factor = profiler.inflation if isinstance(profiler, BayesProfiler) else 1.0
    return np.array(chosen, np.intp), factor * scale * np.array(errors)


def _ordinary(factors: NDArray[np.float32], n: int) -> NDArray[np.bool_]:
    """Return which candidates may be probes, at least n: all but the extreme ones."""
    if not factors.shape[1]:
        return np.ones(len(factors), dtype=bool)
    largest = np.abs(factors).max(axis=1)
    rank = max(n, round((1 - EXTREME) * len(largest))) - 1
    return np.asarray(largest <= np.sort(largest)[rank])


def _error(designs: Sequence[_Design]) -> float:
    return float(np.sqrt(np.mean([max(design.variance, 0.0) for design in designs])))


class _Design:
    """The covariance of one head's profile, as probes are added to it.

    Kept as products with the candidates' features X [N, F] and with the second moment M of the
    clusters' weights, so that a probe costs O(N F).
    """

    def __init__(
        self,
        features: NDArray[np.float64],
        n_clusters: int,
        covariance: NDArray[np.float64],
        noise: float,
    ) -> None:
        self._features, self._noise = features, noise
        # Predictions for other prompts rest on clusters alone.
        moment = np.zeros_like(covariance)
        clusters = features[:, :n_clusters]
        moment[:n_clusters, :n_clusters] = clusters.T @ clusters / len(clusters)
        self._moment = moment
        self._spread = features @ covariance  # X S
        self._effect = self._spread @ moment  # X S M
        self.variance = float(np.sum(covariance * moment))

    def gain(self) -> NDArray[np.float64]:
        """Return by how much each candidate would lower the mean variance, float64[N]."""
        own = np.einsum("nf,nf->n", self._spread, self._features)
        return np.asarray(np.einsum("nf,nf->n", self._spread, self._effect) / (self._noise + own))

    def add(self, probe: int) -> None:
        """Take in one candidate's outcome, whatever it will be: a rank-one step."""
        direction = self._spread[probe].copy()
        total = self._noise + float(direction @ self._features[probe])
        moved = self._moment @ direction
        self.variance -= float(direction @ moved) / total
        along = self._features @ direction / total
        self._spread -= np.outer(along, direction)
        self._effect -= np.outer(along, moved)


def _designs(
    profiler: Profiler, features: NDArray[np.float64], known: Evidence | None
) -> list[_Design]:
    """Return a design for each head, before the first probe."""
    if not isinstance(profiler, BayesProfiler):
        k = profiler.map.n_clusters
        parents = profiler.parents if isinstance(profiler, MeansProfiler) else np.arange(k)
        same = (parents[:, None] == parents).astype(np.float64)
        covariance = COMMON_LEVEL + COARSE_VARIANCE * same + FINE_VARIANCE * np.eye(k)
        precision = 0.0 if known is None else np.diag(known.phi[:k, 0])
        return [_Design(features[:, :k], k, _updated(covariance, precision), 1.0)]
    factors = np.arange(profiler.map.n_clusters, features.shape[1])
    starts = np.cumsum([0, *profiler.map.sizes])
    designs = []
    for start, prior in zip(starts, profiler.priors, strict=False):
        columns = np.concatenate([start + np.arange(prior.n_clusters), factors])
        covariance = profiler.spread * prior.covariance
        covariance[: prior.n_clusters, : prior.n_clusters] += COMMON_LEVEL
        if known is not None:
            gram = known.features(columns).gram[known.pattern[0]]
            covariance = _updated(covariance, gram / prior.noise)
        designs.append(_Design(features[:, columns], prior.n_clusters, covariance, prior.noise))
    return designs


def _updated(
    covariance: NDArray[np.float64], precision: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return the covariance after outcomes of that precision."""
    return np.asarray(np.linalg.inv(np.linalg.inv(covariance) + precision), np.float64)
