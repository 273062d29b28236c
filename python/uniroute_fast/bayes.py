"""Bayes profiles: what seen LLMs are like is the prior of what a new one is like.

Losses are standardised: for LLM m with mean loss p_m and standard deviation s_m,
``(y - p_m) / s_m = u_m(x) + noise`` and ``u_m(x) = phi(x) . psi_m``. Over LLMs, psi_m is Gaussian
with mean mu and covariance S. Standardising lets an LLM that rarely fails differ less between
clusters than one that often does, as it must where losses lie in [0, 1].

The posterior of psi_m is that of Bayesian linear regression on the cluster weights. Under a hard
map its mean is the familiar mu + S (S + diag(v / n_k))^-1 (y - mu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.evidence import Evidence

#: Variance of the level that all clusters share: far above that of any standardised loss, so that
#: an LLM unlike the seen ones is not pulled to their level.
COMMON_LEVEL = 1.0

#: How many LLMs a covariance that is a multiple of the identity counts for in the prior's fit.
IDENTITY_WEIGHT = 2.0

#: Outcomes, with mean 1/2 and variance 1/4, that are added to each LLM's own before standardising.
PSEUDO_OUTCOMES = 2.0


@dataclass(frozen=True, eq=False)
class Prior:
    """A Gaussian over standardised profiles.

    Attributes
    ----------
    mean : float64[K]
    covariance : float64[K, K]
    noise : float
        Variance of a standardised loss about its prediction.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: float


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


def fit_prior(evidence: Evidence, iterations: int = 15) -> Prior:
    """Fit the prior to seen LLMs by expectation maximisation.

    Parameters
    ----------
    evidence : Evidence
        On the seen LLMs, with its Gram matrices.
    iterations : int
        Fixed: the likelihood is flat long before.

    Notes
    -----
    O(iterations x (P K³ + K² M)) for P patterns of missing outcomes. The covariance is the
    posterior mode under an inverse Wishart prior centred on a multiple of the identity.
    """
    standard = _standardise(evidence)
    n_clusters, n_models = evidence.phi.shape
    identity = np.eye(n_clusters)
    models_of = np.bincount(evidence.pattern, minlength=len(evidence.gram)).astype(np.float64)
    prior = Prior(np.zeros(n_clusters), 0.1 * identity, 1.0)
    for _ in range(iterations):
        mean, covariance = _posterior(evidence, standard.loss, prior)
        centre = mean.mean(axis=1)
        spread = mean - centre[:, None]
        scatter = spread @ spread.T + np.einsum("p,pkl->kl", models_of, covariance)
        broad = np.trace(scatter) / (n_models * n_clusters)
        scatter += IDENTITY_WEIGHT * broad * identity
        fitted = np.einsum("km,km->m", mean, standard.loss)
        explained = _quadratic(evidence, mean)
        uncertain = np.einsum("pkl,pkl->p", evidence.gram, covariance)[evidence.pattern]
        residual = standard.square - 2 * fitted + explained + uncertain
        noise = max(float(residual.sum() / evidence.count.sum()), 1e-3)
        prior = Prior(centre, scatter / (n_models + IDENTITY_WEIGHT), noise)
    return prior


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
    broad = Prior(prior.mean, spread * prior.covariance + COMMON_LEVEL, prior.noise)
    mean, covariance = _posterior(evidence, standard.loss, broad)
    return Posterior(
        standard.level,
        standard.scale,
        standard.level + standard.scale * mean,
        covariance,
        evidence.pattern,
    )


@dataclass(frozen=True, eq=False)
class _Standardised:
    """Evidence in units of each LLM's own standard deviation, about its own mean."""

    level: NDArray[np.float64]  # [M]
    scale: NDArray[np.float64]  # [M]
    loss: NDArray[np.float64]  # [K, M], sum of w phi z
    square: NDArray[np.float64]  # [M], sum of w z²


def _standardise(evidence: Evidence) -> _Standardised:
    count = evidence.count
    total, square = evidence.loss.sum(axis=0), evidence.square.sum(axis=0)
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
