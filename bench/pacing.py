"""`BudgetPacer` on streams of real prompts whose mix shifts half-way.

    python bench/pacing.py [--seeds 3] [--data ../shared/data]

A router is fitted on half of a set; the other half is the stream: three quarters of its first half
come from one half of the tasks, three quarters of its second from the other. Prints the total spent
over the budget, and the measured quality beside that of the best fixed mix of cost weights, known
only afterwards.
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


def run(data: datasets.Dataset, seed: int) -> tuple[float, float, float]:
    """Return spent / budget, quality, and the quality of hindsight."""
    rng = np.random.default_rng(seed)
    kept = np.isnan(data.losses).mean(axis=0) <= 0.1
    rows = rng.permutation(np.flatnonzero(~np.isnan(data.losses[:, kept]).any(axis=1)))
    fitted, rest = np.array_split(rows, 2)
    stream = shifting(np.array(data.tasks), rest, rng)
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
    pacer = uf.BudgetPacer(
        budget,
        cost_weight=max(start.cost_weight, 1e-9),
        requests=len(stream),
        reserve=float(costs.min()),
    )
    chosen = [pacer.route(router, embeddings=row).index for row in x]
    quality = 1 - own[np.arange(len(own)), chosen].mean()
    return pacer.spent / budget, float(quality), hindsight.quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    default = os.environ.get("UNIROUTE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    arguments = parser.parse_args()
    print(f"{'set':20} {'spent/budget':>12} {'quality':>8} {'hindsight':>9} {'difference':>10}")
    for name in SETS:
        data = datasets.load(arguments.data / name)
        for seed in range(arguments.seeds):
            share, quality, best = run(data, seed)
            print(f"{name:20} {share:12.4f} {quality:8.4f} {best:9.4f} {quality - best:+10.4f}")


if __name__ == "__main__":
    main()
