"""Trying LLMs that may be better than what is known of them, and saying how likely that was.

Thompson sampling chooses each LLM as often as it is the best one under the posterior. Here these
probabilities are worked out, and the LLM is drawn from them: what is logged as the propensity is
what the LLM was drawn with, to the last bit, so that estimates from such logs (see
`uniroute_fast.evaluate.off_policy`) are unbiased whatever the posterior is worth.

One outcome a prompt tells of the prompt as much as of the LLM: most of its variance is how hard the
prompt is. LLMs that are asked the same prompt have that in common, so it cancels where they are
compared: `Explorer.compare` draws several.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.prompts import one_embedded
from uniroute_fast._checks.scalars import as_count, as_number
from uniroute_fast.decisions.explain import prompt_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import Constraints, Decision, Prompts
    from uniroute_fast.profiles.learner import Learns

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


@dataclass(frozen=True)
class Comparison:
    """LLMs drawn for one prompt, independently and from the same probabilities.

    Attributes
    ----------
    drawn : tuple of Exploration
        Each with the true propensity of a single draw. They may all name the same LLM: then there
        is little doubt about the prompt, and little to learn from it.
    """

    drawn: tuple[Exploration, ...]

    @property
    def decision(self) -> Decision:
        """What would have been chosen without exploration: the LLM whose answer to give."""
        return self.drawn[0].decision

    @property
    def models(self) -> list[str]:
        """The LLMs to ask so that their outcomes can be compared: none if all draws agree."""
        return [one.model for one in self._distinct()]

    @property
    def propensities(self) -> list[float]:
        """The probability with which each of `models` was to be asked.

        An LLM that has p in a single draw is asked if it is drawn, with 1 - (1 - p)^n in n draws,
        and not alone, which it is with p^n.
        """
        n = len(self.drawn)
        single = [one.propensity for one in self._distinct()]
        return [1 - (1 - p) ** n - p**n for p in single]

    def _distinct(self) -> list[Exploration]:
        """Return the first draw of each LLM, in order, or nothing where there is only one."""
        first: dict[str, Exploration] = {}
        for one in self.drawn:
            first.setdefault(one.model, one)
        return list(first.values()) if len(first) > 1 else []


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
        unguarded = isinstance(within, float) and within == np.inf
        self._within = within if unguarded else as_number("within", within, 0.0)
        self._share = as_number("share", share, 0.0, 1.0)
        self._uniform = as_number("uniform", uniform, 0.0, 1.0)
        self._most = as_count("most", most, 1, 2**31)
        # NumPy's generators hold a lock while they draw, which a fork may find taken; this one's
        # draws are whole.
        self._rng = Random(None if seed is None else as_count("seed", seed, 0, 2**63 - 1))

    def route(
        self,
        router: Learns,
        text: str | Prompts | None = None,
        cost_weight: float = 0.0,
        *,
        embeddings: ArrayLike | None = None,
        constraints: Constraints | None = None,
        tokens: int | None = None,
    ) -> Exploration:
        """Draw the LLM that answers one prompt; arguments and errors are those of `Router.route`.

        LLMs without a record of outcomes are taken to be what their profiles say.
        """
        draw = self._drawer(router, text, cost_weight, embeddings, constraints, tokens)
        return draw()

    def compare(
        self,
        router: Learns,
        text: str | Prompts | None = None,
        cost_weight: float = 0.0,
        *,
        draws: int = 4,
        embeddings: ArrayLike | None = None,
        constraints: Constraints | None = None,
        tokens: int | None = None,
    ) -> Comparison:
        """Draw LLMs to be asked the same prompt; other arguments and errors are those of `route`.

        Give the user the answer of ``.decision``, which loses nothing, and ask the LLMs of
        ``.models`` beside it: none where all draws agree. How hard the prompt is cancels where
        their outcomes are compared.

        Parameters
        ----------
        draws : int
            2 to 1000: at most so many LLMs are asked.

        Notes
        -----
        Takes the time of `route`. Outcomes come from a selection of the prompts, those in doubt.
        An outcome on a prompt that the router was fitted on with seen LLMs is weighed against what
        these made of the prompt, which says how hard it is.
        What another rule would have lost is the sum of loss / propensity over the outcomes of the
        LLMs that it chooses, divided by the number of all prompts, those where nothing was asked
        too: unbiased where every LLM that it chooses could be asked.
        `uniroute_fast.evaluate.off_policy` is for logs of `route`, one outcome for each prompt.

        Examples
        --------
        >>> import numpy as np, uniroute_fast as uf
        >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 3
        >>> router = uf.Router.fit(texts, n_clusters=2)
        >>> losses = np.random.default_rng(0).integers(0, 2, (12, 2))
        >>> router.add_models(["a", "b"], [1.0, 1.0], texts, losses)
        >>> explorer = uf.Explorer(within=1.0, seed=0)
        >>> for text in texts:
        ...     asked = explorer.compare(router, text).models
        ...     outcomes = np.zeros(len(asked))  # what became of them
        ...     used = router.observe_many([text] * len(asked), asked, outcomes)
        """
        draws = as_count("draws", draws, 2, 1000)
        draw = self._drawer(router, text, cost_weight, embeddings, constraints, tokens)
        return Comparison(tuple(draw() for _ in range(draws)))

    def _drawer(
        self,
        router: Learns,
        text: str | Prompts | None,
        cost_weight: float,
        embeddings: ArrayLike | None,
        constraints: Constraints | None,
        tokens: int | None,
    ) -> Callable[[], Exploration]:
        """Weigh the LLMs for one prompt, and return what draws one of them."""
        learner = as_instance("router", router, _native.Router, "a Router").learner
        snapshot, errors = learner.with_errors(router)
        prompt = one_embedded(snapshot, text, embeddings)
        decision = snapshot.route(prompt, cost_weight, constraints=constraints, tokens=tokens)
        others = decision.contenders(self._within)[: self._most - 1]
        index = [decision.index, *(other.index for other in others)]
        error = np.nan_to_num(prompt_errors(prompt.phi, errors[:, index])[0])
        own = decision.predicted_loss + cost_weight * decision.cost
        objective = np.array([own, *(other.objective for other in others)])
        best = self._uniform / len(index) + (1 - self._uniform) * best_probabilities(
            objective, error
        )
        probabilities = self._share * best
        probabilities[0] += 1 - self._share
        probabilities /= probabilities.sum()
        reached = probabilities.cumsum()
        told = dict(zip(index, probabilities.tolist(), strict=True))

        def draw() -> Exploration:
            drawn = int(np.searchsorted(reached, reached[-1] * self._rng.random(), side="right"))
            chosen = decision if drawn == 0 else others[drawn - 1]
            return Exploration(
                model=chosen.model,
                index=chosen.index,
                propensity=float(probabilities[drawn]),
                predicted_loss=chosen.predicted_loss,
                cost=chosen.cost,
                decision=decision,
                probabilities=told,
            )

        return draw


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
