"""Profiles from pairwise preferences: whose answer was better, in place of right or wrong.

In cluster k an LLM has strength ``theta_k = log(q / (1 - q))`` for its quality q = 1 - loss there.
An answer wins against another with probability ``1 / (1 + exp(other's strength - own strength))``:
the model of Bradley and Terry, Biometrika 39 (1952). It is what comparing right with wrong answers
gives: where exactly one of two LLMs is right, it is the first with odds
``q (1 - q') / (q' (1 - q))``.

The opponents are LLMs of the pool, whose strengths are known; the new LLM's have a Gaussian prior,
mean and covariance from the pool. Its posterior mode is the profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.arrays import as_numbers
from uniroute_fast._checks.sequences import as_sequence
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Losses are kept this far from 0 and 1, where strengths have no bound.
MARGIN = 0.01

#: Prior variances of a strength: of the level that all clusters share (broad: a new LLM may be far
#: from the pool's), and of a cluster's own where the pool has fewer than this many LLMs to tell.
LEVEL_VARIANCE, OWN_VARIANCE, FEW = 4.0, 0.25, 4

#: Newton steps, and the change of a strength below which they end.
STEPS, CLOSE = 50, 1e-8


def fit_strengths(
    phi: NDArray[np.float64],
    offsets: NDArray[np.float64],
    wins: NDArray[np.float64],
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the posterior mode of an LLM's strengths, and the covariance around it.

    Parameters
    ----------
    phi : float64[N, K]
        Cluster weights of the prompts, each row adding up to 1.
    offsets : float64[N]
        Strength of the opponent on each.
    wins : float64[N]
        1 where the LLM won, 0 where it lost, between them for ties.
    mean, covariance : float64[K], float64[K, K]
        Of the prior.

    Returns
    -------
    float64[K], float64[K, K]

    Notes
    -----
    Newton's method on a strictly concave function, steps halved until they gain: O(N K² + K³) each.
    """
    precision = np.linalg.inv(covariance)

    def value(theta: NDArray[np.float64]) -> float:
        score = phi @ theta - offsets
        likelihood = wins @ score - np.logaddexp(0, score).sum()
        return float(likelihood - (theta - mean) @ precision @ (theta - mean) / 2)

    theta, reached = mean.copy(), value(mean)
    for _ in range(STEPS):
        chance = _sigmoid(phi @ theta - offsets)
        slope = phi.T @ (wins - chance) - precision @ (theta - mean)
        step = np.linalg.solve(_curvature(phi, chance) + precision, slope)
        while value(theta + step) < reached and np.abs(step).max() > CLOSE:
            step /= 2
        theta = theta + step
        reached = value(theta)
        if np.abs(step).max() <= CLOSE:
            break
    chance = _sigmoid(phi @ theta - offsets)
    return theta, np.linalg.inv(_curvature(phi, chance) + precision)


def profile_from_preferences(
    phi: NDArray[np.float32],
    n_heads: int,
    profiles: NDArray[np.float32],
    opponents: NDArray[np.intp],
    wins: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the profile of a new LLM, and its standard errors, from preferences.

    Parameters
    ----------
    phi : float32[N, K]
        Cluster weights of the prompts; each of the H heads' add up to 1.
    n_heads : int
        H.
    profiles : float32[K, M]
        Of the pool: predicted losses of each cluster, divided by H.
    opponents : intp[N]
        Which LLM of the pool it was compared with.
    wins : float64[N]
        1 where the new LLM won, 0 where it lost, 0.5 for a tie.

    Returns
    -------
    float32[K], float32[K]
        The first divided by H, as `profiles` are.
    """
    weights = phi.astype(np.float64) / n_heads
    strengths = _strength(n_heads * profiles.astype(np.float64))  # [K, M]
    offsets = np.einsum("nk,kn->n", weights, strengths[:, opponents])
    mean, covariance = _prior(strengths)
    theta, spread = fit_strengths(weights, offsets, wins, mean, covariance)
    loss = _sigmoid(-theta)
    error = np.sqrt(np.diagonal(spread)) * loss * (1 - loss)
    return (loss / n_heads).astype(np.float32), error.astype(np.float32)


def checked_preferences(
    n: int, opponents: Sequence[str], wins: ArrayLike, pool: Sequence[str]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return opponents as indices into the pool and wins as float64[n], or raise.

    Raises
    ------
    ArgumentTypeError, InvalidArgumentError
        No sequence, other than n of them, an opponent that is not in the pool, or a value outside
        [0, 1].
    """
    if isinstance(opponents, str):
        opponents = [opponents] * n
    opponents = as_sequence("opponents", opponents)
    if len(opponents) != n:
        raise InvalidArgumentError(
            f"opponents: {len(opponents)} names for {n} prompts; expected one, or one for each"
        )
    index = {name: m for m, name in enumerate(pool)}
    for row, name in enumerate(opponents):
        if not isinstance(name, str) or name not in index:
            raise InvalidArgumentError(
                f"opponents: {name!r} in row {row}; expected a model of the pool"
            )
    array = as_numbers("wins", wins, f"{n} numbers, 0 to 1")
    if array.shape != (n,):
        raise InvalidArgumentError(f"wins: shape {array.shape}; expected {n} numbers, 0 to 1")
    won = array.astype(np.float64)
    bad = ~((won >= 0) & (won <= 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidArgumentError(f"wins: {won[row]:g} in row {row}; expected 0 to 1")
    return np.array([index[name] for name in opponents], np.intp), won


def _prior(strengths: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and covariance over the pool of strengths float64[K, M]."""
    k, m = strengths.shape
    mean = strengths.mean(axis=1)
    # How clusters differ, LLM by LLM; the level that they share is broad whatever the pool says.
    shape = strengths - mean[:, None]
    shape -= shape.mean(axis=0)
    own = np.trace(shape @ shape.T) / (k * max(m - 1, 1)) if m >= FEW else OWN_VARIANCE
    covariance = (shape @ shape.T + FEW * max(own, 1e-3) * np.eye(k)) / (max(m - 1, 0) + FEW)
    return mean, covariance + LEVEL_VARIANCE


def _strength(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(loss, MARGIN, 1 - MARGIN)
    return np.asarray(np.log1p(-kept) - np.log(kept))


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _curvature(phi: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((phi.T * (chance * (1 - chance))) @ phi)
