"""Profiles from preferences against those from labels: ``python bench/study/preferences.py``.

On each validation prompt an unseen LLM is compared with a seen one drawn at random: the right
answer wins, two right or two wrong ones are a tie. Its profile comes from these alone, by Bradley
and Terry's model in each cluster or, blind to the prompt, in one; beside it the default method,
which is told each LLM's own labels.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import trials

from uniroute_fast.evaluate import area, deferral_curve
from uniroute_fast.evaluate.baselines import fitted
from uniroute_fast.evaluate.trial import Trial
from uniroute_fast.profiles.preferences import profile_from_preferences


def areas_of(trial: Trial) -> list[float]:
    """Return Area from preferences by cluster, from preferences in one, from labels."""
    assert trial.test_losses is not None
    quality = 1 - trial.test_losses
    profiler, keys = fitted(trial)
    phi, test = profiler.map.phi(trial.validation), profiler.map.phi(trial.test)
    own = keys[len(trial.train) :]
    pool = profiler.profile(profiler.observe(phi, trial.seen_validation, keys=own))
    labelled = profiler.profile(profiler.observe(phi, trial.losses, keys=own))

    rng = np.random.default_rng(trial.seed)
    rows = np.arange(len(phi))
    one, heads = np.ones((len(phi), 1), np.float32), len(profiler.map.sizes)
    clustered, blind = [], []
    for losses in trial.losses.T:
        opponents = rng.integers(trial.seen_validation.shape[1], size=len(phi))
        wins = (1 + trial.seen_validation[rows, opponents] - losses) / 2
        given = (opponents, wins)
        clustered.append(profile_from_preferences(phi, heads, pool.psi, *given)[0])
        means = pool.mean[None].astype(np.float32)
        blind.append(profile_from_preferences(one, 1, means, *given)[0][0])
    predictions = (test @ np.stack(clustered, axis=1), np.array(blind), test @ labelled.psi)
    return [area(deferral_curve(p, quality, trial.costs), trial.costs) for p in predictions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        found = []
        for trial in trials(name, arguments.seed, arguments.trials):
            found.append(areas_of(trial))
        clustered, blind, labelled = np.mean(found, axis=0)
        print(
            f"{name}: Area from preferences {clustered:.4f}, blind to the prompt {blind:.4f}, "
            f"from labels {labelled:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
