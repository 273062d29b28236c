"""How often 90% intervals of cluster losses hold the truth: ``python bench/study/intervals.py``.

The truth is an unseen LLM's mean loss over the test prompts of a cluster, itself a sample: its own
error is added to the profile's.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import SETS, trials

from uniroute_fast.evaluate import Trial
from uniroute_fast.evaluate.baselines import fitted
from uniroute_fast.profiles.heads import head_posteriors
from uniroute_fast.profiles.intervals import cluster_errors, coverage
from uniroute_fast.profiles.profilers import BayesProfiler


def errors_of(trial: Trial) -> tuple[np.ndarray, float]:
    """Return `cluster_errors` of the unseen LLMs on the test prompts, and the inflation in use."""
    profiler, keys = fitted(trial)
    assert isinstance(profiler, BayesProfiler)
    assert trial.test_losses is not None
    phi, sizes = profiler.map.phi, profiler.map.sizes
    evidence = profiler.observe(phi(trial.validation), trial.losses, keys=keys[len(trial.train) :])
    posteriors = head_posteriors(evidence, sizes, profiler.priors, profiler.spread)
    errors = cluster_errors(posteriors, sizes, phi(trial.test), trial.test_losses, evidence.mean)
    return errors, profiler.inflation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets:
        plain, honest, inflated = [], [], []
        for trial in trials(name, arguments.seed, arguments.trials):
            errors, factor = errors_of(trial)
            plain.append(coverage(errors))
            honest.append(coverage(errors, factor))
            inflated.append(factor)
        print(
            f"{name}: 90% intervals hold {np.mean(honest):.1%} "
            f"({np.mean(plain):.1%} before inflation by {np.mean(inflated):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
