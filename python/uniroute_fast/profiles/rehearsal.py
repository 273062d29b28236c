"""Settings chosen by the paper's protocol: route seen LLMs as if they were new.

Some of the seen LLMs play the new ones. The prior is fitted to the others, each new one is profiled
from a few hundred of the training prompts, and prompts that the prior did not see are routed among
them. No prompt and no LLM from outside the training data takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uniroute_fast.clusters.cluster_map import shares_out_of_distribution
from uniroute_fast.profiles.bayes import Posterior, fit_priors
from uniroute_fast.profiles.evidence import observe
from uniroute_fast.profiles.heads import averaged, head_posteriors
from uniroute_fast.profiles.intervals import cluster_errors, inflation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

#: Factor on the prior's covariance, and trust: what is chosen from, and what is used where too few
#: LLMs were seen to choose.
SPREADS, DEFAULT_SPREAD = (0.5, 1.0, 2.0), 1.0
TRUSTS, DEFAULT_TRUST = (0.5, 0.75, 1.0), 0.75

#: Factor on standard errors where too few LLMs were seen to measure it.
DEFAULT_INFLATION = 1.5

#: Share of the training prompts that are less than half out of distribution: what is chosen from,
#: the most protective first, and what is used where too few LLMs were seen to choose.
FAMILIAR, DEFAULT_FAMILIAR = (0.95, 0.98, 0.99), 0.98

#: What protection from prompts out of distribution may cost among the others: this share of what
#: looking at the prompt gains there.
PRICE = 0.02

#: Fewest seen LLMs, and prompts that all were run on, to choose by.
MIN_SEEN, MIN_STAGE = 6, 60

#: Rehearsals: how many, with how many labels for a new LLM, and how many LLMs at most.
REHEARSALS, LABELS, PLAYERS = 24, 400, 300


#: What routing is worth: the area under the deferral curve (`uniroute_fast.evaluate.area_of`) of
#: predicted losses float[N, M], qualities float[N, M] and costs float[M].
Area: TypeAlias = (
    "Callable[[NDArray[np.floating], NDArray[np.float64], NDArray[np.float64]], float]"
)


@dataclass(frozen=True)
class Settings:
    """What rehearsals choose.

    Attributes
    ----------
    spread : float
        Factor on the priors' covariances.
    trust : float
        How far predicted losses depart from an LLM's overall mean.
    inflation : float
        Factor on standard errors.
    familiar : float or None
        Share of the training prompts that are less than half out of distribution; None: no prompt
        is taken to be.
    """

    spread: float = DEFAULT_SPREAD
    trust: float = DEFAULT_TRUST
    inflation: float = DEFAULT_INFLATION
    familiar: float | None = DEFAULT_FAMILIAR


def choose(
    phi: NDArray[np.float32],
    sizes: Sequence[int],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    distances: NDArray[np.float32] | None,
    seed: int,
    area: Area,
) -> Settings:
    """Choose settings by routing seen LLMs as if they were new.

    Parameters
    ----------
    phi : float32[N, K_total]
        Cluster weights of the training prompts, a background last in each head.
    sizes : sequence of int
        Clusters of each head.
    losses : float64[N, S]
        Of the seen LLMs; NaN = not run.
    costs : float64[S]
    distances : float32[N] or None
        Squared distances to landmarks that the prompts had no part in; None: there are none.
    seed : int
    area : callable
        What routing by some predictions is worth: `Area`.

    Returns
    -------
    Settings
        Those of the largest mean area, the factor that makes standard errors honest, and the most
        protection from prompts out of distribution that costs no more than `PRICE` allows. Defaults
        where too few LLMs were seen.
    """
    # Rehearsals need prompts that all players were run on.
    run = ~np.isnan(losses)
    players = np.random.default_rng(seed).permutation(np.flatnonzero(run.mean(axis=0) >= 0.5))
    players = players[:PLAYERS]
    stage = np.flatnonzero(run[:, players].all(axis=1))
    if len(players) < MIN_SEEN or len(stage) < MIN_STAGE:
        return Settings()
    rehearsals = list(
        _rehearse(phi[stage], sizes, losses[np.ix_(stage, players)], costs[players], seed, area)
    )
    areas = np.zeros((len(SPREADS), len(TRUSTS)))
    errors: list[list[NDArray[np.float64]]] = [[] for _ in SPREADS]
    for one in rehearsals:
        for i in range(len(SPREADS)):
            errors[i].append(one.errors(i))
            areas[i] += [one.area(one.phi @ one.psi(i, trust)) for trust in TRUSTS]
    i, j = (int(index) for index in np.unravel_index(int(np.argmax(areas)), areas.shape))
    familiar = None
    if distances is not None:
        away = distances[stage]
        familiar = _most_protective(rehearsals, i, TRUSTS[j], float(areas[i, j]), away)
    return Settings(SPREADS[i], TRUSTS[j], inflation(errors[i]), familiar)


def _most_protective(
    rehearsals: Sequence[_Rehearsal],
    spread: int,
    trust: float,
    plain: float,
    distances: NDArray[np.float32],
) -> float | None:
    """Return the first of `FAMILIAR` whose price is low enough; None where that of all is not.

    ``plain`` is the sum of the areas without protection.
    """
    blind = sum(one.area(one.mean) for one in rehearsals)
    for familiar in FAMILIAR:
        shares = shares_out_of_distribution(distances, float(np.quantile(distances, familiar)))
        guarded = 0.0
        for one in rehearsals:
            # In the backgrounds, the predicted loss of an LLM is its overall mean.
            share = shares[one.routed, None]
            predicted = one.phi @ one.psi(spread, trust)
            guarded += one.area((1 - share) * predicted + share * one.mean)
        if plain - guarded <= PRICE * max(plain - blind, 0.0):
            return familiar
    return None


@dataclass(frozen=True, eq=False)
class _Rehearsal:
    """One rehearsal: what is known of those who play new LLMs, and how well that routes."""

    sizes: Sequence[int]
    posteriors: Sequence[Sequence[Posterior]]  # by spread, then by head
    mean: NDArray[np.float64]  # of each new LLM's labels
    routed: NDArray[np.intp]  # prompts
    new: NDArray[np.intp]  # LLMs
    # Of all prompts and players: many rehearsals share them.
    all_phi: NDArray[np.float32]
    all_losses: NDArray[np.float64]
    all_costs: NDArray[np.float64]
    measure: Area

    @property
    def phi(self) -> NDArray[np.float32]:
        return self.all_phi[self.routed]

    @property
    def losses(self) -> NDArray[np.float64]:
        return self.all_losses[np.ix_(self.routed, self.new)]

    def psi(self, spread: int, trust: float) -> NDArray[np.float32]:
        return averaged(self.posteriors[spread], self.sizes, self.mean, trust)

    def errors(self, spread: int) -> NDArray[np.float64]:
        found = self.posteriors[spread]
        return cluster_errors(found, self.sizes, self.phi, self.losses, self.mean)

    def area(self, predicted: NDArray[np.floating]) -> float:
        return self.measure(predicted, 1 - self.losses, self.all_costs[self.new])


def _rehearse(
    phi: NDArray[np.float32],
    sizes: Sequence[int],
    losses: NDArray[np.float64],
    costs: NDArray[np.float64],
    seed: int,
    area: Area,
) -> Iterator[_Rehearsal]:
    """Yield rehearsals: two thirds of the prompts are learned from, a third is routed."""
    rng = np.random.default_rng(seed)
    n_prompts, n_models = losses.shape
    n_learned, n_new = 2 * n_prompts // 3, max(2, n_models // 3)
    n_labels = min(LABELS, n_prompts // 4)
    for _ in range(REHEARSALS):
        prompts, models = rng.permutation(n_prompts), rng.permutation(n_models)
        learned, routed = prompts[:n_learned], prompts[n_learned:]
        new, old = models[:n_new], models[n_new:]
        priors, factors = fit_priors(phi[learned], sizes, losses[np.ix_(learned, old)])
        labelled = learned[:n_labels]
        features = np.hstack([phi[labelled], factors[:n_labels]])
        evidence = observe(features, losses[np.ix_(labelled, new)])
        yield _Rehearsal(
            sizes,
            [head_posteriors(evidence, sizes, priors, spread) for spread in SPREADS],
            evidence.mean,
            routed,
            new,
            phi,
            losses,
            costs,
            area,
        )
