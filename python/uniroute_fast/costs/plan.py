"""What the prompts of a whole period are expected to cost, cluster by cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast import _native
from uniroute_fast._checks.instances import as_snapshot
from uniroute_fast.costs.calibration import calibrate
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast._native import Prompts, Router, Snapshot

#: Cost weights at which a plan knows the costs: so many quantiles of those where choices change.
WEIGHTS = 96


@dataclass(frozen=True, eq=False)
class SpendingPlan:
    """What a period like a known one costs, at every cost weight: for `BudgetPacer`.

    `SpendingPlan.of` makes one from the prompts of a known period, such as yesterday's.

    Attributes
    ----------
    shares : float64[K]
        Share of the prompts that belong to each cluster, as `Decision.cluster` tells it.
    cost_weights : float64[G]
        Ascending, above 0.
    costs : float64[K, G]
        Mean cost of the cluster's prompts at each cost weight, falling.
    """

    shares: NDArray[np.float64]
    cost_weights: NDArray[np.float64]
    costs: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        router: Router | Snapshot,
        texts: Sequence[str] | Prompts | None = None,
        *,
        embeddings: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
    ) -> SpendingPlan:
        """Plan from prompts of a whole period, in any order.

        Parameters
        ----------
        router : Router or Snapshot
        texts : sequence of str, N of them
            No labels are needed. Those that cannot be embedded are left out.
        embeddings : float32[N, D], optional
            In place of `texts`.
        tokens : int[N], optional
            As in `Router.route`, where LLMs are charged by the token.

        Raises
        ------
        InvalidArgumentError, ArgumentTypeError
            As `Router.calibrate`.

        Notes
        -----
        Routes the prompts 96 times. A router whose pool or prices changed wants a new plan; until
        then the pacer makes up for what the old one gets wrong.
        """
        # A router counts what it routes as its traffic, which these prompts are not.
        snapshot = as_snapshot("router", router)
        prompts = snapshot.embed(texts, embeddings=embeddings)
        frontier = calibrate(
            snapshot, prompts, quality_drop=0.0, tokens=tokens, n_bootstrap=1
        ).frontier
        corners = frontier.cost_weight[frontier.cost_weight > 0]
        if not len(corners):  # One model is best at every cost weight.
            corners = np.ones(1)
        weights = np.unique(np.quantile(corners, np.linspace(0, 1, WEIGHTS)))
        # Just above the last corner everything is at its cheapest.
        weights = np.append(weights, 2 * weights[-1])
        columns = []
        for weight in weights:
            decisions = snapshot.route_batch(prompts, float(weight), tokens=tokens)
            columns.append(decisions.cost[decisions.ok])
        cluster = decisions.cluster[decisions.ok].astype(np.intp)
        counts = np.bincount(cluster)
        sums = np.stack([np.bincount(cluster, cost) for cost in columns], axis=1)
        overall = sums.sum(axis=0) / counts.sum()
        # A cluster without a prompt is taken to cost what all do.
        costs = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], overall)
        return cls(counts / counts.sum(), weights, costs)

    def price(self, mix: NDArray[np.float64], mean_cost: float) -> float:
        """Return the cost weight at which prompts of a mix cost so much on average.

        Parameters
        ----------
        mix : float64[K]
            Shares of the clusters.
        mean_cost : float
            What a prompt may cost.

        Notes
        -----
        O(K G); between two known cost weights by interpolation.
        """
        return _native.plan_price(self.parts(), mix, mean_cost)

    def parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the three, as `BudgetPacer` hands them on."""
        return self.shares, self.cost_weights, self.costs

    def state(self) -> dict[str, Any]:
        """Return everything as JSON-able values, for `from_state`."""
        return {
            "shares": self.shares.tolist(),
            "cost_weights": self.cost_weights.tolist(),
            "costs": self.costs.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SpendingPlan:
        """Restore a plan from `state`.

        Raises
        ------
        InvalidArgumentError
            Not what `state` returned.
        """
        try:
            parts = [
                np.array(state[key], np.float64) for key in ("shares", "cost_weights", "costs")
            ]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"plan: {error!r}; expected what `SpendingPlan.state` returned"
            ) from error
        shares, weights, costs = parts
        if costs.shape != (len(shares), len(weights)) or not all(
            np.isfinite(p).all() for p in parts
        ):
            raise InvalidArgumentError(
                f"plan: shapes {[p.shape for p in parts]}; expected [K], [G] and [K, G], all finite"
            )
        return cls(*parts)
