"""Area against the number of validation labels: ``python bench/study/few_labels.py``."""

from __future__ import annotations

import argparse

from sets import complete, embed

from uniroute_fast.evaluate import run_trials

PAIRS = {"zeroeval": (50, 635), "mmlu_pro": (100, 1200)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, (few, many) in PAIRS.items():
        dataset = complete(name)
        areas = {}
        for n_val in (few, many):
            table = run_trials(
                dataset,
                ["zero_router", "kmeans", "uniroute"],
                arguments.trials,
                n_val,
                arguments.seed,
                embed=embed,
            )
            print(table, flush=True)
            areas[n_val] = table
        gain = areas[few].figures["uniroute"][:, 0] - areas[many].figures["kmeans"][:, 0]
        print(f"{name}: uniroute with {few} labels - kmeans with {many}: {gain.mean():+.4f}")


if __name__ == "__main__":
    main()
