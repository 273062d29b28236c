"""Routing a task that was in neither training nor validation: ``bench/study/left_out_task.py``.

Each task in turn is left out; the others are split into training and validation, and all prompts of
the left-out task are routed among the unseen LLMs.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import complete, embed

from uniroute_fast.datasets import Dataset
from uniroute_fast.evaluate import METHODS, Split, area
from uniroute_fast.evaluate.trial import make_trial
from uniroute_fast.evaluate.trials import predict_curve


def split_without(dataset: Dataset, task: str, seed: int, n_val: int = 400) -> Split:
    """Leave one task out for testing; 6/7 of the other prompts train, the rest may validate."""
    rng = np.random.default_rng(seed)
    tasks = np.array(dataset.tasks)
    others = rng.permutation(np.flatnonzero(tasks != task))
    models = rng.permutation(len(dataset.models))
    n_train, n_seen = round(len(others) * 6 / 7), round(len(models) * 2 / 3)
    return Split(
        others[:n_train],
        others[n_train : n_train + n_val],
        np.flatnonzero(tasks == task),
        models[:n_seen],
        models[n_seen:],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    parser.add_argument(
        "--methods", nargs="*", default=["zero_router", "knn", "hierarchical", "uniroute"]
    )
    arguments = parser.parse_args()
    for name in arguments.sets:
        dataset = complete(name)
        tasks = sorted(set(dataset.tasks))
        areas = np.zeros((len(tasks), arguments.trials, len(arguments.methods)))
        for i, task in enumerate(tasks):
            for t in range(arguments.trials):
                seed = arguments.seed + t
                split = split_without(dataset, task, seed)
                # The seed that names the cached embedding tells tasks apart.
                embeddings = embed(dataset, split, 1_000_000 + 1_000 * i + seed)
                trial = make_trial(dataset, split, embeddings, seed)
                for m, method in enumerate(arguments.methods):
                    areas[i, t, m] = area(predict_curve(METHODS[method], trial), trial.costs)
        gain = areas - areas[:, :, :1]
        print(f"{name}: {len(tasks)} tasks left out in turn, {arguments.trials} trials each")
        for m, method in enumerate(arguments.methods):
            by_trial = gain[:, :, m].mean(axis=0)
            error = 2 * by_trial.std(ddof=1) / len(by_trial) ** 0.5 if len(by_trial) > 1 else np.nan
            print(
                f"  {method:14} Area {areas[:, :, m].mean():.4f}  "
                f"v {arguments.methods[0]} {by_trial.mean():+.4f} ± {error:.4f}",
                flush=True,
            )
        by_task = gain[:, :, -1].mean(axis=1)
        print(f"  {arguments.methods[-1]} by task:", end=" ")
        print(", ".join(f"{t} {g:+.4f}" for t, g in zip(tasks, by_task, strict=True)), flush=True)


if __name__ == "__main__":
    main()
