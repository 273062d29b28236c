"""Time of one decision with and without constraints, over a pool of 10,000 models.

    python bench/constraints.py [--models 10000] [--clusters 64]

Prints median and 99th percentile per call, from Python, single thread, text in. The prompts and
the pool are made up; the time depends on sizes alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import uniroute_fast as uf


def make_router(models: int, clusters: int) -> tuple[uf.Router, list[str]]:
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(3000)]
    texts = [" ".join(rng.choice(words, 40)) for _ in range(2000)]
    embedder = uf.LexicalEmbedder.fit(texts, dim=64)
    x = embedder.embed(texts)
    router = uf.Router(embedder, [("nearest", x[:clusters])])
    names = [f"provider{i % 20}/m{i}" for i in range(models)]
    costs = rng.lognormal(size=models)
    router.insert(names, costs, rng.random((clusters, models)))
    for i, name in enumerate(names):
        tags = [f"region:{'eu' if i % 2 else 'us'}", f"licence:l{i % 5}"]
        tags += ["tools"] * (i % 3 > 0) + ["modality:image"] * (i % 4 > 0)
        length = 2 ** int(rng.integers(12, 18))
        router.set_metadata(name, tags=tags, context_length=length, latency=float(rng.random()))
    return router, texts


def timed(call: Callable[[str], object], texts: list[str], rounds: int) -> tuple[float, float]:
    """Return median and 99th percentile, in microseconds."""
    times = np.empty(rounds)
    for text in texts[:200]:
        call(text)
    for i in range(rounds):
        text = texts[i % len(texts)]
        start = time.perf_counter_ns()
        call(text)
        times[i] = time.perf_counter_ns() - start
    return float(np.median(times)) / 1e3, float(np.percentile(times, 99)) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20_000)
    arguments = parser.parse_args()
    router, texts = make_router(arguments.models, arguments.clusters)
    everything = uf.Constraints(
        deny=["provider3/*"],
        require_tags=["tools", "modality:image", ("region:eu", "region:uk")],
        forbid_tags=["licence:l4"],
        max_cost=3.0,
        max_latency=0.8,
        fit_context=True,
        answer_tokens=5000,
    )
    cases: list[tuple[str, Callable[[str], object]]] = [
        ("none", lambda text: router.route(text, 0.1)),
        ("none, again", lambda text: router.route(text, 0.1)),
        ("all", lambda text: router.route(text, 0.1, constraints=everything)),
        ("deny one", lambda text: router.route(text, 0.1, constraints=uf.Constraints(deny=["x"]))),
    ]
    print(f"{arguments.models} models, {arguments.clusters} clusters, {uf._native.isa()}")
    print(f"{'constraints':12} {'median us':>10} {'p99 us':>10}")
    for name, call in cases:
        median, tail = timed(call, texts, arguments.rounds)
        print(f"{name:12} {median:10.2f} {tail:10.2f}")


if __name__ == "__main__":
    main()
