"""Routing on what prompts really cost, beside routing on one mean cost for each LLM.

    python bench/metering.py [--splits 10] [--data ../shared/data]

For each set and split: a router fitted on 60% of the prompts; profiles, mean costs and usage of
tokens learned from the logs of 400 labelled ones among them; the other 40% routed at many cost
weights, once with the mean costs and once charged by the token. Either is judged by what each
call did cost. Prints the area under the deferral curve of both (true cost, true quality), and by
how much the cost that the router predicted missed the true mean, in the median over cost weights.

bfcl logs tokens of input and output. routerbench_subset logs dollars: output tokens follow from
them, the list prices and the input tokens, which are the same for all its LLMs.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq

import uniroute_fast as uf
from uniroute_fast import datasets

#: List prices of the LLMs of RouterBench, USD per million tokens of input and of output.
ROUTERBENCH = {
    "gpt-3.5-turbo-1106": (1.0, 2.0),
    "claude-instant-v1": (0.8, 2.4),
    "claude-v1": (8.0, 24.0),
    "claude-v2": (8.0, 24.0),
    "gpt-4-1106-preview": (10.0, 30.0),
    "meta/llama-2-70b-chat": (0.9, 0.9),
    "mistralai/mixtral-8x7b-chat": (0.6, 0.6),
    "zero-one-ai/Yi-34B-Chat": (0.8, 0.8),
    "WizardLM/WizardLM-13B-V1.2": (0.3, 0.3),
    "meta/code-llama-instruct-34b-chat": (0.776, 0.776),
    "mistralai/mistral-7b-chat": (0.2, 0.2),
}


@dataclass
class Log:
    """What N calls of M LLMs used and were charged."""

    texts: list[str]
    losses: np.ndarray
    names: list[str]
    prices: np.ndarray  # [2, M]
    input_tokens: np.ndarray  # [N, M]
    output_tokens: np.ndarray

    @property
    def cost(self) -> np.ndarray:
        """USD of every call, [N, M]."""
        return (self.input_tokens * self.prices[0] + self.output_tokens * self.prices[1]) / 1e6


def read_bfcl(folder: Path) -> Log:
    data = datasets.load(folder)
    columns = ["model", "id", "input_tokens", "output_tokens"]
    table = pq.read_table(folder / "tokens.parquet", columns=columns).to_pydict()
    rows = {name: i for i, name in enumerate(data.ids)}
    models = {name: m for m, name in enumerate(data.models)}
    tokens = np.full((2, len(rows), len(models)), np.nan)
    for model, prompt, sent, answer in zip(*table.values(), strict=True):
        # Some logs of BFCL lack counts: null, or zero throughout.
        if model in models and prompt in rows and sent and answer is not None:
            tokens[:, rows[prompt], models[model]] = sent, answer
    listed = pyarrow.csv.read_csv(folder / "models.csv").to_pydict()
    prices = {
        name: prices
        for name, *prices in zip(
            listed["model"], listed["usd_per_1M_input"], listed["usd_per_1M_output"], strict=True
        )
    }
    known = ~np.isnan(tokens[0]).any(axis=0) & ~np.isnan(data.losses).any(axis=0)
    names = [name for name, ok in zip(data.models, known, strict=True) if ok]
    return Log(
        list(data.texts),
        data.losses[:, known],
        names,
        np.array([prices[name] for name in names], dtype=float).T,
        *tokens[:, :, known],
    )


def read_routerbench(folder: Path) -> Log:
    data = datasets.load(folder)
    table = pq.read_table(folder / "costs.parquet").to_pydict()
    at = {name: i for i, name in enumerate(table["id"])}
    order = [at[name] for name in data.ids]
    cost = np.array([np.asarray(table[name], float)[order] for name in data.models]).T
    whole = ~(np.isnan(cost) | np.isnan(data.losses)).any(axis=1)
    texts = [text for text, ok in zip(data.texts, whole, strict=True) if ok]
    cost, losses = cost[whole], data.losses[whole]
    prices = np.array([ROUTERBENCH[name] for name in data.models]).T
    # Whoever answers least has been charged for little beside the prompt.
    sent = (1e6 * cost / prices[0]).min(axis=1)
    answers = np.maximum((1e6 * cost - sent[:, None] * prices[0]) / prices[1], 0.0)
    sent_all = np.repeat(sent[:, None], len(data.models), axis=1)
    return Log(texts, losses, list(data.models), prices, sent_all, answers)


def routers(log: Log, fitted: np.ndarray, seed: int) -> tuple[uf.Router, uf.Router]:
    """Return a router of mean costs, and one that is charged by the token."""
    router = uf.Router.fit([log.texts[i] for i in fitted], seed=seed)
    labelled = fitted[:400]
    texts = [log.texts[i] for i in labelled]
    names, mean = log.names, log.cost[labelled].mean(axis=0)
    router.add_models(names, mean, texts, log.losses[labelled])
    metered = uf.Router(router.embedder, router.heads())
    metered.insert(names, mean, router.profiles)
    for name, (price_in, price_out) in zip(names, log.prices.T, strict=True):
        metered.set_metadata(name, input_price=price_in, output_price=price_out)
    metered.fit_tokens(texts, log.output_tokens[labelled], input_tokens=log.input_tokens[labelled])
    return router, metered


def judge(router: uf.Router, log: Log, new: np.ndarray) -> tuple[float, float]:
    """Return the area under the curve of true cost and quality, and the miss of predicted cost."""
    texts, rows = [log.texts[i] for i in new], np.arange(len(new))
    cost, loss = log.cost[new], log.losses[new]
    low, high = cost.mean(axis=0).min(), cost.mean(axis=0).max()
    points, misses = [], []
    for weight in np.concatenate([[0.0], np.geomspace(0.01, 1e4, 60) / high]):
        routed = router.route_batch(texts, weight)
        ok = routed.ok
        chosen = routed.index[ok]
        paid = cost[rows[ok], chosen].mean()
        points.append((paid, 1 - loss[rows[ok], chosen].mean()))
        misses.append(abs(routed.cost[ok].mean() / paid - 1))
    points.sort()
    x, y = np.array(points).T
    grid = np.linspace(low, high, 2000)
    # What a budget buys: the best point within it.
    quality = np.maximum.accumulate(y)[np.maximum(np.searchsorted(x, grid, "right") - 1, 0)]
    return float(quality.mean()), float(np.median(misses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("UNIROUTE_DATA", Path(__file__).parent.parent.parent / "shared/data")
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--splits", type=int, default=10)
    arguments = parser.parse_args()
    head = (
        "LLMs  area mean costs  by the token  difference (2 SE)  better in  miss mean  miss token"
    )
    print(f"{'set':20} {head}")
    for name, read in (("bfcl", read_bfcl), ("routerbench_subset", read_routerbench)):
        log = read(arguments.data / name)
        results = []
        for seed in range(arguments.splits):
            order = np.random.default_rng(seed).permutation(len(log.texts))
            fitted, new = np.split(order, [int(0.6 * len(order))])
            results.append([judge(router, log, new) for router in routers(log, fitted, seed)])
        area, miss = np.array(results).transpose(2, 0, 1)
        gain = area[:, 1] - area[:, 0]
        error = 2 * gain.std(ddof=1) / np.sqrt(len(gain))
        print(
            f"{name:20} {len(log.names):4}  {area[:, 0].mean():15.4f}  {area[:, 1].mean():12.4f}  "
            f"{gain.mean():+10.4f} ({error:.4f})  {(gain > 0).sum():4}/{len(gain)}  "
            f"{miss[:, 0].mean():9.1%}  {miss[:, 1].mean():10.1%}"
        )


if __name__ == "__main__":
    main()
