"""Fitting the lexical embedder on a log: seconds and peak memory.

    python bench/fit_million.py --texts 1000000

The texts are the prompts of the data sets (see ``UNIROUTE_DATA``), drawn with repetition, each with
a number of its own in front and a run of its words left out, so that no two are alike. Making them
is not timed.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import uniroute_fast as uf
from uniroute_fast import datasets

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("UNIROUTE_DATA", ROOT / ".." / "shared" / "data"))
SETS = ("mmlu_pro", "zeroeval", "bfcl")
CHUNK = 50_000


def peak_mb() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def drawn(n: int) -> pa.ChunkedArray:
    """Return texts as an Arrow column."""
    rng = np.random.default_rng(0)
    prompts = [text.split(" ") for name in SETS for text in datasets.load(DATA / name).texts]

    def chunk(start: int) -> pa.Array:
        texts = []
        for i in range(start, min(start + CHUNK, n)):
            words = prompts[rng.integers(len(prompts))]
            cut = int(rng.integers(len(words)))
            texts.append(" ".join([str(i), *words[:cut], *words[cut + len(words) // 8 :]]))
        return pa.array(texts, pa.string())

    return pa.chunked_array([chunk(start) for start in range(0, n, CHUNK)])


def main() -> None:
    """Make texts, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=1_000_000)
    arguments = parser.parse_args()
    texts = drawn(arguments.texts)
    before = peak_mb()
    print(f"{arguments.texts:,} texts of {texts.nbytes / arguments.texts:.0f} bytes on average")
    start = time.perf_counter()
    embedder = uf.LexicalEmbedder.fit(texts)
    seconds = time.perf_counter() - start
    print(f"fitted in {seconds:.1f} s on {uf.get_num_threads()} threads")
    print(f"peak memory {peak_mb():.0f} MB, {before:.0f} MB of it before the fit")
    print(embedder.info)


if __name__ == "__main__":
    main()
