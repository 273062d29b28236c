"""Text to model on real prompts: one at a time from Python, and in batches on one and two threads.

    python bench/route.py ../shared/data/mmlu_pro

Profiles and costs of the pool are drawn at random: what a decision costs depends on how many LLMs
there are, not on how good they are.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets


def percentiles(router: uf.Router, texts: list[str], calls: int = 40_000) -> tuple[float, float]:
    """Return the median and the 99th percentile of single calls, in microseconds."""
    clock = time.perf_counter_ns
    taken = np.empty(calls)
    for i in range(calls):
        text = texts[i % len(texts)]
        start = clock()
        router.route(text, 0.1)
        taken[i] = clock() - start
    median, slow = np.percentile(taken, [50, 99]) / 1e3
    return median, slow


def rate(router: uf.Router, texts: list[str], threads: int, runs: int = 9) -> float:
    """Return prompts per second, the median of `runs` batches."""
    uf.set_num_threads(threads)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        router.route_batch(texts, 0.1)
        taken.append(time.perf_counter() - start)
    return len(texts) / float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--models", type=int, default=1000)
    arguments = parser.parse_args()
    outcomes = datasets.load(arguments.folder)
    texts = list(outcomes.texts)
    block = outcomes.complete_block()
    seen = uf.Outcomes((1 - block.scores)[:, ::2], costs=block.costs[::2])
    embedder = uf.LexicalEmbedder.fit(texts)
    routers = {
        "hard map, K 64": uf.Router.fit(texts, embedder=embedder, n_clusters=64),
        "soft map, K 64": uf.Router.fit(block.texts, embedder=embedder, n_clusters=64, seen=seen),
        "soft map, default": uf.Router.fit(block.texts, embedder=embedder, seen=seen),
    }
    rng = np.random.default_rng(0)
    names = [f"llm-{i}" for i in range(arguments.models)]
    uf.show_versions()
    mean = np.mean([len(text.encode()) for text in texts])
    print(f"\n{len(texts):,} prompts of {mean:.0f} bytes on average, {len(names):,} LLMs")
    print(f"{'':20}{'p50 us':>8}{'p99 us':>8}{'1 thread/s':>12}{'2 threads/s':>12}{'ratio':>7}")
    for name, router in routers.items():
        shape = (router.n_clusters, len(names))
        router.insert(names, rng.random(len(names)), rng.random(shape, dtype=np.float32))
        median, slow = percentiles(router, texts)
        one, two = rate(router, texts, 1), rate(router, texts, 2)
        print(f"{name:20}{median:8.2f}{slow:8.2f}{one:12,.0f}{two:12,.0f}{two / one:7.2f}")


if __name__ == "__main__":
    main()
