"""Is a second decision worth it? ``python bench/study/cascade.py [--trials 10]``.

No set holds how sure an LLM was of an answer, so two stand-ins are used, and named as such:

- *length*: on bfcl, the number of tokens of the answer, which is real and known once it is there.
- *simulated*: a score that tells right from wrong answers with a given AUC (.5 tells nothing), made
  from the true outcome and Gaussian noise: what a confidence of that AUC would be worth, no more.

Routing is fitted on 60% of a set with two thirds of its LLMs; the others join with 400 labels each
(or 10% of the set); the cascade learns from the same labels, and any of the three cheapest LLMs may
answer first. Prints Area, over the budgets of the
pool, of routing alone and of the cascade on the rest, where both answers are paid for.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow.parquet as parquet
from sets import DATA, complete

import uniroute_fast as uf
from uniroute_fast.decisions.cascade import Predicted
from uniroute_fast.evaluate import DeferralCurve, area, deferral_curve, random_split

AUCS = (0.5, 0.7, 0.8, 0.9)

#: How many LLMs, the cheapest of which answers are scored, may answer first.
FIRSTS = 3


def simulated(losses: np.ndarray, auc: float, rng: np.random.Generator) -> np.ndarray:
    """Return scores of answers [N, M]: two unit Gaussians, as far apart as the AUC asks."""
    from statistics import NormalDist

    apart = np.sqrt(2) * NormalDist().inv_cdf(auc)
    return (1 - losses) * apart + rng.normal(size=losses.shape)


def answer_lengths(dataset: uf.datasets.Dataset) -> np.ndarray:
    """Return output tokens of each answer of bfcl, float64[N, M]; NaN where unknown."""
    table = parquet.read_table(DATA / "bfcl" / "tokens.parquet").to_pydict()
    rows = {id_: i for i, id_ in enumerate(dataset.ids)}
    columns = {name: m for m, name in enumerate(dataset.models)}
    lengths = np.full(dataset.losses.shape, np.nan)
    for id_, model, tokens in zip(table["id"], table["model"], table["output_tokens"], strict=True):
        if id_ in rows and model in columns and tokens is not None:
            lengths[rows[id_], columns[model]] = tokens
    return lengths


def cascade_curve(
    cascade: uf.Cascade, router: uf.Router, x: np.ndarray, losses: np.ndarray, scores: np.ndarray
) -> DeferralCurve:
    """Return cost and quality of the cascade over cost weights."""
    prompts, costs = Predicted.of(router.snapshot(), embeddings=x), router.costs
    rows, points = np.arange(len(x)), []
    for weight in np.append(0.0, np.geomspace(1e-3, 1e2, 50) / costs.max()):
        first = cascade.decide_first(prompts, float(weight))
        used, cost = first.index.copy(), costs[first.index]
        for model in np.unique(first.index[~first.final]):
            asked = np.flatnonzero(~first.final & (first.index == model))
            used[asked] = cascade.decide_second(
                prompts.take(asked), float(weight), router.models[model], scores[asked, model]
            )
            cost[asked] += np.where(used[asked] == model, 0.0, costs[used[asked]])
        points.append((cost.mean(), 1 - losses[rows, used].mean(), weight))
    cost, quality, weight = np.array(sorted(points)).T
    return DeferralCurve(cost, quality, weight)


def run(dataset: uf.datasets.Dataset, seed: int, kinds: list[str]) -> dict[str, float]:
    split = random_split(dataset, seed)
    texts, own = np.array(dataset.texts, dtype=object), dataset.losses[:, split.unseen]
    costs = dataset.costs[split.unseen]
    seen = uf.Outcomes(
        dataset.losses[np.ix_(split.train, split.seen)], costs=dataset.costs[split.seen]
    )
    router = uf.Router.fit(list(texts[split.train]), seen=seen, seed=seed)
    names = [f"m{i}" for i in range(len(costs))]
    labelled = split.validation
    router.add_models(names, costs, list(texts[labelled]), own[labelled])
    x = router.embedder.embed(list(texts[split.test]))
    alone = deferral_curve(router.predict_loss(embeddings=x), 1 - own[split.test], costs)
    found = {"routing alone": area(alone, costs)}
    rng = np.random.default_rng(seed)
    for kind in kinds:
        if kind == "length":
            scores = answer_lengths(dataset)[:, split.unseen]
        else:
            scores = simulated(own, float(kind.split()[-1]), rng)
        scored = [m for m in np.argsort(costs) if not np.isnan(scores[:, m]).any()]
        given = {names[m]: scores[labelled, m] for m in scored[:FIRSTS]}
        cascade = uf.Cascade.fit(router, list(texts[labelled]), given, own[labelled])
        curve = cascade_curve(cascade, router, x, own[split.test], scores[split.test])
        found[kind] = area(curve, costs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro", "bfcl"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        dataset = complete(name)
        kinds = [f"simulated, AUC {auc}" for auc in AUCS] + ["length"] * (name == "bfcl")
        trials = [run(dataset, arguments.seed + t, kinds) for t in range(arguments.trials)]
        for kind in trials[0]:
            areas = np.array([trial[kind] for trial in trials])
            gain = areas - [trial["routing alone"] for trial in trials]
            error = 2 * gain.std(ddof=1) / np.sqrt(len(gain))
            print(
                f"{name:10} {kind:20} Area {areas.mean():.4f}, against routing alone "
                f"{gain.mean():+.4f} (2 SE {error:.4f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
