"""What observed outcomes are worth: ``python bench/study/feedback.py [--trials 20]``.

A router is fitted on 35% of a set with two thirds of its LLMs; the others join with 25 labels each.
Then up to 2,000 prompts are routed, and as many outcomes are observed: one a prompt, or several on
the prompts where several LLMs are asked. Budgets are spread evenly over what can be spent, as they
are in Area. Prints the mean Area on 30% of the prompts after so many outcomes, for several ways to
choose whom to ask, beside that of 400 labels for each LLM up front, and what learning took. *Known
prompts* are those of the training set, where the seen LLMs' outcomes tell how hard a prompt is;
everything else takes prompts that no seen LLM was run on.

- regret: by how much the answers given were worse, in loss + cost weight x cost, than those of the
  LLM that looked best at the time;
- extra: the cost of answers that were asked for and not given, as a share of that of those given.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sets import complete

import uniroute_fast as uf
from uniroute_fast.evaluate import Split, area, deferral_curve, random_split

FEW, MANY, BATCH, CALIBRATE = 25, 400, 25, 250

#: Outcomes after which Area is measured.
MARKS = (500, 1000, 2000, 3000)


@dataclass
class Spent:
    """What was learned from, and what that took."""

    outcomes: int = 0
    prompts: int = 0
    regret: float = 0.0
    given: float = 0.0
    extra: float = 0.0


class Scene:
    """The LLMs that join, their outcomes, and routers to which they have been added."""

    def __init__(self, dataset: uf.datasets.Dataset, seed: int) -> None:
        n_val = round(0.35 * len(dataset.ids))
        self.split: Split = random_split(dataset, seed, n_val, shares=(0.35, 0.35))
        self.texts = np.array(dataset.texts, dtype=object)
        self.costs = dataset.costs[self.split.unseen]
        self.own = dataset.losses[:, self.split.unseen]
        train, seen = self.split.train, self.split.seen
        outcomes = uf.Outcomes(dataset.losses[np.ix_(train, seen)], costs=dataset.costs[seen])
        fitted = uf.Router.fit(list(self.texts[train]), seen=outcomes, seed=seed)
        self.bare = fitted.to_bytes()
        self.new = self.split.validation
        self.known = np.random.default_rng(seed).permutation(train)
        self.test = fitted.embedder.embed(list(self.texts[self.split.test]))

    def with_labels(self, rows: np.ndarray) -> uf.Router:
        """Return the router after labels of each LLM on these prompts."""
        router = uf.Router.from_bytes(self.bare)
        names = [f"m{i}" for i in range(len(self.costs))]
        router.add_models(names, self.costs, list(self.texts[rows]), self.own[rows])
        return router

    def area(self, router: uf.Router) -> float:
        """Return the Area on the prompts kept for that."""
        predicted = router.predict_loss(embeddings=self.test)
        curve = deferral_curve(predicted, 1 - self.own[self.split.test], self.costs)
        return area(curve, self.costs)

    def learn(
        self, explorer: uf.Explorer, draws: int, stream: np.ndarray, most: int, seed: int
    ) -> Iterator[tuple[uf.Router, Spent]]:
        """Yield the router, and what it took, after each batch of a stream of prompts."""
        router, rng, spent = self.with_labels(self.new[:FEW]), np.random.default_rng(seed), Spent()
        stream = stream[:most]
        for start in range(0, len(stream), BATCH):
            if start % CALIBRATE == 0:
                prompts = list(self.texts[self.split.train[:500]])
                frontier = router.calibrate(prompts, quality_drop=0.0, n_bootstrap=1).frontier
            batch = stream[start : start + BATCH]
            budgets = rng.uniform(1000 * self.costs.min(), 1000 * self.costs.max(), len(batch))
            at = np.searchsorted(-frontier.cost, -budgets)
            weights = frontier.cost_weight[np.minimum(at, len(frontier.cost) - 1)]
            rows: list[int] = []
            asked: list[str] = []
            for row, weight in zip(batch, weights.tolist(), strict=True):
                text = self.texts[row]
                if draws > 1:
                    comparison = explorer.compare(router, text, weight, draws=draws)
                    best, models = comparison.decision, comparison.models
                    answering = best.index
                else:
                    tried = explorer.route(router, text, weight)
                    best, models, answering = tried.decision, [tried.model], tried.index
                worth = self.own[row] + weight * self.costs
                spent.regret += worth[answering] - worth[best.index]
                spent.given += self.costs[answering]
                besides = [int(m[1:]) for m in models if int(m[1:]) != answering]
                spent.extra += self.costs[besides].sum()
                rows += [row] * len(models)
                asked += models
            # The last prompt may bring more outcomes than are left.
            rows, asked = rows[: most - spent.outcomes], asked[: most - spent.outcomes]
            outcomes = self.own[rows, [int(name[1:]) for name in asked]]
            router.observe_many(list(self.texts[rows]), asked, outcomes)
            spent.outcomes += len(rows)
            spent.prompts += len(batch)
            yield router, spent
            if spent.outcomes == most:
                return


def run(dataset: uf.datasets.Dataset, seed: int, within: float, most: int) -> dict[str, float]:
    """Return Area, and what learning took, by the way of learning."""
    scene = Scene(dataset, seed)
    found = {f"{n} labels": scene.area(scene.with_labels(scene.new[:n])) for n in (FEW, MANY)}
    found[f"{MANY} labels, known"] = scene.area(scene.with_labels(scene.known[:MANY]))
    new, known = scene.new[FEW:], scene.known
    ways = {
        "greedy": (uf.Explorer(within=0.0, seed=seed), 1, new),
        "any LLM alike": (uf.Explorer(within=np.inf, uniform=1.0, seed=seed), 1, new),
        "Thompson": (uf.Explorer(within=within, seed=seed), 1, new),
        "two draws": (uf.Explorer(within=np.inf, seed=seed), 2, new),
        "four draws": (uf.Explorer(within=np.inf, seed=seed), 4, new),
        "four draws, known": (uf.Explorer(within=np.inf, seed=seed), 4, known),
    }
    for way, (explorer, draws, stream) in ways.items():
        marks = [mark for mark in MARKS if mark < most]
        for router, spent in scene.learn(explorer, draws, stream, most, seed):
            while marks and spent.outcomes >= marks[0]:
                found[f"{way}, {marks.pop(0)}"] = scene.area(router)
        # Those that were not reached: Area does not change any more.
        for mark in (*marks, most):
            found[f"{way}, {mark}"] = scene.area(router)
        found[f"{way}: outcomes"] = spent.outcomes
        found[f"{way}: prompts"] = spent.prompts
        found[f"{way}: regret"] = spent.regret / spent.prompts
        found[f"{way}: extra"] = spent.extra / spent.given
    return found


def report(name: str, trials: list[dict[str, float]]) -> None:
    """Print means over trials, and Area against that of many labels up front."""
    for what in trials[0]:
        values = np.array([trial[what] for trial in trials])
        if ":" in what:
            print(f"{name:10} {what:26} {values.mean():.4f}", flush=True)
            continue
        gain = values - [trial[f"{MANY} labels"] for trial in trials]
        error = 2 * gain.std(ddof=1) / np.sqrt(len(gain))
        print(
            f"{name:10} {what:26} Area {values.mean():.4f}, "
            f"against {MANY} labels {gain.mean():+.4f} (2 SE {error:.4f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=0.1)
    parser.add_argument("--outcomes", type=int, default=2000)
    parser.add_argument("--sets", nargs="*", default=["zeroeval", "mmlu_pro"])
    arguments = parser.parse_args()
    for name in arguments.sets:
        dataset = complete(name)
        seeds = range(arguments.seed, arguments.seed + arguments.trials)
        trials = [run(dataset, seed, arguments.within, arguments.outcomes) for seed in seeds]
        report(name, trials)


if __name__ == "__main__":
    main()
