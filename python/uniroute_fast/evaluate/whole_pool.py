"""The whole pool on held-out prompts: who serves what at each cost weight, and how well.

Trials ask what a router knows of LLMs that it has never seen. This asks what the whole pool does
once all LLMs have joined: a router is fitted on the training prompts, each LLM is profiled on the
validation prompts, and test prompts that neither has seen are routed and looked up in the scores.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.costs.outcome import Outcome
from uniroute_fast.errors import DatasetError
from uniroute_fast.evaluate.deferral import deferral_curve, qnc, reaches_best
from uniroute_fast.evaluate.statistics import two_standard_errors
from uniroute_fast.evaluate.trial import random_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uniroute_fast.datasets import Dataset
    from uniroute_fast.evaluate.deferral import DeferralCurve
    from uniroute_fast.router import Router

#: Cost weights shown. Between two of them the same number of decisions change.
STOPS = 41

#: Predicted quality that an LLM may fall behind the best one and still be "nearly as good".
NEARLY = 0.02

#: Prompts shown of each cluster, and characters of each.
TYPICAL, CHARACTERS = 3, 400

BEST_SINGLE = "best single LLM"


@dataclass(frozen=True)
class Cluster:
    """A cluster of prompts, as the router sees it.

    Attributes
    ----------
    cluster : int
    background : bool
        Whether it takes the prompts that are far from all that the router was fitted on.
    prompts : int
        Test prompts in it.
    tasks : dict of str to int
        Prompts by task, the most first.
    typical : list of str
        Distinct prompts nearest to the cluster's middle, cut where they are long.
    best : dict
        The LLM of least predicted loss: ``model``, ``cost``, ``quality`` (measured on these
        prompts) and ``quality_2se``.
    nearly : dict
        The same for the cheapest LLM predicted to be at most `NEARLY` behind; it may be the best.
    """

    cluster: int
    background: bool
    prompts: int
    tasks: dict[str, int]
    typical: list[str]
    best: dict[str, Any]
    nearly: dict[str, Any]


@dataclass(frozen=True)
class WholePool:
    """What `route_whole_pool` found. Qualities are measured, on test prompts.

    Attributes
    ----------
    train, validation, test : int
        Prompts that the router was fitted on, that LLMs were profiled on, and that were routed.
    unroutable : int
        Test prompts left out because nothing in them is known to the embedder.
    cost_unit : str
    models : list of dict
        Every LLM: ``name``, ``cost``, ``quality``.
    best_single : str
        The most accurate LLM on the test prompts, known in hindsight.
    qnc : float
        Least cost at which the router equals its quality, relative to its cost; 1 at most.
    reached : bool
        Whether the router reaches that quality at all.
    outcomes : list of Outcome
        The best single LLM for all, then the router at some `STOPS` cost weights, spending more
        from each to the next; among them the one where it first equals the best single LLM, on
        which gains are.
    clusters : list of Cluster
        The largest first.
    """

    train: int
    validation: int
    test: int
    unroutable: int
    cost_unit: str
    models: list[dict[str, Any]]
    best_single: str
    qnc: float
    reached: bool
    outcomes: list[Outcome]
    clusters: list[Cluster]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return vars(self) | {
            "outcomes": [dict(vars(one)) for one in self.outcomes],
            "clusters": [dict(vars(one)) for one in self.clusters],
        }


def route_whole_pool(dataset: Dataset, n_val: int | None = None, seed: int = 0) -> WholePool:
    """Fit a router, add every LLM, and route held-out prompts at many cost weights.

    Parameters
    ----------
    dataset : Dataset
        Its complete block is used: `Dataset.complete_block`.
    n_val : int, optional
        Labels of each LLM. Default: 400, or 10% of the prompts where that is less.
    seed : int
        Of the split, which is that of the first trial of `run_trials`, and of the fit.

    Raises
    ------
    DatasetError, InvalidArgumentError
        A set that is too small to split, or none of whose test prompts can be routed.
    """
    from uniroute_fast.profiles.outcomes import Outcomes
    from uniroute_fast.router import Router

    block = dataset.complete_block() if np.isnan(dataset.scores).any() else dataset
    split = random_split(block, seed, n_val)
    train, validation, test = (
        block.select(part) for part in (split.train, split.validation, split.test)
    )
    seen = Outcomes(train.losses, block.models, block.costs)
    router = Router.fit(list(train.texts), seen=seen, seed=seed)
    router.add_models(list(block.models), block.costs, list(validation.texts), validation.losses)

    prompts = router.embed(list(test.texts))
    predicted = router.predict_loss(prompts).astype(np.float64)
    routable = np.flatnonzero(np.isfinite(predicted).all(axis=1))
    if not len(routable):
        raise DatasetError(
            f"{dataset.name}: none of the {len(test.ids)} test prompts can be routed"
        )
    held, predicted, prompts = test.select(routable), predicted[routable], prompts[routable]
    cluster = router.route_batch(prompts).cluster.astype(np.int64)
    curve = deferral_curve(predicted, held.scores, held.costs)
    means = held.scores.mean(axis=0)
    # Of equally accurate LLMs the cheapest, as `qnc` has it.
    best = int(np.lexsort((held.costs, -means))[0])

    outcomes = [_outcome(BEST_SINGLE, np.nan, np.full(len(routable), best), held, cluster, best)]
    for weight in _spread(curve, means[best]):
        chosen = router.route_batch(prompts, cost_weight=weight).index.astype(np.int64)
        outcomes.append(_outcome(f"cost weight {weight:.4g}", weight, chosen, held, cluster, best))
    return WholePool(
        train=len(train.ids),
        validation=len(validation.ids),
        test=len(routable),
        unroutable=len(test.ids) - len(routable),
        cost_unit=block.cost_unit,
        models=[
            {"name": name, "cost": float(cost), "quality": float(mean)}
            for name, cost, mean in zip(held.models, held.costs, means, strict=True)
        ],
        best_single=held.models[best],
        qnc=qnc(curve, held.scores, held.costs),
        reached=reaches_best(curve, held.scores, held.costs),
        outcomes=outcomes,
        clusters=_clusters(held, predicted, cluster, prompts.vectors, _background(router)),
    )


def _spread(curve: DeferralCurve, target: float) -> list[float]:
    """Return cost weights evenly over a curve's corners, and where it first reaches a quality."""
    last = len(curve.cost_weight) - 1
    corners = {round(corner) for corner in np.linspace(0, last, min(STOPS, last + 1))}
    # Means of the same scores in another order differ by rounding.
    corners.update(np.flatnonzero(curve.quality >= target - 1e-12)[:1].tolist())
    return [float(curve.cost_weight[corner]) for corner in sorted(corners)]


def _outcome(
    name: str,
    cost_weight: float,
    chosen: NDArray[np.int64],
    held: Dataset,
    cluster: NDArray[np.int64],
    best: int,
) -> Outcome:
    """Look up what a rule's choices cost and score."""
    rows = np.arange(len(chosen))
    quality, cost = held.scores[rows, chosen], held.costs[chosen]
    gain = quality - held.scores[:, best]

    def part(inside: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "prompts": int(inside.sum()),
            "spend": float(cost[inside].sum()),
            "quality": float(quality[inside].mean()),
            "quality_2se": _two_se(quality[inside]),
        }

    clusters = []
    for k, _ in Counter(cluster.tolist()).most_common():
        inside = cluster == k
        most, count = Counter(chosen[inside].tolist()).most_common(1)[0]
        shares = {"model": held.models[most], "model_share": count / int(inside.sum())}
        clusters.append({"cluster": k} | part(inside) | shares)
    counts = Counter(chosen.tolist()).most_common()
    return Outcome(
        name=name,
        cost_weight=cost_weight,
        rows=len(chosen),
        spend=float(cost.sum()),
        quality=float(quality.mean()),
        quality_2se=_two_se(quality),
        gain=float(gain.mean()),
        gain_2se=_two_se(gain),
        models={held.models[m]: count for m, count in counts},
        llms=[{"model": held.models[m]} | part(chosen == m) for m, _ in counts],
        clusters=clusters,
    )


def _clusters(
    held: Dataset,
    predicted: NDArray[np.float64],
    cluster: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    background: int | None,
) -> list[Cluster]:
    found = []
    for k, count in Counter(cluster.tolist()).most_common():
        inside = np.flatnonzero(cluster == k)
        losses = predicted[inside].mean(axis=0)
        best = int(np.lexsort((held.costs, losses))[0])
        near = np.flatnonzero(losses <= losses[best] + NEARLY)
        nearly = int(near[np.lexsort((losses[near], held.costs[near]))[0]])
        closeness = embeddings[inside] @ embeddings[inside].mean(axis=0)
        nearest = [held.texts[int(i)] for i in inside[np.argsort(-closeness, kind="stable")]]
        found.append(
            Cluster(
                cluster=k,
                background=k == background,
                prompts=count,
                tasks=dict(Counter(held.tasks[int(i)] for i in inside).most_common()),
                typical=[_cut(text) for text in list(dict.fromkeys(nearest))[:TYPICAL]],
                best=_llm(held, best, inside),
                nearly=_llm(held, nearly, inside),
            )
        )
    return found


def _background(router: Router) -> int | None:
    """Return the first head's background, where it has one."""
    cluster_map = router.learner.fitted().map
    last = cluster_map.sizes[0] - 1
    return last if last in cluster_map.backgrounds else None


def _llm(held: Dataset, model: int, prompts: NDArray[np.intp]) -> dict[str, Any]:
    quality = held.scores[prompts, model]
    return {
        "model": held.models[model],
        "cost": float(held.costs[model]),
        "quality": float(quality.mean()),
        "quality_2se": _two_se(quality),
    }


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


def _two_se(values: NDArray[np.float64]) -> float:
    return float(two_standard_errors(values))
