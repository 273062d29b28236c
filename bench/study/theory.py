"""The bound on the excess risk, and a cost weight carried over: ``python bench/study/theory.py``.

Prop. 2 of the paper bounds the risk of the cluster rule, less that of the best rule, by what its
proof makes 2 Delta, Delta the mean over prompts of the largest difference between an LLM's chance
to fail on the prompt and in its cluster. Chances are not observed: here they are the predictions of
the clairvoyant factorisation, kept in [0, 1], on the test prompts.

A cost weight that spends half of the budget's range on the seen LLMs is then used on the unseen
ones: how far from half of *their* range do they end up?
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import SETS, trials

from uniroute_fast.clusters.kmeans import kmeans
from uniroute_fast.clusters.nearest import nearest_centroid
from uniroute_fast.evaluate.baselines import clairvoyant_mf
from uniroute_fast.evaluate.deferral import area_of
from uniroute_fast.evaluate.trial import Trial
from uniroute_fast.profiles.fit import fit_profiler

N_CLUSTERS = 24


def bound_and_excess(trial: Trial) -> tuple[float, float]:
    """Return 2 Delta and the excess risk at cost weight 0, of clusters whose means are known."""
    chance = np.clip(clairvoyant_mf(trial), 0, 1)
    count = min(N_CLUSTERS, len(trial.train) // 10)
    labels = nearest_centroid(trial.test, kmeans(trial.train, count, trial.seed))[0]
    means = np.stack(
        [
            chance[labels == k].mean(axis=0) if (labels == k).any() else chance.mean(axis=0)
            for k in range(count)
        ]
    )[labels]
    delta = np.abs(chance - means).max(axis=1).mean()
    chosen = np.take_along_axis(chance, means.argmin(axis=1)[:, None], axis=1)
    return 2 * float(delta), float(chosen.mean() - chance.min(axis=1).mean())


def carried_weight(trial: Trial) -> float:
    """Return where in [c_min, c_max] of the unseen LLMs the seen LLMs' cost weight ends up."""
    prompts = np.vstack([trial.train, trial.validation])
    seen = np.vstack([trial.seen_train, trial.seen_validation])
    profiler = fit_profiler(prompts, seen, trial.seen_costs, seed=trial.seed, area=area_of)
    phi = profiler.map.phi(trial.validation)
    test = profiler.map.phi(trial.test)

    def share(losses: np.ndarray, costs: np.ndarray, weight: float) -> float:
        predicted = test @ profiler.profile(profiler.observe(phi, losses)).psi
        spent = costs[(predicted + weight * costs).argmin(axis=1)].mean()
        return float((spent - costs.min()) / (costs.max() - costs.min()))

    low, high = 1e-9, 1e3
    for _ in range(60):  # The share spent falls as the cost weight rises.
        middle = np.sqrt(low * high)
        if share(trial.seen_validation, trial.seen_costs, middle) > 0.5:
            low = middle
        else:
            high = middle
    return max(share(trial.losses, trial.costs, high), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets:
        rows = []
        for trial in trials(name, arguments.seed, arguments.trials):
            rows.append([*bound_and_excess(trial), carried_weight(trial)])
        bound, excess, share = np.array(rows).T
        print(
            f"{name}: bound {bound.mean():.3f}, excess risk {excess.mean():.3f}; the cost weight "
            f"for half of the range spends {share.min():.0%} to {share.max():.0%} on other LLMs",
            flush=True,
        )


if __name__ == "__main__":
    main()
