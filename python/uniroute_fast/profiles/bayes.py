"""Bayes profiles: what seen LLMs are like is the prior of what a new one is like.

Losses are standardised: for LLM m with mean loss p_m and standard deviation s_m,
``(y - p_m) / s_m = u_m(x) + noise`` and ``u_m(x) = phi(x) . psi_m``. Over LLMs, psi_m is Gaussian
with mean mu and covariance S. Standardising lets an LLM that rarely fails differ less between
clusters than one that often does, as it must where losses lie in [0, 1].

The posterior of psi_m is that of Bayesian linear regression on the cluster weights. Under a hard
map its mean is the familiar mu + S (S + diag(v / n_k))^-1 (y - mu).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.profiles.evidence import Evidence, observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Variance of the level that all clusters share: far above that of any standardised loss, so that
#: an LLM unlike the seen ones is not pulled to their level.
COMMON_LEVEL = 1.0

#: How many LLMs a covariance that is a multiple of the identity counts for in the prior's fit.
IDENTITY_WEIGHT = 2.0

#: Factors of what seen LLMs say of a prompt beyond its clusters: how many at most.
MOST_FACTORS = 4

#: Parts of the seen LLMs; the factors that a part's loadings are learned from are of the others.
PARTS = 16

#: Added to the sum of squares of each cluster's weights: clusters of several heads are dependent.
RIDGE = 1e-3

#: Least standard deviation that residuals and factors are measured in: of LLMs that never fail, or
#: that are alike.
LEAST_SCALE = 1e-3

#: Outcomes, with mean 1/2 and variance 1/4, that are added to each LLM's own before standardising.
PSEUDO_OUTCOMES = 2.0


@dataclass(frozen=True, eq=False)
class Prior:
    """A Gaussian over standardised profiles.

    Attributes
    ----------
    mean : float64[F]
    covariance : float64[F, F]
        F features: the clusters, then the factors, if any: see `fit_priors`.
    noise : float
        Variance of a standardised loss about its prediction.
    n_clusters : int
        How many of the features are clusters.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: float
    n_clusters: int


@dataclass(frozen=True, eq=False)
class Posterior:
    """Profiles of M LLMs given their outcomes, in units of loss.

    Attributes
    ----------
    level, scale : float64[M]
        Mean and standard deviation of each LLM's losses.
    mean : float64[K, M]
        Posterior mean of the predicted loss of each cluster.
    loadings : float64[R, M]
        Posterior mean of what the loss rises by with each factor.
    covariance : float64[P, K, K]
        Posterior covariance of standardised profiles, by pattern of the evidence.
    """

    level: NDArray[np.float64]
    scale: NDArray[np.float64]
    mean: NDArray[np.float64]
    loadings: NDArray[np.float64]
    covariance: NDArray[np.float64]
    pattern: NDArray[np.intp]

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Posterior standard deviation of the predicted loss of each cluster, float64[K, M]."""
        variance = np.diagonal(self.covariance, axis1=1, axis2=2)
        deviation = np.sqrt(np.maximum(variance, 0.0))  # Rounding may leave a little less.
        return np.asarray(deviation[self.pattern].T * self.scale)


def fit_prior(evidence: Evidence, n_clusters: int | None = None, iterations: int = 15) -> Prior:
    """Fit the prior to seen LLMs by expectation maximisation.

    Parameters
    ----------
    evidence : Evidence
        On the seen LLMs, with its Gram matrices.
    n_clusters : int, optional
        How many of the features, the first ones, are clusters. Default: all.
    iterations : int
        Fixed: the likelihood is flat long before.

    Notes
    -----
    O(iterations x (P K³ + K² M)) for P patterns of missing outcomes. The covariance is the
    posterior mode under an inverse Wishart prior centred on a multiple of the identity.
    """
    standard = _standardise(evidence)
    n_features, n_models = evidence.phi.shape
    clusters = n_features if n_clusters is None else n_clusters
    identity = np.eye(n_features)
    models_of = np.bincount(evidence.pattern, minlength=len(evidence.gram)).astype(np.float64)
    prior = Prior(np.zeros(n_features), 0.1 * identity, 1.0, clusters)
    for _ in range(iterations):
        mean, covariance = _posterior(evidence, standard.loss, prior)
        centre = mean.mean(axis=1)
        spread = mean - centre[:, None]
        scatter = spread @ spread.T + np.einsum("p,pkl->kl", models_of, covariance)
        broad = np.trace(scatter) / (n_models * n_features)
        scatter += IDENTITY_WEIGHT * broad * identity
        fitted = np.einsum("km,km->m", mean, standard.loss)
        explained = _quadratic(evidence, mean)
        uncertain = np.einsum("pkl,pkl->p", evidence.gram, covariance)[evidence.pattern]
        residual = standard.square - 2 * fitted + explained + uncertain
        noise = max(float(residual.sum() / evidence.count.sum()), 1e-3)
        prior = Prior(centre, scatter / (n_models + IDENTITY_WEIGHT), noise, clusters)
    return prior


def fit_priors(
    phi: NDArray[np.float32], sizes: Sequence[int], losses: NDArray[np.float64]
) -> tuple[list[Prior], NDArray[np.float64]]:
    """Fit a prior for each head of a map to seen LLMs.

    Parameters
    ----------
    phi : float32[N, K_total]
        Cluster weights; the last cluster of each head, its background, takes no part.
    sizes : sequence of int
        Clusters of each head.
    losses : float64[N, S]
        Of the seen LLMs; NaN = not run.

    Returns
    -------
    list of Prior
    float64[N, R]
        Factors, which stand beside the clusters of each head: what seen LLMs say of a prompt
        beyond its clusters. A prompt that most LLMs fail is a hard one of its cluster. On prompts
        that seen LLMs were run on this is known, and part of what would be noise in a new LLM's
        outcomes there is explained. They are the principal components over LLMs of the
        standardised residuals, each of unit variance; for any other prompt they are taken to be
        0, their mean.

    Notes
    -----
    Beside `fit_prior` of each head, O(N F (F P + S) + S³) for P patterns of missing outcomes and
    F = K + 16 R features: factors for each of up to 16 parts of the LLMs.
    """
    heads = [head[:, :-1] for head in np.split(phi, np.cumsum(sizes)[:-1], axis=1)]
    residuals = _residuals(phi, losses)
    n_models = losses.shape[1]
    directions = _main_directions(residuals, min(MOST_FACTORS, n_models - 1))
    # An LLM's own outcomes are part of the factors, and explain themselves: loadings learned with
    # them would be too large for a new LLM, whose outcomes are in none.
    parts = np.array_split(np.random.default_rng(0).permutation(n_models), min(PARTS, n_models))
    of_others = [_factors(residuals, _without(directions, part)) for part in parts]
    priors = []
    for head in heads:
        # Summed up once: the sums of the clusters are the same for all parts.
        everything = observe(np.hstack([head, *of_others]), losses)
        k, rank = head.shape[1], directions.shape[1]
        found = []
        for i, part in enumerate(parts):
            own = k + i * rank + np.arange(rank)
            found.append(everything.features(np.append(np.arange(k), own)).select(part))
        priors.append(fit_prior(reduce(Evidence.joined, found), k))
    return priors, _factors(residuals, directions)


def posterior(evidence: Evidence, prior: Prior, spread: float = 1.0) -> Posterior:
    """Return the profiles of LLMs given their outcomes and the prior.

    Parameters
    ----------
    evidence : Evidence
    prior : Prior
    spread : float
        Factor on the prior's covariance: below 1 new LLMs are taken to be more like the seen ones.

    Notes
    -----
    O(P K³ + K² M) for P patterns of missing outcomes.
    """
    standard = _standardise(evidence)
    k = prior.n_clusters
    wide = spread * prior.covariance
    wide[:k, :k] += COMMON_LEVEL
    mean, covariance = _posterior(evidence, standard.loss, replace(prior, covariance=wide))
    return Posterior(
        standard.level,
        standard.scale,
        standard.level + standard.scale * mean[:k],
        standard.scale * mean[k:],
        covariance[:, :k, :k],
        evidence.pattern,
    )


def _residuals(phi: NDArray[np.float32], losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the clusters of all heads do not explain of standardised losses, float64[N, S].

    0 on average in every cluster, as factors are taken to be for a prompt of which nothing else is
    known.
    """
    clusters = phi.astype(np.float64)
    inverse = np.linalg.inv(clusters.T @ clusters + RIDGE * np.eye(clusters.shape[1]))

    def rest(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values - clusters @ (inverse @ (clusters.T @ values)))

    run = ~np.isnan(losses)
    level = np.nanmean(losses, axis=0)
    scale = np.maximum(np.nanstd(losses, axis=0), LEAST_SCALE)
    # Where an LLM was not run nothing is known, and the rest of nothing says something: once more.
    return rest(np.where(run, rest(np.where(run, (losses - level) / scale, 0.0)), 0.0))


def _main_directions(residuals: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Return the main directions of the residuals over LLMs, float64[S, rank]."""
    _, directions = np.linalg.eigh(residuals.T @ residuals)
    return np.asarray(directions[:, ::-1][:, :rank])


def _without(directions: NDArray[np.float64], part: NDArray[np.intp]) -> NDArray[np.float64]:
    others = directions.copy()
    others[part] = 0
    return others


def _factors(
    residuals: NDArray[np.float64], directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the residuals along directions, each of unit variance, float64[N, rank]."""
    factors = residuals @ directions
    return np.asarray(factors / np.maximum(factors.std(axis=0), LEAST_SCALE))


@dataclass(frozen=True, eq=False)
class _Standardised:
    """Evidence in units of each LLM's own standard deviation, about its own mean."""

    level: NDArray[np.float64]  # [M]
    scale: NDArray[np.float64]  # [M]
    loss: NDArray[np.float64]  # [K, M], sum of w phi z
    square: NDArray[np.float64]  # [M], sum of w z²


def moments(
    evidence: Evidence,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the level of each LLM's losses, their squares' sum about it, and their variance.

    float64[M] each. A few outcomes of mean and variance 1/2 and 1/4 are added, without which an LLM
    that was tried once would be taken to be sure.
    """
    count, total, square = evidence.count, evidence.total, evidence.total_square
    level = (total + PSEUDO_OUTCOMES / 2) / (count + PSEUDO_OUTCOMES)
    about = square - 2 * level * total + level**2 * count
    variance = (about + PSEUDO_OUTCOMES / 4) / (count + PSEUDO_OUTCOMES)
    return level, about, variance


def _standardise(evidence: Evidence) -> _Standardised:
    level, about, variance = moments(evidence)
    scale = np.sqrt(variance)
    return _Standardised(
        level, scale, (evidence.loss - level * evidence.phi) / scale, about / variance
    )


def _posterior(
    evidence: Evidence, loss: NDArray[np.float64], prior: Prior
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return posterior means [K, M], and covariances [P, K, K] by pattern."""
    precision = np.linalg.inv(prior.covariance)
    covariance = np.asarray(np.linalg.inv(precision + evidence.gram / prior.noise), np.float64)
    surprise = loss - _times_gram(evidence, prior.mean)
    mean = np.empty_like(loss)
    for p in range(len(evidence.gram)):
        models = evidence.pattern == p
        mean[:, models] = covariance[p] @ surprise[:, models] / prior.noise
    return prior.mean[:, None] + mean, covariance


def _times_gram(evidence: Evidence, profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return gram @ profile of each LLM, float64[K, M], for one profile float64[K]."""
    return np.asarray((evidence.gram @ profile)[evidence.pattern].T)


def _quadratic(evidence: Evidence, profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return profile' gram profile of each LLM, float64[M], for profiles float64[K, M]."""
    out = np.empty(evidence.n_models)
    for p, gram in enumerate(evidence.gram):
        models = evidence.pattern == p
        out[models] = np.einsum("km,km->m", profiles[:, models], gram @ profiles[:, models])
    return out
