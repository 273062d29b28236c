"""What 2,000 observed outcomes are worth: ``python bench/study/feedback.py [--trials 20]``.

A router is fitted on 35% of a set with two thirds of its LLMs; the others join with 25 labels each.
Then 2,000 prompts are routed, each to one LLM, whose outcome is observed. Budgets are spread evenly
over what can be spent, as they are in Area. Prints the mean Area on 30% of the prompts before and
after, for several ways of choosing the LLM, beside that of 400 labels for each LLM up front.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import complete

import uniroute_fast as uf
from uniroute_fast.evaluate import area, deferral_curve, random_split

FEW, MANY, STREAM, BATCH = 25, 400, 2000, 25


def run(dataset: uf.datasets.Dataset, seed: int, within: float) -> dict[str, float]:
    split = random_split(dataset, seed, FEW + STREAM, shares=(0.35, 0.35))
    texts, losses = np.array(dataset.texts, dtype=object), dataset.losses
    seen = uf.Outcomes(losses[np.ix_(split.train, split.seen)], costs=dataset.costs[split.seen])
    fitted = uf.Router.fit(list(texts[split.train]), seen=seen, seed=seed)
    bare = fitted.to_bytes(*fitted._extra(records=True))
    names = [f"m{i}" for i in range(len(split.unseen))]
    costs, own = dataset.costs[split.unseen], losses[:, split.unseen]
    x = fitted.embedder.embed(list(texts[split.test]))

    def with_labels(n: int) -> uf.Router:
        router = uf.Router._from_loaded(uf._native.Loaded.from_bytes(bare), None)
        rows = split.validation[:n]
        router.add_models(names, costs, list(texts[rows]), own[rows])
        return router

    def measured(router: uf.Router) -> float:
        curve = deferral_curve(router.predict_loss(embeddings=x), 1 - own[split.test], costs)
        return area(curve, costs)

    found = {f"{FEW} labels": measured(with_labels(FEW))}
    found[f"{MANY} labels"] = measured(with_labels(MANY))
    stream = split.validation[FEW:]
    ways = {
        "greedy": uf.Explorer(within=0.0, seed=seed),
        "Thompson": uf.Explorer(within=within, seed=seed),
        "uniform": uf.Explorer(within=np.inf, uniform=1.0, seed=seed),
    }
    for way, explorer in ways.items():
        router, rng = with_labels(FEW), np.random.default_rng(seed)
        for start in range(0, STREAM, BATCH):
            rows = stream[start : start + BATCH]
            if start % (10 * BATCH) == 0:
                frontier = router.calibrate(
                    list(texts[split.train[:500]]), quality_drop=0.0, n_bootstrap=1
                ).frontier
            budgets = rng.uniform(1000 * costs.min(), 1000 * costs.max(), len(rows))
            at = np.searchsorted(-frontier.cost, -budgets)
            weights = frontier.cost_weight[np.minimum(at, len(frontier.cost) - 1)]
            tried = [
                explorer.route(router, texts[i], float(w))
                for i, w in zip(rows, weights, strict=True)
            ]
            outcomes = own[rows, [t.index for t in tried]]
            router.observe_many(list(texts[rows]), [t.model for t in tried], outcomes)
        found[way] = measured(router)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=0.1)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        dataset = complete(name)
        trials = [
            run(dataset, arguments.seed + t, arguments.within) for t in range(arguments.trials)
        ]
        for way in trials[0]:
            areas = np.array([trial[way] for trial in trials])
            gain = areas - [trial[f"{MANY} labels"] for trial in trials]
            error = 2 * gain.std(ddof=1) / np.sqrt(len(gain))
            print(
                f"{name:10} {way:22} Area {areas.mean():.4f}, "
                f"against {MANY} labels {gain.mean():+.4f} (2 SE {error:.4f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
