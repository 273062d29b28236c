"""Drift on real prompts: false alarms, how soon foreign prompts are flagged, what counting costs.

    python bench/drift.py [--data ../shared/data] [--sets zeroeval mmlu_pro] [--windows 100]

For each set: a router fitted on half of the prompts, and windows of 500 of the other half: how many
raise an alarm, and how close the closest comes. Then, for every task of at least 200 prompts, a
router fitted without it: windows in which the task is 100%, 30% or 10% of the prompts, and how many
prompts a stream of that task alone takes to be flagged, looked at every 50 prompts. Last, the
median time of `route` with and without the counters, in turns.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets

WINDOW = 500


def false_alarms(texts: list[str], windows: int) -> tuple[int, float]:
    """Return how many windows raise an alarm, and the largest share of a threshold reached."""
    rng = np.random.default_rng(0)
    fitted, new = np.split(rng.permutation(len(texts)), [len(texts) // 2])
    router = uf.Router.fit([texts[i] for i in fitted])
    alarms, closest = 0, 0.0
    for _ in range(windows):
        report = router.drift([texts[i] for i in rng.choice(new, WINDOW, replace=False)])
        alarms += report.alarm
        shares = [report.psi / report.psi_threshold] + [
            abs(shift.deviations) / shift.threshold for shift in (report.distance, report.coverage)
        ]
        closest = max(closest, *shares)
    return alarms, closest


def left_out(texts: list[str], tasks: np.ndarray, task: str, seed: int) -> tuple[list[bool], int]:
    """Return whether mixtures of 100%, 30% and 10% are flagged, and prompts until the task is."""
    rng = np.random.default_rng(seed)
    own = rng.permutation(np.flatnonzero(tasks == task))
    others = rng.permutation(np.flatnonzero(tasks != task))
    fitted, new = np.split(others, [len(others) * 3 // 4])
    router = uf.Router.fit([texts[i] for i in fitted])
    flagged = []
    for share in (1.0, 0.3, 0.1):
        foreign = rng.choice(own, int(share * WINDOW))
        rest = rng.choice(new, WINDOW - len(foreign), replace=False)
        window = [texts[i] for i in np.concatenate([foreign, rest])]
        flagged.append(router.drift(window).alarm)
    for n in range(50, min(WINDOW, len(own)) + 1, 50):
        if router.drift([texts[i] for i in own[:n]]).alarm:
            return flagged, n
    return flagged, 0


def overhead(texts: list[str]) -> tuple[float, float]:
    """Return the median microseconds of `route` with the counters and without."""
    counting = uf.Router.fit(texts, n_clusters=64)
    names = [f"llm-{i}" for i in range(1000)]
    rng = np.random.default_rng(0)
    counting.insert(names, rng.random(1000), rng.random((64, 1000)))
    bare = uf.Router.fit(texts, n_clusters=64)
    bare.insert(names, counting.costs, counting.profiles)
    bare.drop_baseline()
    clock, taken = time.perf_counter_ns, np.empty((2, 60, 500))
    for turn in range(60):
        for i, router in enumerate((counting, bare)):
            for j in range(500):
                text = texts[(turn * 500 + j) % len(texts)]
                start = clock()
                router.route(text, 0.1)
                taken[i, turn, j] = clock() - start
    with_counters, without = np.median(taken, axis=(1, 2)) / 1e3
    return float(with_counters), float(without)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("UNIROUTE_DATA", Path(__file__).parent.parent.parent / "shared/data")
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--sets", nargs="+", default=["zeroeval", "mmlu_pro"])
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--overhead", action="store_true", help="measure the overhead alone")
    arguments = parser.parse_args()
    for name in arguments.sets:
        data = datasets.load(arguments.data / name)
        texts, tasks = list(data.texts), np.array(data.tasks)
        if not arguments.overhead:
            alarms, closest = false_alarms(texts, arguments.windows)
            print(f"{name}: {alarms} false alarms in {arguments.windows}, at most {closest:.0%}")
            kinds, counts = np.unique(tasks, return_counts=True)
            for seed, task in enumerate(kinds[counts >= 200]):
                flagged, n = left_out(texts, tasks, task, seed)
                marks = ["flagged" if one else "no" for one in flagged]
                print(f"  without {task:32} 100%: {marks[0]}  30%: {marks[1]}  10%: {marks[2]}  "
                      f"alone after {n or 'never'}")  # fmt: skip
        with_counters, without = overhead(texts)
        print(f"  route: {with_counters:.2f} us counting, {without:.2f} us not")


if __name__ == "__main__":
    main()
