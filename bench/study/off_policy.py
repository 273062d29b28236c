"""Do estimates from explored logs hold the truth? ``python bench/study/off_policy.py``.

A router whose LLMs have 100 labels each explores on prompts drawn, with replacement, from those it
was not fitted on. From each log of 1,000 answers the loss of two other rules is estimated: another
router, with 400 labels for each LLM, and the single LLM that it finds best. The truth is what they
score on all those prompts. Prints how often it lies within two standard errors, and how large these
are, beside that of 1,000 answers by the rule itself.
"""

from __future__ import annotations

import argparse

import numpy as np
from sets import complete

import uniroute_fast as uf
from uniroute_fast.evaluate import off_policy, random_split

FEW, MANY, LOG = 100, 400, 1000
ESTIMATORS = ("ips", "self_normalised", "doubly_robust")


def population(
    dataset: uf.datasets.Dataset, seed: int, explorer: uf.Explorer
) -> tuple[np.ndarray, ...]:
    """Return losses, predicted losses and draw probabilities [N, M], and two rules [N]."""
    split = random_split(dataset, seed, MANY, shares=(0.5, 0.1))
    texts, own = np.array(dataset.texts, dtype=object), dataset.losses[:, split.unseen]
    seen = uf.Outcomes(dataset.losses[np.ix_(split.train, split.seen)])
    fitted = uf.Router.fit(list(texts[split.train]), seen=seen, seed=seed)
    names = [f"m{i}" for i in range(len(split.unseen))]
    bare = fitted.to_bytes()
    routers = []
    for n in (FEW, MANY):
        router = uf.Router.from_bytes(bare)
        rows = split.validation[:n]
        router.add_models(names, dataset.costs[split.unseen], list(texts[rows]), own[rows])
        routers.append(router)
    logging, other = routers
    prompts = list(texts[split.test])
    weight = other.calibrate(prompts, quality_drop=0.01, n_bootstrap=1).cost_weight
    drawn = np.zeros((len(prompts), len(names)))
    for i, text in enumerate(prompts):
        for index, probability in explorer.route(logging, text, weight).probabilities.items():
            drawn[i, index] = probability
    routed = other.route_batch(prompts, weight).index.astype(int)
    single = np.full(len(prompts), other.predict_loss(prompts).mean(axis=0).argmin())
    return own[split.test], logging.predict_loss(prompts), drawn, routed, single


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--uniform", type=float, default=0.2)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        # Every LLM within the guard, for every rule to be judged on every prompt.
        explorer = uf.Explorer(within=np.inf, uniform=arguments.uniform, seed=arguments.seed)
        losses, predicted, drawn, *rules = population(complete(name), arguments.seed, explorer)
        rng, rows = np.random.default_rng(arguments.seed), np.arange(len(losses))
        for rule, choice in zip(("another router", "a single LLM"), rules, strict=True):
            truth = losses[rows, choice]
            inside: dict[str, list[bool]] = {e: [] for e in ESTIMATORS}
            errors: dict[str, list[float]] = {e: [] for e in ESTIMATORS}
            for _ in range(arguments.runs):
                log = rng.integers(len(losses), size=LOG)
                chosen = (drawn[log].cumsum(axis=1) > rng.random((LOG, 1))).argmax(axis=1)
                found = off_policy(
                    choice[log], chosen, losses[log, chosen], drawn[log, chosen], predicted[log]
                )
                for estimator in ESTIMATORS:
                    estimate = getattr(found, estimator)
                    miss = abs(estimate.value - truth.mean())
                    inside[estimator].append(miss <= 2 * estimate.standard_error)
                    errors[estimator].append(estimate.standard_error)
            told = "; ".join(
                f"{e} {np.mean(inside[e]):.1%} within 2 SE, SE {np.mean(errors[e]):.4f}"
                for e in ESTIMATORS
            )
            by_itself = truth.std() / np.sqrt(LOG)
            print(f"{name}, {rule}: {told}; SE of the rule's own answers {by_itself:.4f}")


if __name__ == "__main__":
    main()
