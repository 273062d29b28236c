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
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.evidence import Evidence, observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Variance of the level that all clusters share: far above that of any standardised loss, so that
#: an LLM unlike the seen ones is not pulled to their level.
COMMON_LEVEL = 1.0

#: How many LLMs a covariance that is a multiple of the identity counts for in the prior's fit.
IDENTITY_WEIGHT = 2.0

#: Factors of what seen LLMs tell of a prompt beyond its clusters: one for eight LLMs, at most 4.
LLMS_A_FACTOR, MOST_FACTORS = 8, 4

#: Outcomes, with mean 1/2 and variance 1/4, that are added to each LLM's own before standardising.
PSEUDO_OUTCOMES = 2.0


@dataclass(frozen=True, eq=False)
class Prior:
    """A Gaussian over standardised profiles.

    Attributes
    ----------
    mean : float64[F]
    covariance : float64[F, F]
        F features: the clusters, then the factors, if any: see `residual_factors`.
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
    covariance : float64[P, K, K]
        Posterior covariance of standardised profiles, by pattern of the evidence.
    """

    level: NDArray[np.float64]
    scale: NDArray[np.float64]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    pattern: NDArray[np.intp]

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Posterior standard deviation of the predicted loss of each cluster, float64[K, M]."""
        deviation = np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))
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
        The factors that stand beside the clusters of each head: see `residual_factors`.
    """
    rank = min(MOST_FACTORS, losses.shape[1] // LLMS_A_FACTOR)
    heads = [head[:, :-1] for head in np.split(phi, np.cumsum(sizes)[:-1], axis=1)]
    factors = residual_factors(heads[len(heads) // 2], losses, rank)
    priors = [
        fit_prior(observe(np.hstack([head, factors]), losses), head.shape[1]) for head in heads
    ]
    return priors, factors


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
        covariance[:, :k, :k],
        evidence.pattern,
    )


def residual_factors(
    phi: NDArray[np.floating], losses: NDArray[np.float64], rank: int
) -> NDArray[np.float64]:
    """Return what seen LLMs tell of each prompt beyond its clusters: its main residual factors.

    A prompt that most LLMs fail is a hard one of its cluster. On prompts that seen LLMs were run on
    this is known, and part of what would be noise in a new LLM's outcomes there is explained.

    Parameters
    ----------
    phi : float[N, K]
        Cluster weights.
    losses : float64[N, S]
        Of the seen LLMs; NaN = not run.
    rank : int
        How many factors, at most S.

    Returns
    -------
    float64[N, rank]
        Principal components over LLMs of the standardised residuals, each of unit variance. For
        any other prompt the factors are taken to be 0, their mean.

    Notes
    -----
    O(N S (K + rank) + S³).
    """
    evidence = observe(phi, losses)
    found = posterior(evidence, fit_prior(evidence))
    residuals = np.nan_to_num((losses - phi @ found.mean) / found.scale)
    _, directions = np.linalg.eigh(residuals.T @ residuals)
    factors = residuals @ directions[:, ::-1][:, :rank]
    return np.asarray(factors / np.maximum(factors.std(axis=0), 1e-9))


@dataclass(frozen=True, eq=False)
class _Standardised:
    """Evidence in units of each LLM's own standard deviation, about its own mean."""

    level: NDArray[np.float64]  # [M]
    scale: NDArray[np.float64]  # [M]
    loss: NDArray[np.float64]  # [K, M], sum of w phi z
    square: NDArray[np.float64]  # [M], sum of w z²


def _standardise(evidence: Evidence) -> _Standardised:
    count, total, square = evidence.count, evidence.total, evidence.total_square
    level = (total + PSEUDO_OUTCOMES / 2) / (count + PSEUDO_OUTCOMES)
    about = square - 2 * level * total + level**2 * count
    variance = (about + PSEUDO_OUTCOMES / 4) / (count + PSEUDO_OUTCOMES)
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
