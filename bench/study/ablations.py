"""What each part is worth: ``python bench/study/ablations.py --trials 10``.

The default method; with a single number of clusters; with clusters so sharp that they are hard;
with 24 learned clusters beside its own; without the prior; with embeddings that say nothing; with
other dimensions of the embedding.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import numpy as np
from sets import SETS, complete, embed

from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.evaluate import Split, area
from uniroute_fast.evaluate.baselines import uniroute, uniroute_unseen
from uniroute_fast.evaluate.learned_map import learn_map
from uniroute_fast.evaluate.methods import Method
from uniroute_fast.evaluate.trial import Trial, make_trial, random_split
from uniroute_fast.evaluate.trials import predict_curve
from uniroute_fast.profiles import fit as fitting

COUNTS, LEARNED, DIMENSIONS = (6, 24, 96), 24, (32, 128, 256)

#: A softmax as sharp as this gives all weight to the nearest centroid.
HARD = 1e4


def hard(trial: Trial) -> np.ndarray:
    """Route with hard clusters in place of soft ones."""
    usual, fitting.SHARPNESS = fitting.SHARPNESS, HARD
    try:
        return uniroute(trial)
    finally:
        fitting.SHARPNESS = usual


def learned_beside(trial: Trial) -> np.ndarray:
    """Route with clusters learned from the seen LLMs' losses beside the default ones."""
    prompts = np.vstack([trial.train, trial.validation])
    seen = np.vstack([trial.seen_train, trial.seen_validation])
    head = learn_map(prompts, seen, min(LEARNED, len(prompts) // 10), trial.seed)
    usual = fitting.ClusterMap
    fitting.ClusterMap = lambda heads: usual(
        [*heads, fitting._with_background(head, prompts).part()]
    )
    try:
        return uniroute(trial)
    finally:
        fitting.ClusterMap = usual


def random_clusters(trial: Trial) -> np.ndarray:
    """Route by embeddings drawn at random."""
    rng = np.random.default_rng(trial.seed)
    parts = {
        name: rng.normal(size=getattr(trial, name).shape).astype(np.float32)
        for name in ("train", "validation", "test")
    }
    return uniroute(replace(trial, **parts))


def methods(dataset, split: Split, seed: int, embeddings: np.ndarray) -> dict[str, tuple]:
    """Return, by name, the method and the embeddings that it is given."""
    found = {"default": (uniroute, embeddings)}
    for count in COUNTS:
        found[f"K {count}"] = (partial(uniroute, n_clusters=count), embeddings)
    found["hard"] = (hard, embeddings)
    found["learned beside"] = (learned_beside, embeddings)
    found["no prior"] = (uniroute_unseen, embeddings)
    found["random"] = (random_clusters, embeddings)
    train = [dataset.texts[i] for i in split.train]
    for dim in DIMENSIONS:
        embedder = LexicalEmbedder.fit(train, dim=dim, seed=seed)
        found[f"D {dim}"] = (uniroute, embedder.embed(list(dataset.texts)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets:
        dataset = complete(name)
        areas: dict[str, list[float]] = {}
        for seed in range(arguments.seed, arguments.seed + arguments.trials):
            split = random_split(dataset, seed)
            given = methods(dataset, split, seed, embed(dataset, split, seed))
            for method, (predict, embeddings) in given.items():
                trial = make_trial(dataset, split, embeddings, seed)
                curve = predict_curve(Method(method, predict), trial)
                areas.setdefault(method, []).append(area(curve, trial.costs))
        base = np.array(areas["default"])
        print(f"{name}: default {base.mean():.4f}; others less default, and 2 standard errors")
        for method, values in areas.items():
            gain = np.array(values) - base
            error = 2 * gain.std(ddof=1) / len(gain) ** 0.5
            print(f"  {method:14} {gain.mean():+.4f} ± {error:.4f}", flush=True)


if __name__ == "__main__":
    main()
