"""From an LLM's losses on a few labelled prompts to its profile: one predicted loss a cluster.

A profiler is fitted once, on training prompts, and then profiles any LLM from its outcomes on a
few labelled prompts: `BayesProfiler` where outcomes of already evaluated LLMs are at hand,
`MeansProfiler` where there are none. `uniroute_fast.fitting` fits them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np

from uniroute_fast.arguments import shown
from uniroute_fast.bayes import COMMON_LEVEL, Posterior, Prior, moments, posterior
from uniroute_fast.cluster_map import ClusterMap, above_zero, part
from uniroute_fast.errors import ArtifactError
from uniroute_fast.evidence import Evidence, observe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from uniroute_fast.cluster_map import Parts

#: Settings of a `BayesProfiler`, as they are saved.
SETTINGS = ("spread", "trust", "inflation")

#: Stored priors and factors are at most this: they are in units of one LLM's standard deviation.
LARGEST_STANDARDISED = 1e9

#: Coarse clusters of stored means are at most so many: a matrix of coarse and fine ones is made.
MOST_COARSE = 1024

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
    choice : Choice or None
        Of a setting for all of the LLMs at once, where the profiler is joint.
    """

    psi: NDArray[np.float32]
    standard_error: NDArray[np.float32]
    mean: NDArray[np.float64]
    choice: Choice | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """How a setting was chosen for LLMs that are profiled together.

    Attributes
    ----------
    setting : int
        The one with the least sum of errors.
    errors : float64[S, M]
        Of each setting on each LLM.
    """

    setting: int
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, errors: NDArray[np.float64]) -> Choice:
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

        ``keys`` (see `prompt_keys`) tell which of them are prompts that the profiler was fitted on.
        """

    def profile(self, evidence: Evidence) -> Profiles:
        """Return the profiles of LLMs, given all outcomes known of them."""

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from."""


@dataclass(frozen=True, eq=False)
class KnownPrompts:
    """What seen LLMs tell of the prompts that they were run on.

    Attributes
    ----------
    keys : uint64[N]
        Of the prompts, ascending: see `prompt_keys`.
    factors : float32[N, R]
        See `uniroute_fast.bayes.fit_priors`.
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
    spread : float
        Factor on the priors' covariances.
    trust : float
        How far predicted losses depart from the LLM's overall mean, 0 to 1: 1 takes the posterior
        mean as it is. A little less guards against a prior that does not fit.
    inflation : float
        Factor on standard errors: see `uniroute_fast.calibration`.
    mix : float64[K_total] or None
        Mean cluster weights of the prompts that it was fitted on: LLMs' overall means are over such
        a mix. None, as in older files: over the labelled prompts as they are.
    """

    map: ClusterMap
    priors: Sequence[Prior]
    known: KnownPrompts
    spread: float = 1.0
    trust: float = 1.0
    inflation: float = 1.0
    mix: NDArray[np.float64] | None = None
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
        mean = evidence.mean
        if self.mix is not None:
            mean = overall_mean(evidence, posteriors, self.map.sizes, self.mix)
        # One outcome more, as broad as the prior of levels: labels of little weight tell nothing.
        level_error = posteriors[0].scale / np.sqrt(evidence.count + 1 / COMMON_LEVEL)
        errors = []
        for found, size in zip(posteriors, self.map.sizes, strict=True):
            background = np.tile(level_error, (size - len(found.mean), 1))
            errors.append(np.vstack([self.inflation * found.standard_error, background]))
        psi = averaged(posteriors, self.map.sizes, mean, self.trust)
        return Profiles(psi, np.vstack(errors).astype(np.float32), mean)

    def to_parts(self) -> Parts:
        """Return what `profiler_from_parts` restores the profiler from."""
        arrays, meta = self.map.to_parts()
        # Artifacts hold signed 64-bit numbers.
        arrays |= {
            "known.keys": self.known.keys.view(np.int64),
            "known.factors": self.known.factors,
        }
        if self.mix is not None:
            arrays["mix"] = self.mix
        for i, prior in enumerate(self.priors):
            arrays[f"prior{i}.mean"], arrays[f"prior{i}.covariance"] = prior.mean, prior.covariance
        meta |= {
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

    def profile(self, evidence: Evidence, choice: Choice | None = None) -> Profiles:
        """Return the profiles of LLMs. O(K M), and for each strength tried unless one is given."""
        if choice is None:
            choice = Choice.of(self.errors(evidence))
        strength = STRENGTHS[choice.setting]
        psi = hierarchical(evidence.loss, evidence.phi, self.parents, strength)
        mean = evidence.mean
        # An entry is a mean over n_k outcomes and what the levels above count for.
        _, _, variance = moments(evidence)
        weight = np.minimum(evidence.phi + strength, np.maximum(evidence.count, 1.0))
        error = np.sqrt(variance / weight)
        return Profiles(psi.astype(np.float32), error.astype(np.float32), mean, choice)

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
        A part is missing or unknown, or not as the others ask.
    """
    cluster_map = ClusterMap.from_parts(arrays, meta)
    try:
        if meta["profiler"] == "means":
            return _means_from_parts(cluster_map, arrays)
        if meta["profiler"] == "bayes":
            return _bayes_from_parts(cluster_map, arrays, meta)
    except KeyError as error:
        raise ArtifactError(f"profiler: part {error} is missing") from error
    raise ArtifactError(f"profiler: unknown kind {shown(meta['profiler'])!r}")


def _means_from_parts(cluster_map: ClusterMap, arrays: dict[str, NDArray[Any]]) -> MeansProfiler:
    heads = len(cluster_map.heads)
    if heads != 1:
        raise ArtifactError(f"profiler: means of clusters over {heads} heads; expected one head")
    k = cluster_map.n_clusters
    parents = part(arrays, "parents", (k,), np.int64)
    end = min(k, MOST_COARSE)
    if not ((parents >= 0) & (parents < end)).all():
        raise ArtifactError(f"part 'parents' has a cluster that is not 0 to {end - 1}")
    return MeansProfiler(cluster_map, parents.astype(np.intp))


def _bayes_from_parts(
    cluster_map: ClusterMap, arrays: dict[str, NDArray[Any]], meta: dict[str, Any]
) -> BayesProfiler:
    keys, factors = arrays["known.keys"], arrays["known.factors"]
    n_factors = factors.shape[1] if factors.ndim == 2 else 0
    keys = part(arrays, "known.keys", (keys.size,), np.int64).view(np.uint64)
    factors = _moderate(arrays, "known.factors", (len(keys), n_factors), np.float32)
    if (keys[1:] <= keys[:-1]).any():
        raise ArtifactError("part 'known.keys' does not ascend")
    noises = meta["noise"]
    if not isinstance(noises, list) or len(noises) != len(cluster_map.heads):
        raise ArtifactError(f"profiler: noise is {shown(noises)}, expected one number a head")
    priors = []
    for i, (noise, head) in enumerate(zip(noises, cluster_map.heads, strict=True)):
        clusters = head.n_clusters - getattr(head, "background", False)
        if clusters < 1:
            raise ArtifactError(f"profiler: head {i} has no cluster beside its background")
        features = clusters + n_factors
        mean = _moderate(arrays, f"prior{i}.mean", (features,))
        covariance = _moderate(arrays, f"prior{i}.covariance", (features, features))
        if np.abs(covariance - covariance.T).max() > 1e-9 * np.abs(covariance).max():
            raise ArtifactError(f"part 'prior{i}.covariance' is not symmetric")
        try:
            np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError as error:
            raise ArtifactError(f"part 'prior{i}.covariance' is not positive definite") from error
        priors.append(Prior(mean, covariance, above_zero("profiler: noise", noise), clusters))
    mix = None
    if "mix" in arrays:
        mix = part(arrays, "mix", (cluster_map.n_clusters,), np.float64)
        shares = np.add.reduceat(mix, np.cumsum([0, *cluster_map.sizes[:-1]]))
        backgrounds = mix[sorted(cluster_map.backgrounds)]
        if (mix < 0).any() or (np.abs(shares - 1) > 1e-3).any() or (backgrounds > 1 - 1e-6).any():
            raise ArtifactError("part 'mix': each head's weights must be 0 to 1 and sum to 1")
    settings = {key: above_zero(f"profiler: {key}", meta[key]) for key in SETTINGS}
    if settings["trust"] > 1:
        raise ArtifactError(f"profiler: trust is {settings['trust']:g}, expected at most 1")
    return BayesProfiler(cluster_map, priors, KnownPrompts(keys, factors), **settings, mix=mix)


def _moderate(
    arrays: dict[str, NDArray[Any]],
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Return a `part` whose values are of the size of standardised losses."""
    found = part(arrays, name, shape, dtype)
    if (np.abs(found) > LARGEST_STANDARDISED).any():
        raise ArtifactError(f"part {name!r} has a value above {LARGEST_STANDARDISED:g}")
    return found


def prompt_keys(prompts: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return a 64-bit key for each prompt, by which it is known again: a BLAKE2b digest."""
    digests = b"".join(hashlib.blake2b(prompt, digest_size=8).digest() for prompt in prompts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


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
    are 0 on average over all prompts, and tell how hard the labelled ones were for their clusters.
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
    return _pulled(evidence.loss, evidence.phi, evidence.mean, strength)


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


def left_out_error(
    evidence: Evidence, parents: NDArray[np.intp], strength: float
) -> NDArray[np.float64]:
    """Return each LLM's squared errors of `hierarchical`, every outcome predicted from the others.

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
    return np.asarray(np.where(count > 0, squares, 0.0).sum(axis=0))


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
