"""`BudgetPacer` on streams of real prompts whose mix shifts half-way.

    python bench/pacing.py [--seeds 3] [--data ../shared/data]

A router is fitted on half of a set; the other half is the stream: three quarters of its first half
come from one half of the tasks, three quarters of its second from the other. Prints, without a plan
and with one made from the router's own half, the total spent over the budget, and by how much the
measured quality differs from that of the best fixed mix of cost weights, known only afterwards.
With ``--surprise`` the stream is its first half alone, whose mix no plan expects.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets

SETS = ["zeroeval", "bfcl", "routerbench_subset"]


def shifting(tasks: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return rows in an order whose mix of tasks shifts half-way."""
    early = np.isin(tasks[rows], np.unique(tasks)[::2])
    a, b = rows[early], rows[~early]
    cut_a, cut_b = 3 * len(a) // 4, len(b) // 4
    halves = [[a[:cut_a], b[:cut_b]], [a[cut_a:], b[cut_b:]]]
    return np.concatenate([rng.permutation(np.concatenate(half)) for half in halves])


def run(data: datasets.Dataset, seed: int, surprise: bool) -> tuple[float, list[list[float]]]:
    """Return the quality of hindsight, and spent / budget and quality without and with a plan."""
    rng = np.random.default_rng(seed)
    kept = np.isnan(data.losses).mean(axis=0) <= 0.1
    rows = rng.permutation(np.flatnonzero(~np.isnan(data.losses[:, kept]).any(axis=1)))
    fitted, rest = np.array_split(rows, 2)
    stream = shifting(np.array(data.tasks), rest, rng)
    if surprise:
        stream = stream[: len(stream) // 2]
    losses, costs, texts = data.losses[:, kept], data.costs[kept], data.texts
    router = uf.Router.fit([texts[i] for i in fitted], seed=seed)
    labelled = fitted[:400]
    names = [f"m{i}" for i in range(len(costs))]
    router.add_models(names, costs, [texts[i] for i in labelled], losses[labelled])
    x = router.embedder.embed([texts[i] for i in stream])
    ends = router.calibrate(embeddings=x, quality_drop=0.0, n_bootstrap=1).frontier.cost
    per_thousand = (ends[0] + ends[-1]) / 2
    own = losses[stream]
    hindsight = router.calibrate(embeddings=x, budget=per_thousand, losses=own, n_bootstrap=1)
    start = router.calibrate([texts[i] for i in fitted], budget=per_thousand, n_bootstrap=1)
    budget = per_thousand * len(stream) / 1000
    plan = uf.SpendingPlan.of(router, [texts[i] for i in fitted])
    found = []
    for begin in ({"cost_weight": max(start.cost_weight, 1e-9)}, {"plan": plan}):
        pacer = uf.BudgetPacer(budget, requests=len(stream), reserve=float(costs.min()), **begin)
        chosen = [pacer.route(router, embeddings=row).index for row in x]
        quality = 1 - own[np.arange(len(own)), chosen].mean()
        found.append([pacer.spent / budget, float(quality)])
    return hindsight.quality, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    default = os.environ.get("UNIROUTE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--surprise", action="store_true")
    arguments = parser.parse_args()
    print(f"{'':30} {'without a plan':>20} {'with a plan':>20}")
    print(f"{'set':20} {'hindsight':>9}" + f" {'spent':>9} {'quality':>10}" * 2)
    for name in SETS:
        data = datasets.load(arguments.data / name)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            best, found = run(data, seed, arguments.surprise)
            told = "".join(f" {share:9.4f} {quality - best:+10.4f}" for share, quality in found)
            print(f"{name:20} {best:9.4f}{told}", flush=True)


if __name__ == "__main__":
    main()
