"""What leaving out small cluster weights does to Area, and how many are left.

python bench/floor.py ../shared/data/zeroeval ../shared/data/metabench --trials 8
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from uniroute_fast import datasets, evaluate
from uniroute_fast.clusters.cluster_map import ClusterMap
from uniroute_fast.evaluate.deferral import area_of
from uniroute_fast.profiles.fit import fit_profiler

FLOORS = (0.0, 1 / 512, 1 / 128, 1 / 64, 1 / 32, 1 / 8)


def method(floor: float, entries: dict[str, list[float]]) -> evaluate.Method:
    """Route as `uniroute` does, with this floor under the cluster weights."""
    name = f"1/{round(1 / floor)}" if floor else "0"

    def predict(trial: evaluate.Trial) -> NDArray[np.float64]:
        profiler = trial.shared(
            "profiler",
            lambda: fit_profiler(
                trial.train, trial.seen_train, trial.seen_costs, seed=trial.seed, area=area_of
            ),
        )
        parts = profiler.map.heads()
        softmax = [
            ("softmax", *part[1:3], floor, part[4]) for part in parts if part[0] == "softmax"
        ]
        phi = ClusterMap([*softmax, *parts[len(softmax) :]]).phi
        test = phi(trial.test)
        entries[name].append(float((test > 0).sum(axis=1).mean()))
        profiles = profiler.profile(profiler.observe(phi(trial.validation), trial.losses))
        return test.astype(np.float64) @ profiles.psi

    return evaluate.Method(name, predict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        entries: dict[str, list[float]] = defaultdict(list)
        methods = [method(floor, entries) for floor in FLOORS]
        print(
            evaluate.run_trials(
                datasets.load(folder), methods, trials=arguments.trials, reference="0"
            )
        )
        kept = ", ".join(f"{name}: {np.mean(counts):.1f}" for name, counts in entries.items())
        print(f"mean number of clusters kept, by floor: {kept}\n")


if __name__ == "__main__":
    main()
