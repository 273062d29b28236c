"""What is left to gain, and from where: ``python bench/study/limits.py [--trials 20]``.

The default method beside itself with what nobody can know: the unseen LLMs' mean losses from all
training labels, their profiles from these, and a prior that was fitted to them, too. Then how much
of an unseen LLM's losses is explained by the clusters, by the factors of known prompts beside them,
and by the outcomes of all seen LLMs (60 at most) on the same prompt in place of these: what labels
could be weighed against at best.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from sets import SETS, trials

from uniroute_fast.evaluate import area, deferral_curve
from uniroute_fast.evaluate.baselines import fitted
from uniroute_fast.evaluate.trial import Trial
from uniroute_fast.profiles.bayes import fit_priors
from uniroute_fast.profiles.known_prompts import KnownPrompts
from uniroute_fast.profiles.profilers import BayesProfiler

#: Seen LLMs whose outcomes explain others': more would be as many as there are prompts.
MOST_SEEN = 60

#: Added to the squares of features, some of which depend on each other.
RIDGE = 1e-3


def limits(trial: Trial) -> tuple[dict[str, float], dict[str, float]]:
    """Return gains in Area by what is known, and shares of variance by what explains it."""
    assert trial.train_losses is not None
    profiler, keys = fitted(trial)
    assert isinstance(profiler, BayesProfiler)
    prompts = np.vstack([trial.train, trial.validation])
    losses = np.vstack([trial.train_losses, trial.losses])
    seen = np.vstack([trial.seen_train, trial.seen_validation])
    phi, test = profiler.map.phi(prompts), profiler.map.phi(trial.test).astype(np.float64)
    labelled = np.arange(len(trial.train), len(prompts))

    def predict(by: BayesProfiler, rows: np.ndarray) -> np.ndarray:
        evidence = by.observe(phi[rows], losses[rows], keys=keys[rows])
        return test @ by.profile(evidence).psi

    def judge(predicted: np.ndarray) -> float:
        return area(deferral_curve(predicted, 1 - trial.test_losses, trial.costs), trial.costs)

    usual = predict(profiler, labelled)
    informed = predict(replace(profiler, trust=1.0), np.arange(len(prompts)))
    priors, factors = fit_priors(phi, profiler.map.sizes, np.hstack([seen, losses]))
    told = replace(
        profiler, priors=priors, known=KnownPrompts(keys, factors.astype(np.float32)), trust=1.0
    )
    base = judge(usual)
    gains = {
        "mean losses known": judge(usual - usual.mean(axis=0) + informed.mean(axis=0)) - base,
        "all training labels": judge(informed) - base,
        "prior fitted to them, too": judge(predict(told, labelled)) - base,
    }
    features = profiler.features(phi, keys)
    explained = {
        "clusters": share_explained(phi, losses),
        "and factors": share_explained(features, losses),
        "or all seen LLMs": share_explained(np.hstack([phi, seen[:, :MOST_SEEN]]), losses),
    }
    return gains, explained


def share_explained(features: np.ndarray, losses: np.ndarray) -> float:
    """Return the mean share of LLMs' variance that a linear fit on features explains."""
    x = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    fit = x @ np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ losses)
    return float(1 - ((losses - fit).var(axis=0) / losses.var(axis=0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--sets", nargs="*", default=[s for s in SETS if s != "metabench"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        found = [limits(trial) for trial in trials(name, arguments.seed, arguments.trials)]
        for what in found[0][0]:
            gain = np.array([gains[what] for gains, _ in found])
            error = 2 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
            print(f"{name}, {what}: {gain.mean():+.4f} ± {error:.4f} of Area")
        shares = [
            f"{what} {np.mean([explained[what] for _, explained in found]):.3f}"
            for what in found[0][1]
        ]
        print(f"{name}, share of variance explained: {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
