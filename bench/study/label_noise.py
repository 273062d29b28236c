"""Validation labels that are wrong at a known rate: ``python bench/study/label_noise.py``.

Each label of the unseen LLMs is flipped with that probability. Area of the default method without
correction and with it (``flip_rate`` of `Router.add_models`).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from sets import trials

from uniroute_fast.evaluate import area, deferral_curve
from uniroute_fast.evaluate.baselines import zero_router
from uniroute_fast.evaluate.deferral import area_of
from uniroute_fast.evaluate.trial import Trial
from uniroute_fast.profiles.fit import fit_profiler
from uniroute_fast.profiles.label_noise import without_flips

RATES = (0.0, 0.1, 0.2, 0.3)


def figures(trial: Trial) -> np.ndarray:
    """Return, by rate: Area of ZeroRouter, uncorrected, corrected; error of levels of these two."""
    assert trial.test_losses is not None
    prompts = np.vstack([trial.train, trial.validation])
    seen = np.vstack([trial.seen_train, trial.seen_validation])
    keys = np.arange(len(prompts), dtype=np.uint64)
    profiler = fit_profiler(
        prompts, seen, trial.seen_costs, keys=keys, seed=trial.seed, area=area_of
    )
    phi, test = profiler.map.phi(trial.validation), profiler.map.phi(trial.test).astype(np.float64)
    draws = np.random.default_rng(trial.seed).random(trial.losses.shape)
    quality, truth = 1 - trial.test_losses, trial.test_losses.mean(axis=0)
    rows = []
    for rate in RATES:
        labels = np.where(draws < rate, 1 - trial.losses, trial.losses)
        evidence = profiler.observe(phi, labels, keys=keys[len(trial.train) :])
        corrected = without_flips(evidence, rate, discount=not profiler.joint)
        blind = zero_router(replace(trial, losses=labels))
        predicted = [test @ profiler.profile(e).psi for e in (evidence, corrected)]
        curves = [deferral_curve(p, quality, trial.costs) for p in (blind, *predicted)]
        areas = [area(curve, trial.costs) for curve in curves]
        rows.append(areas + [np.abs(p.mean(axis=0) - truth).mean() for p in predicted])
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        found = []
        for trial in trials(name, arguments.seed, arguments.trials):
            found.append(figures(trial))
        for rate, row in zip(RATES, np.mean(found, axis=0), strict=True):
            print(
                f"{name}, {rate:.0%} flipped: Area of ZeroRouter {row[0]:.4f}, uncorrected "
                f"{row[1]:.4f}, corrected {row[2]:.4f}; levels off by {row[3]:.3f}, {row[4]:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
