"""Measure this machine: text to model, and batches against NumPy and faiss in the same run.

Prompts, LLMs and vectors are made up. Peers are given the same work on the same vectors: nearest
centroid, then a look-up of the cluster's best LLM. Every figure is the median of several runs that
take turns, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.cli.output import add_json, columns, report

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uniroute_fast import Router

CLUSTERS, MODELS, DIM = 256, 1000, 128
COST_WEIGHT = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--prompts", type=int, default=20_000, metavar="N", help="default: 20000")
    parser.add_argument("--runs", type=int, default=7, metavar="R", help="default: 7")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Measure and report."""
    from uniroute_fast.errors import InvalidArgumentError

    if args.prompts < 1000 or args.runs < 1:
        raise InvalidArgumentError(
            f"--prompts: {args.prompts}, --runs: {args.runs}; expected at least 1000 and 1"
        )
    router, texts = _made_up(args.prompts)
    figures: dict[str, Any] = {
        "machine": machine(),
        "made_up": {
            "prompts": len(texts),
            "mean_bytes": sum(len(text.encode()) for text in texts) / len(texts),
            "clusters": router.n_clusters,
            "dim": router.dim,
            "models": len(router.models),
        },
        "one_prompt_us": one_prompt(router, texts),
        "prompts_per_second": batches(router, texts, args.runs),
    }
    report(args.json, figures, _text(figures))


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    from uniroute_fast._versions import versions

    return {"cpu": _cpu(), "cores": str(len(os.sched_getaffinity(0))), **versions()}


def one_prompt(router: Router, texts: list[str]) -> dict[str, float]:
    """Return microseconds that `route` takes for one text: median and 99th percentile."""
    taken = []
    for text in texts[:5000]:
        start = time.perf_counter_ns()
        router.route(text, COST_WEIGHT)
        taken.append(time.perf_counter_ns() - start)
    median, p99 = np.percentile(taken, [50, 99]) / 1000
    return {"median": float(median), "p99": float(p99)}


def batches(router: Router, texts: list[str], runs: int) -> dict[str, float]:
    """Return prompts per second of `route_batch`, from texts and from vectors, and of peers."""
    x = router.embedder.embed(texts)
    centroids = np.ascontiguousarray(router.heads()[0][1])
    objective = router.profiles.astype(np.float64) + COST_WEIGHT * router.costs
    best = objective.argmin(axis=1)

    def numpy_peer() -> NDArray[Any]:
        half = np.einsum("kd,kd->k", centroids, centroids) / 2
        labels = [(part @ centroids.T - half).argmax(axis=1) for part in np.array_split(x, 16)]
        chosen: NDArray[Any] = best[np.concatenate(labels)]
        return chosen

    contenders: dict[str, Callable[[], Any]] = {
        "text to model": lambda: router.route_batch(texts, COST_WEIGHT).index,
        "vector to model": lambda: router.route_batch(embeddings=x, cost_weight=COST_WEIGHT).index,
        "vector to model, NumPy": numpy_peer,
    }
    try:
        import faiss
    except ImportError:
        pass
    else:
        index = faiss.IndexFlatL2(centroids.shape[1])
        index.add(centroids)
        contenders["vector to model, faiss"] = lambda: best[index.search(x, 1)[1][:, 0]]

    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: len(texts) / float(np.median(taken)) for name, taken in seconds.items()}


def _made_up(n_prompts: int) -> tuple[Router, list[str]]:
    """Return a router of made-up profiles and made-up prompts, three of them to a text."""
    from uniroute_fast import LexicalEmbedder, Router
    from uniroute_fast.cli.made_up import make_dataset

    prompts = make_dataset(3 * n_prompts, n_models=3).texts
    texts = [" ".join(prompts[3 * i : 3 * i + 3]) for i in range(n_prompts)]
    sample = texts[:5000]
    embedder = LexicalEmbedder.fit(sample, dim=DIM)
    rng = np.random.default_rng(0)
    centroids = embedder.embed(sample)[rng.choice(len(sample), min(CLUSTERS, len(sample)), False)]
    router = Router(embedder, [("nearest", centroids)])
    profiles = rng.random((router.n_clusters, MODELS), dtype=np.float32)
    router.insert([f"made-up-{m}" for m in range(MODELS)], rng.random(MODELS), profiles)
    return router, texts


def _text(figures: dict[str, Any]) -> str:
    rates = figures["prompts_per_second"]
    ours = rates["vector to model"]
    rows = [
        (name, f"{rate:,.0f}", "" if name == "text to model" else f"{ours / rate:.2f}")
        for name, rate in rates.items()
    ]
    one, made_up = figures["one_prompt_us"], figures["made_up"]
    return "\n".join(
        [
            *(f"{name:<15} {value}" for name, value in figures["machine"].items()),
            "",
            f"made up: {made_up['prompts']:,} prompts of {made_up['mean_bytes']:.0f} bytes, "
            f"{made_up['clusters']} clusters, {made_up['dim']} dimensions, "
            f"{made_up['models']} LLMs",
            f"one prompt, text to model: median {one['median']:.1f} us, p99 {one['p99']:.1f} us",
            "",
            columns(("batch", "prompts/s", "ours is faster by"), rows),
        ]
    )


def _cpu() -> str:
    """Return the processor's name."""
    import platform
    from pathlib import Path

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
