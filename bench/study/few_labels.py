"""Area against the number of validation labels: ``python bench/study/few_labels.py``.

This package from few labels of the new LLMs, on validation prompts drawn at random or on those
among them that `Router.suggest_probes` would name, beside the paper's K-Means from many: with 24
clusters, and with as many as its protocol chooses.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from sets import complete, embed

from uniroute_fast.evaluate import Method, run_trials
from uniroute_fast.evaluate.baselines import fitted
from uniroute_fast.evaluate.table import sign_test
from uniroute_fast.evaluate.trial import Trial
from uniroute_fast.profiles.probes import choose_probes

PAIRS = {"zeroeval": (50, 635), "mmlu_pro": (100, 1200)}


def profiled(trial: Trial, labels: int, *, suggested: bool) -> np.ndarray:
    """Profile from as many validation labels: of the first prompts, or those that tell the most."""
    profiler, keys = trial.shared("fitted", lambda: fitted(trial))  # Alike for both ways.
    phi, own = profiler.map.phi(trial.validation), keys[len(trial.train) :]
    probes = np.arange(labels)
    if suggested:
        probes, _ = choose_probes(profiler, profiler.features(phi, own), labels)
    evidence = profiler.observe(phi[probes], trial.losses[probes], keys=own[probes])
    return profiler.map.phi(trial.test).astype(np.float64) @ profiler.profile(evidence).psi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, (few, many) in PAIRS.items():
        ours = [
            Method(how, partial(profiled, labels=few, suggested=how == "suggested"))
            for how in ("drawn", "suggested")
        ]
        table = run_trials(
            complete(name),
            ["zero_router", "kmeans", "kmeans_tuned", *ours],
            arguments.trials,
            many,
            arguments.seed,
            embed=embed,
        )
        print(table, flush=True)
        areas = {method: found[:, 0] for method, found in table.figures.items()}
        for how in ("drawn", "suggested"):
            for peer in ("kmeans", "kmeans_tuned"):
                gain = areas[how] - areas[peer]
                wins, losses, _, p = sign_test(areas[how], areas[peer])
                error = 2 * gain.std(ddof=1) / np.sqrt(len(gain))
                print(
                    f"{name}: {few} labels, {how}, {areas[how].mean():.4f}, {peer} with {many} "
                    f"{areas[peer].mean():.4f}: {gain.mean():+.4f} (2 SE {error:.4f}), "
                    f"better in {wins} of {wins + losses}, p = {p:.2g}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
