"""From an LLM's losses on a few labelled prompts to its profile: one predicted loss a cluster.

A profiler is fitted once, on training prompts, and then profiles any LLM from its outcomes on a
few labelled prompts: `BayesProfiler` where outcomes of already evaluated LLMs are at hand,
`MeansProfiler` where there are none. `uniroute_fast.profiles.fit` fits them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np

from uniroute_fast.clusters.cluster_map import ClusterMap
from uniroute_fast.profiles.bayes import COMMON_LEVEL, Prior, moments
from uniroute_fast.profiles.evidence import Evidence, observe
from uniroute_fast.profiles.heads import averaged, head_posteriors, overall_mean
from uniroute_fast.profiles.known_prompts import KnownPrompts
from uniroute_fast.profiles.shrinkage import hierarchical, left_out_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._checks.parts import Parts


#: Strengths of shrinkage that cross-validation chooses from, in outcomes.
STRENGTHS = (6.0, 12.0, 24.0, 48.0, 96.0, 1e9)


@dataclass(frozen=True, eq=False)
class Profiles:
    """Profiles of M LLMs under a cluster map of K clusters.

    Attributes
    ----------
    psi : float32[K, M]
        ``phi @ psi`` are the predicted losses. Under a map of H heads, whose predictions are
        averaged, an entry is the predicted loss of the LLM in that cluster, divided by H.
    standard_error : float32[K, M]
        Standard deviation, given the outcomes, of the predicted loss in each cluster.
    mean : float64[M]
        Each LLM's mean loss over its labelled prompts.
    setting : Setting or None
        What was chosen for all of the LLMs at once, where the profiler is joint.
    """

    psi: NDArray[np.float32]
    standard_error: NDArray[np.float32]
    mean: NDArray[np.float64]
    setting: Setting | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """The setting for LLMs that are profiled together, and how it was chosen.

    Attributes
    ----------
    index : int
        Of the one with the least sum of errors.
    errors : float64[S, M]
        Of each setting on each LLM.
    """

    index: int
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, errors: NDArray[np.float64]) -> Setting:
        """Choose by the errors."""
        return cls(int(np.argmin(errors.sum(axis=1))), errors)


class Profiler(Protocol):
    """Turns outcomes into profiles, under the cluster map that serves."""

    @property
    def map(self) -> ClusterMap:
        """The cluster map."""

    @property
    def joint(self) -> bool:
        """Whether LLMs that are profiled together have a say in each other's profiles."""

    def features(
        self, phi: NDArray[np.float32], keys: NDArray[np.uint64] | None = None
    ) -> NDArray[np.float32]:
        """Return what outcomes are summed up by, float32[N, F]: phi, and what else is known."""

    def observe(
        self,
        phi: NDArray[np.float32],
        losses: ArrayLike,
        weights: ArrayLike | None = None,
        keys: NDArray[np.uint64] | None = None,
    ) -> Evidence:
        """Sum up losses float[N, M] (NaN = not run) on prompts of those cluster weights.

        ``keys`` (see `prompt_keys`) say which of them are prompts of the profiler's fit.
        """

    def profile(self, evidence: Evidence) -> Profiles:
        """Return the profiles of LLMs, given all outcomes known of them."""

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from, beside its map."""


@dataclass(frozen=True, eq=False)
class BayesProfiler:
    """Posterior means under a Gaussian prior from seen LLMs, on soft maps.

    Each head of the map has a prior of its own; their predictions are averaged, so that no single
    number of clusters decides.

    Attributes
    ----------
    map : ClusterMap
        Softmax heads.
    priors : sequence of Prior
        One for each head; features are the head's clusters, then the factors.
    known : KnownPrompts
    mix : float64[K_total]
        Mean cluster weights of the prompts that it was fitted on: LLMs' overall means are over such
        a mix.
    spread : float
        Factor on the priors' covariances.
    trust : float
        How far predicted losses depart from the LLM's overall mean, 0 to 1: 1 takes the posterior
        mean as it is. A little less guards against a prior that does not fit.
    inflation : float
        Factor on standard errors: see `uniroute_fast.profiles.intervals`.
    """

    map: ClusterMap
    priors: Sequence[Prior]
    known: KnownPrompts
    mix: NDArray[np.float64]
    spread: float = 1.0
    trust: float = 1.0
    inflation: float = 1.0
    joint: ClassVar[bool] = False

    def features(
        self, phi: NDArray[np.float32], keys: NDArray[np.uint64] | None = None
    ) -> NDArray[np.float32]:
        """Return cluster weights and factors, float32[N, K + R]."""
        return np.hstack([phi, self.known.look_up(keys, len(phi))])

    def observe(
        self,
        phi: NDArray[np.float32],
        losses: ArrayLike,
        weights: ArrayLike | None = None,
        keys: NDArray[np.uint64] | None = None,
    ) -> Evidence:
        """Sum up losses on labelled prompts: see `Profiler.observe`."""
        return observe(self.features(phi, keys), losses, weights)

    def profile(self, evidence: Evidence) -> Profiles:
        """Return the profiles of LLMs. O(H (P K³ + K² M)) for H heads, P patterns."""
        posteriors = head_posteriors(evidence, self.map.sizes, self.priors, self.spread)
        mean = overall_mean(evidence, posteriors, self.map.sizes, self.mix)
        # One outcome more, as broad as the prior of levels: labels of little weight say nothing.
        level_error = posteriors[0].scale / np.sqrt(evidence.count + 1 / COMMON_LEVEL)
        errors = []
        for found, size in zip(posteriors, self.map.sizes, strict=True):
            background = np.tile(level_error, (size - len(found.mean), 1))
            errors.append(np.vstack([self.inflation * found.standard_error, background]))
        psi = averaged(posteriors, self.map.sizes, mean, self.trust)
        return Profiles(psi, np.vstack(errors).astype(np.float32), mean)

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from, beside its map."""
        arrays: dict[str, NDArray[Any]] = {
            # Artifacts hold signed 64-bit numbers.
            "known.keys": self.known.keys.view(np.int64),
            "known.factors": self.known.factors,
            "mix": self.mix,
        }
        for i, prior in enumerate(self.priors):
            arrays[f"prior{i}.mean"], arrays[f"prior{i}.covariance"] = prior.mean, prior.covariance
        meta = {
            "profiler": "bayes",
            "noise": [prior.noise for prior in self.priors],
            "spread": self.spread,
            "trust": self.trust,
            "inflation": self.inflation,
        }
        return arrays, meta


@dataclass(frozen=True, eq=False)
class MeansProfiler:
    """Means of fine clusters, shrunk to those of coarse clusters, shrunk to the overall mean.

    The strength of shrinkage is chosen for the LLMs that are profiled together, by leaving out one
    outcome at a time. So an outcome of one LLM changes the profiles of the others only where it
    tips that choice.

    Attributes
    ----------
    map : ClusterMap
        A single head.
    parents : intp[K]
        Coarse cluster of each fine one.
    """

    map: ClusterMap
    parents: NDArray[np.intp]
    joint: ClassVar[bool] = True

    def features(
        self, phi: NDArray[np.float32], keys: NDArray[np.uint64] | None = None
    ) -> NDArray[np.float32]:
        """Return the cluster weights as they are."""
        return phi

    def observe(
        self,
        phi: NDArray[np.float32],
        losses: ArrayLike,
        weights: ArrayLike | None = None,
        keys: NDArray[np.uint64] | None = None,
    ) -> Evidence:
        """Sum up losses on labelled prompts: see `Profiler.observe`. ``keys`` say nothing here."""
        return observe(phi, losses, weights, gram=False)

    def errors(self, evidence: Evidence) -> NDArray[np.float64]:
        """Return the error of each strength on each LLM, float64[S, M]. O(S K M)."""
        found = [left_out_error(evidence, self.parents, strength) for strength in STRENGTHS]
        return np.stack(found)

    def profile(self, evidence: Evidence, setting: Setting | None = None) -> Profiles:
        """Return the profiles of LLMs. O(K M), and for each strength tried unless one is given."""
        if setting is None:
            setting = Setting.of(self.errors(evidence))
        strength = STRENGTHS[setting.index]
        psi = hierarchical(evidence.loss, evidence.phi, self.parents, strength)
        mean = evidence.mean
        # An entry is a mean over n_k outcomes and what the levels above count for.
        _, _, variance = moments(evidence)
        weight = np.minimum(evidence.phi + strength, np.maximum(evidence.count, 1.0))
        error = np.sqrt(variance / weight)
        return Profiles(psi.astype(np.float32), error.astype(np.float32), mean, setting)

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from, beside its map."""
        return {"parents": self.parents.astype(np.int64)}, {"profiler": "means"}


AnyProfiler: TypeAlias = BayesProfiler | MeansProfiler
