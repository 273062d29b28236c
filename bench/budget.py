"""Calibrated budgets on prompts that the calibration has not seen.

    python bench/budget.py [--splits 20] [--confidence 0.95] [--data ../shared/data]

For each set and split: a router fitted on 40% of the prompts, with profiles from up to 400 labelled
ones among them; calibrated on another 30%, to a budget half-way between the cheapest model's cost
and that of quality alone; routed on the last 30%. Prints by how much the realised cost misses the
budget, and how wide the stated interval is.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets

SETS = ["zeroeval", "bfcl", "routerbench_subset"]


def complete(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, losses and costs of models run on 90% of the prompts, and prompts all ran."""
    data = datasets.load(folder)
    kept = np.isnan(data.losses).mean(axis=0) <= 0.1
    rows = ~np.isnan(data.losses[:, kept]).any(axis=1)
    texts = [text for text, row in zip(data.texts, rows, strict=True) if row]
    return texts, data.losses[rows][:, kept], data.costs[kept]


def split_once(
    texts: list[str], losses: np.ndarray, costs: np.ndarray, seed: int, confidence: float
) -> tuple[float, bool, float]:
    """Return the relative miss, whether the interval holds it, and the interval's half-width."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))
    fitted, fresh, new = np.split(order, [int(0.4 * len(order)), int(0.7 * len(order))])
    router = uf.Router.fit([texts[i] for i in fitted], seed=seed)
    labelled = fitted[:400]
    fresh_texts = [texts[i] for i in fresh]
    names = [f"m{i}" for i in range(len(costs))]
    router.add_models(names, costs, [texts[i] for i in labelled], losses[labelled])
    ends = router.calibrate(fresh_texts, quality_drop=0.0, n_bootstrap=1).frontier.cost
    budget = (ends[0] + ends[-1]) / 2
    found = router.calibrate(fresh_texts, budget=budget, seed=seed, confidence=confidence)
    routed = router.route_batch([texts[i] for i in new], found.cost_weights(len(new), seed))
    realised = 1000 * np.nanmean(routed.cost)
    low, high = found.interval
    return realised / budget - 1, bool(low <= realised <= high), (high - low) / 2 / budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--confidence", type=float, default=0.95)
    default = os.environ.get("UNIROUTE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    arguments = parser.parse_args()
    print(
        f"{'set':20} {'within 3%':>9} {'in interval':>11} {'either':>6} {'median':>7} {'max':>7} "
        f"{'interval':>8}"
    )
    for name in SETS:
        texts, losses, costs = complete(arguments.data / name)
        results = [
            split_once(texts, losses, costs, seed, arguments.confidence)
            for seed in range(arguments.splits)
        ]
        misses = np.abs([miss for miss, _, _ in results])
        inside = np.array([held for _, held, _ in results])
        close = misses <= 0.03
        print(
            f"{name:20} {close.sum():6}/{len(close)} {inside.sum():8}/{len(close)} "
            f"{(close | inside).sum():3}/{len(close)} {np.median(misses):7.2%} {misses.max():7.2%} "
            f"{np.median([width for _, _, width in results]):8.2%}"
        )


if __name__ == "__main__":
    main()
