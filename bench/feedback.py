"""What feedback, exploration and a cascade take: ``python bench/feedback.py [DATASET_DIR]``.

Medians over 300 calls, on a default router (three soft heads) over the unseen third of the LLMs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets
from uniroute_fast.evaluate import random_split

CALLS = 300


def median(call: Callable[[int], object]) -> float:
    """Return the median seconds of one call."""
    times = []
    for i in range(CALLS):
        start = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else "../shared/data/mmlu_pro"
    dataset = datasets.load(folder).complete_block()
    split = random_split(dataset, 0)
    texts, own = np.array(dataset.texts, dtype=object), dataset.losses[:, split.unseen]
    train = split.train[:1500]
    seen = uf.Outcomes(dataset.losses[np.ix_(train, split.seen)])
    router = uf.Router.fit(list(texts[train]), seen=seen)
    names, rows = [f"m{i}" for i in range(own.shape[1])], split.validation
    router.add_models(names, dataset.costs[split.unseen], list(texts[rows]), own[rows])
    scores = own[rows, 0] + np.random.default_rng(0).normal(size=len(rows))
    cascade = uf.Cascade.fit(router, list(texts[rows]), {names[0]: scores}, own[rows])
    explorer = uf.Explorer(within=0.1, seed=0)
    test = [texts[i] for i in split.test[:CALLS]]
    many = [texts[i] for i in split.test[:1000]]
    drawn = np.random.default_rng(0).integers(len(names), size=len(many))
    chosen = [names[m] for m in drawn]
    plan = uf.SpendingPlan.of(router, [texts[i] for i in train[:1000]])
    pacer = uf.BudgetPacer(1e4, plan=plan, requests=10**6)
    weight = 1e-3
    for what, call in {
        "route": lambda i: router.route(test[i], weight),
        "Explorer.route": lambda i: explorer.route(router, test[i], weight),
        "BudgetPacer.route, with a plan": lambda i: pacer.route(router, test[i]),
        "Cascade.first": lambda i: cascade.first(test[i], weight),
        "explain": lambda i: router.explain(test[i], weight),
        "observe": lambda i: router.observe(test[i], names[i % len(names)], 0.0),
    }.items():
        print(f"{what:32} {1e6 * median(call):10.1f} us")
    start = time.perf_counter()
    router.observe_many(many, chosen, np.zeros(len(many)))
    spent = (time.perf_counter() - start) / len(many)
    print(f"{'observe_many, 1,000 at once':32} {1e6 * spent:10.1f} us an outcome")


if __name__ == "__main__":
    main()
