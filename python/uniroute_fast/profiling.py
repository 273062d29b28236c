"""From an LLM's losses on a few labelled prompts to its profile: one predicted loss a cluster.

A profiler is fitted once, on training prompts, and then profiles any LLM from its outcomes on a
few labelled prompts: `BayesProfiler` where outcomes of already evaluated LLMs are at hand,
`MeansProfiler` where there are none. `uniroute_fast.fitting` fits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from uniroute_fast.bayes import Prior, posterior
from uniroute_fast.cluster_map import ClusterMap
from uniroute_fast.errors import ArtifactError
from uniroute_fast.evidence import Evidence, observe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast.cluster_map import Parts

#: Strengths of shrinkage that cross-validation chooses from, in outcomes.
STRENGTHS = (6.0, 12.0, 24.0, 48.0, 96.0, 1e9)


@dataclass(frozen=True, eq=False)
class Profiles:
    """Profiles of M LLMs under a cluster map of K clusters.

    Attributes
    ----------
    psi : float32[K, M]
        Predicted loss of each LLM in each cluster; ``phi @ psi`` are the predicted losses.
    standard_error : float32[K, M]
        Standard deviation of each entry, given the outcomes.
    mean : float64[M]
        Each LLM's mean loss over its labelled prompts.
    """

    psi: NDArray[np.float32]
    standard_error: NDArray[np.float32]
    mean: NDArray[np.float64]


class Profiler(Protocol):
    """Turns outcomes into profiles, under the cluster map that serves."""

    @property
    def map(self) -> ClusterMap:
        """The cluster map."""

    def observe(
        self, phi: NDArray[np.float32], losses: ArrayLike, weights: ArrayLike | None = None
    ) -> Evidence:
        """Sum up losses float[N, M] (NaN = not run) on prompts of those cluster weights."""

    def profile(self, evidence: Evidence) -> Profiles:
        """Return the profiles of LLMs, given all outcomes known of them."""

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from."""


@dataclass(frozen=True, eq=False)
class BayesProfiler:
    """Posterior means under a Gaussian prior from seen LLMs, on a soft map.

    Attributes
    ----------
    map : ClusterMap
        A single softmax head.
    prior : Prior
    spread : float
        Factor on the prior's covariance.
    trust : float
        How far predicted losses depart from the LLM's overall mean, 0 to 1: 1 takes the posterior
        mean as it is. A little less guards against a prior that does not fit.
    """

    map: ClusterMap
    prior: Prior
    spread: float = 1.0
    trust: float = 1.0

    def observe(
        self, phi: NDArray[np.float32], losses: ArrayLike, weights: ArrayLike | None = None
    ) -> Evidence:
        """Sum up losses on labelled prompts: see `uniroute_fast.evidence.observe`."""
        return observe(phi, losses, weights)

    def profile(self, evidence: Evidence) -> Profiles:
        """Return the profiles of LLMs. O(P K³ + K² M) for P patterns of missing outcomes."""
        return bayes_profiles(evidence, self.prior, self.spread, self.trust)

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from."""
        arrays, meta = self.map.to_parts()
        arrays |= {"prior.mean": self.prior.mean, "prior.covariance": self.prior.covariance}
        meta |= {
            "profiler": "bayes",
            "noise": self.prior.noise,
            "spread": self.spread,
            "trust": self.trust,
        }
        return arrays, meta


@dataclass(frozen=True, eq=False)
class MeansProfiler:
    """Means of fine clusters, shrunk to those of coarse clusters, shrunk to the overall mean.

    The strength of shrinkage is chosen for the LLMs that are profiled together, by leaving out one
    outcome at a time.

    Attributes
    ----------
    map : ClusterMap
        A single nearest head.
    parents : intp[K]
        Coarse cluster of each fine one.
    """

    map: ClusterMap
    parents: NDArray[np.intp]

    def observe(
        self, phi: NDArray[np.float32], losses: ArrayLike, weights: ArrayLike | None = None
    ) -> Evidence:
        """Sum up losses on labelled prompts: see `uniroute_fast.evidence.observe`."""
        return observe(phi, losses, weights, gram=False)

    def profile(self, evidence: Evidence) -> Profiles:
        """Return the profiles of LLMs. O(K M) for each strength tried."""
        errors = [left_out_error(evidence, self.parents, strength) for strength in STRENGTHS]
        strength = STRENGTHS[int(np.argmin(errors))]
        psi = hierarchical(evidence.loss, evidence.phi, self.parents, strength)
        mean = evidence.loss.sum(axis=0) / evidence.count
        # An entry is a mean over n_k outcomes and what the levels above count for.
        variance = np.maximum(evidence.square.sum(axis=0) / evidence.count - mean**2, 1e-4)
        weight = np.minimum(evidence.phi + strength, np.maximum(evidence.count, 1.0))
        error = np.sqrt(variance / weight)
        return Profiles(psi.astype(np.float32), error.astype(np.float32), mean)

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from."""
        arrays, meta = self.map.to_parts()
        return arrays | {"parents": self.parents.astype(np.int64)}, meta | {"profiler": "means"}


AnyProfiler: TypeAlias = BayesProfiler | MeansProfiler


def profiler_from_parts(arrays: dict[str, NDArray[Any]], meta: dict[str, Any]) -> AnyProfiler:
    """Restore a profiler from its `to_parts`.

    Raises
    ------
    ArtifactError
        A part is missing or unknown.
    """
    cluster_map = ClusterMap.from_parts(arrays, meta)
    try:
        if meta["profiler"] == "means":
            return MeansProfiler(cluster_map, arrays["parents"].astype(np.intp))
        if meta["profiler"] == "bayes":
            prior = Prior(arrays["prior.mean"], arrays["prior.covariance"], float(meta["noise"]))
            return BayesProfiler(cluster_map, prior, float(meta["spread"]), float(meta["trust"]))
    except KeyError as error:
        raise ArtifactError(f"profiler: part {error} is missing") from error
    raise ArtifactError(f"profiler: unknown kind {meta['profiler']!r}")


def bayes_profiles(evidence: Evidence, prior: Prior, spread: float, trust: float) -> Profiles:
    """Return Bayes profiles drawn towards each LLM's overall mean: see `BayesProfiler`."""
    found = posterior(evidence, prior, spread)
    mean = evidence.loss.sum(axis=0) / evidence.count
    psi = mean + trust * (found.mean - mean)
    return Profiles(psi.astype(np.float32), found.standard_error.astype(np.float32), mean)


def shrunk_means(evidence: Evidence, strength: float = 0.0) -> NDArray[np.float64]:
    """Return cluster means of the losses, pulled towards each LLM's overall mean.

    Parameters
    ----------
    evidence : Evidence
        Under a hard map.
    strength : float
        How many outcomes the overall mean counts for, 0 or more. 0: the paper's plain cluster
        means (eq. 12), where an empty cluster takes the overall mean.

    Returns
    -------
    float64[K, M]

    Notes
    -----
    O(K M). With few prompts a cluster, plain means choose the luckiest LLM in place of the best:
    the minimum over many noisy estimates is biased.
    """
    overall = evidence.loss.sum(axis=0) / evidence.count
    return _pulled(evidence.loss, evidence.phi, overall, strength)


def hierarchical(
    loss: NDArray[np.float64],
    count: NDArray[np.float64],
    parents: NDArray[np.intp],
    strength: float,
) -> NDArray[np.float64]:
    """Return means of fine clusters pulled towards their coarse cluster's, itself so pulled.

    Parameters
    ----------
    loss, count : float64[K, M]
        Sums of losses and numbers of outcomes: ``loss`` and ``phi`` of `Evidence`.
    parents : intp[K]
        Coarse cluster of each fine cluster.
    strength : float
        How many outcomes the level above counts for.

    Returns
    -------
    float64[K, M]
    """
    member = _membership(parents)
    overall = loss.sum(axis=0) / count.sum(axis=0)
    coarse = _pulled(member @ loss, member @ count, overall, strength)
    return _pulled(loss, count, coarse[parents], strength)


def left_out_error(evidence: Evidence, parents: NDArray[np.intp], strength: float) -> float:
    """Return the sum of squared errors of `hierarchical`, each outcome predicted from the others.

    An outcome y in fine cluster k is predicted by a + b y with the same a, b for all outcomes of
    that cluster and LLM, so that sums of y and y² are enough. O(K M).
    """
    loss, count = evidence.loss, evidence.phi
    member = _membership(parents)
    coarse_loss, coarse_count = (member @ loss)[parents], (member @ count)[parents]
    # Prediction from all other outcomes = (sum above, less y) and so on up the hierarchy: linear
    # in y, with constants a and slopes b from the top down.
    others = np.maximum(count.sum(axis=0) - 1, 1.0)
    a, b = loss.sum(axis=0) / others, -1 / others
    for total, number in ((coarse_loss, coarse_count), (loss, count)):
        weight = np.maximum(number - 1, 0.0) + strength
        a, b = (total + strength * a) / weight, (-1 + strength * b) / weight
    # Sum of (y - a - b y)² over the cluster's outcomes.
    slope = 1 - b
    squares = slope**2 * evidence.square - 2 * slope * a * loss + a**2 * count
    return float(squares[count > 0].sum())


def _membership(parents: NDArray[np.intp]) -> NDArray[np.float64]:
    member = np.zeros((int(parents.max()) + 1, len(parents)))
    member[parents, np.arange(len(parents))] = 1.0
    return member


def _pulled(
    loss: NDArray[np.float64],
    count: NDArray[np.float64],
    towards: NDArray[np.float64],
    strength: float,
) -> NDArray[np.float64]:
    total = count + strength
    filled = np.where(total > 0, total, 1.0)
    return np.where(total > 0, (loss + strength * towards) / filled, towards)
