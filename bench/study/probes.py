"""Suggested probes against random ones: ``python bench/study/probes.py --trials 20``.

The unseen LLMs are profiled from as few labels, on prompts of the training and validation parts
that `Router.suggest_probes` would name, or that are drawn at random.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import trials

from uniroute_fast.evaluate import area, deferral_curve
from uniroute_fast.evaluate.baselines import fitted
from uniroute_fast.evaluate.table import sign_test
from uniroute_fast.evaluate.trial import Trial
from uniroute_fast.profiles.probes import choose_probes

#: Random draws that are averaged in each trial.
DRAWS = 5


def areas_of(trial: Trial, labels: int) -> tuple[float, float]:
    """Return the Area with suggested probes, and the mean Area over random ones."""
    assert trial.train_losses is not None
    assert trial.test_losses is not None
    prompts = np.vstack([trial.train, trial.validation])
    losses = np.vstack([trial.train_losses, trial.losses])
    profiler, keys = fitted(trial)
    phi, test = profiler.map.phi(prompts), profiler.map.phi(trial.test).astype(np.float64)

    def judge(rows: np.ndarray) -> float:
        evidence = profiler.observe(phi[rows], losses[rows], keys=keys[rows])
        predicted = test @ profiler.profile(evidence).psi
        return area(deferral_curve(predicted, 1 - trial.test_losses, trial.costs), trial.costs)

    suggested, _ = choose_probes(profiler, profiler.features(phi, keys), labels)
    rng = np.random.default_rng(trial.seed)
    random = [judge(rng.permutation(len(prompts))[:labels]) for _ in range(DRAWS)]
    return judge(suggested), float(np.mean(random))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        found = []
        for trial in trials(name, arguments.seed, arguments.trials):
            found.append(areas_of(trial, arguments.labels))
        suggested, random = np.array(found).T
        wins, losses, _, p = sign_test(suggested, random)
        print(
            f"{name}, {arguments.labels} labels: suggested {suggested.mean():.4f}, random "
            f"{random.mean():.4f}, gain {np.mean(suggested - random):+.4f}; {wins} of "
            f"{wins + losses} trials better, sign test p = {p:.3g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
