"""Trying LLMs that may be better than what is known of them, and saying how likely that was.

Thompson sampling chooses each LLM as often as it is the best one under the posterior. Here these
probabilities are worked out, and the LLM is drawn from them: what is logged as the propensity is
what the LLM was drawn with, to the last bit, so that estimates from such logs (see
`uniroute_fast.evaluate.off_policy`) are unbiased whatever the posterior is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.explain import prompt_errors
from uniroute_fast.locks import Lock

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import Constraints, Decision
    from uniroute_fast.router import Router

#: Nodes and weights by which an expectation over a standard Gaussian is a sum.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Exploration:
    """Which LLM answers, and with what probability it was to be this one.

    Attributes
    ----------
    model : str
    index : int
        Its index in `router.models` at the time.
    propensity : float
        The probability that it was drawn with.
    predicted_loss, cost : float
        Of this LLM.
    decision : Decision
        What would have been chosen without exploration.
    probabilities : dict of int to float
        Of every LLM that could have been drawn, by index; they add up to 1.
    """

    model: str
    index: int
    propensity: float
    predicted_loss: float
    cost: float
    decision: Decision
    probabilities: dict[int, float]

    def record(self) -> dict[str, Any]:
        """Return what a log needs, JSON-able; add the loss when it is known."""
        return {
            "model": self.model,
            "propensity": self.propensity,
            "greedy": self.decision.model,
            "cost_weight": self.decision.cost_weight,
            "predicted_loss": self.predicted_loss,
            "cost": self.cost,
            "version": self.decision.version,
        }


class Explorer:
    """Thompson sampling within a quality guard, with true propensities.

    Parameters
    ----------
    within : float
        The guard: only LLMs whose predicted loss + cost_weight x cost is at most so much above the
        best one's are ever tried. 0 or more.
    share : float
        The probability that a prompt explores at all, in [0, 1]; others get the best LLM.
    uniform : float
        Of the prompts that explore, the part that draws among the LLMs within the guard with equal
        probability, in [0, 1]: it keeps propensities away from 0, so that estimates from the log
        have small errors.
    most : int
        Of the LLMs within the guard only so many, the best, are tried. 1 or more.
    seed : int, optional

    Raises
    ------
    InvalidArgumentError
        A number out of range.

    Notes
    -----
    A prompt takes O(M) to find the C LLMs within the guard and O(C²) to weigh them.
    May be shared by threads, and by forked processes, which then draw alike unless seeded anew.

    Examples
    --------
    >>> import numpy as np, uniroute_fast as uf
    >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 3
    >>> router = uf.Router.fit(texts, n_clusters=2)
    >>> losses = np.random.default_rng(0).integers(0, 2, (12, 2))
    >>> router.add_models(["a", "b"], [1.0, 1.0], texts, losses)
    >>> tried = uf.Explorer(within=1.0, seed=0).route(router, "4 + 5")
    >>> router.observe("4 + 5", tried.model, 0.0)
    >>> bool(0 < tried.propensity <= 1)
    True

    References
    ----------
    Russo, Van Roy, Kazerouni, Osband and Wen, "A Tutorial on Thompson Sampling", 2018.
    """

    def __init__(
        self,
        *,
        within: float = 0.05,
        share: float = 1.0,
        uniform: float = 0.0,
        most: int = 32,
        seed: int | None = None,
    ) -> None:
        for name, value, top in (
            ("within", within, np.inf),
            ("share", share, 1.0),
            ("uniform", uniform, 1.0),
        ):
            if not 0 <= value <= top:
                raise InvalidArgumentError(f"{name}: {value}; expected 0 to {top:g}")
        if most < 1:
            raise InvalidArgumentError(f"most: {most}; expected 1 or more")
        self._within, self._share, self._uniform = within, share, uniform
        self._most = most
        self._rng, self._lock = np.random.default_rng(seed), Lock()

    def route(
        self,
        router: Router,
        text: str | None = None,
        cost_weight: float = 0.0,
        *,
        embeddings: ArrayLike | None = None,
        constraints: Constraints | None = None,
        tokens: int | None = None,
    ) -> Exploration:
        """Draw the LLM that answers one prompt; arguments and errors are those of `Router.route`.

        LLMs without a record of outcomes are taken to be what their profiles say.
        """
        snapshot, errors = router._with_errors()
        asked: dict[str, Any] = {"embeddings": embeddings, "tokens": tokens}
        decision = snapshot.route(text, cost_weight, constraints=constraints, **asked)
        others = decision.contenders(self._within)[: self._most - 1]
        index = [decision.index, *(other.index for other in others)]
        one = None if embeddings is None else np.atleast_2d(np.asarray(embeddings))
        phi = snapshot.phi(None if text is None else [text], embeddings=one)
        error = np.nan_to_num(prompt_errors(phi, errors[:, index])[0])
        own = decision.predicted_loss + cost_weight * decision.cost
        objective = np.array([own, *(other.objective for other in others)])
        best = self._uniform / len(index) + (1 - self._uniform) * best_probabilities(
            objective, error
        )
        probabilities = self._share * best
        probabilities[0] += 1 - self._share
        probabilities /= probabilities.sum()
        with self._lock:
            drawn = int(self._rng.choice(len(index), p=probabilities))
        chosen = decision if drawn == 0 else others[drawn - 1]
        return Exploration(
            model=chosen.model,
            index=chosen.index,
            propensity=float(probabilities[drawn]),
            predicted_loss=chosen.predicted_loss,
            cost=chosen.cost,
            decision=decision,
            probabilities=dict(zip(index, probabilities.tolist(), strict=True)),
        )


def best_probabilities(mean: ArrayLike, error: ArrayLike) -> NDArray[np.float64]:
    """Return the probability of each of C independent Gaussians to be the least.

    Parameters
    ----------
    mean : float[C]
    error : float[C]
        Standard deviations, 0 or more.

    Returns
    -------
    float64[C]
        Adds up to 1.

    Notes
    -----
    P(i least) = E over x_i of the product over j of P(x_j > x_i), by quadrature over x_i with 32
    nodes and a logistic form of the Gaussian distribution function (Bowling et al., 2009, error
    1.4e-4). O(C²).
    """
    mu = np.asarray(mean, dtype=np.float64)
    # A little width for those that are known exactly: ties are then shared.
    sigma = np.maximum(np.asarray(error, dtype=np.float64), 1e-6)
    values = mu[:, None] + sigma[:, None] * NODES
    z = np.clip((values[:, :, None] - mu) / sigma, -8, 8)
    above = 1 / (1 + np.exp(1.5976 * z + 0.070565992 * z**3))
    own = np.arange(len(mu))
    above[own, :, own] = 1.0
    chances = np.asarray(above.prod(axis=2) @ WEIGHTS)
    return np.asarray(chances / chances.sum())
