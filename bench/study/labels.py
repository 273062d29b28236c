"""Area from 25 to 3,000 validation labels: ``python bench/study/labels.py --trials 10``.

The validation share is raised to 30% here, at the training prompts' expense (40/30/30), to have as
many labels as that; the sets are those with enough prompts.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import complete, embed

from uniroute_fast.evaluate import METHODS, area, random_split
from uniroute_fast.evaluate.trial import make_trial
from uniroute_fast.evaluate.trials import predict_curve

COUNTS = (25, 50, 100, 200, 400, 800, 1600, 3000)
NAMES = ("zero_router", "kmeans", "hierarchical", "retrained_mf", "uniroute_unseen", "uniroute")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        dataset = complete(name)
        counts = [n for n in COUNTS if n <= round(0.3 * len(dataset.ids))]
        areas = np.zeros((len(counts), arguments.trials, len(NAMES)))
        for t in range(arguments.trials):
            seed = arguments.seed + t
            for i, n_val in enumerate(counts):
                split = random_split(dataset, seed, n_val, shares=(0.4, 0.3))
                trial = make_trial(dataset, split, embed(dataset, split, seed), seed)
                for m, method in enumerate(NAMES):
                    curve = predict_curve(METHODS[method], trial)
                    areas[i, t, m] = area(curve, trial.costs)
        print(f"{name}, labels:", " ".join(f"{method:>15}" for method in NAMES))
        for n_val, row in zip(counts, areas.mean(axis=1), strict=True):
            print(f"{n_val:>14}  ", " ".join(f"{value:15.4f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
