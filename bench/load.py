"""Time to load a router from a file, beside reading the same bytes.

    python bench/load.py [--models 10000] [--clusters 256]

Prints medians of 30 rounds; the first decision builds the hull of one cluster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import uniroute_fast as uf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=256)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(arguments.clusters, 64)).astype(np.float32)
    router = uf.Router(None, [("nearest", x)])
    names = [f"provider{i % 20}/model-{i}" for i in range(arguments.models)]
    router.insert(names, rng.random(arguments.models), rng.random((len(x), len(names))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.uniroute"
        router.save(path)
        times: dict[str, list[float]] = {"read": [], "load": [], "first decision": []}
        for _ in range(30):
            start = time.perf_counter()
            path.read_bytes()
            times["read"].append(time.perf_counter() - start)
            start = time.perf_counter()
            loaded = uf.Router.load(path)
            times["load"].append(time.perf_counter() - start)
            start = time.perf_counter()
            loaded.route(embeddings=x[0])
            times["first decision"].append(time.perf_counter() - start)
        print(f"{path.stat().st_size / 2**20:.1f} MiB")
    for name, seconds in times.items():
        print(f"{name:15} median {1e3 * float(np.median(seconds)):7.2f} ms")


if __name__ == "__main__":
    main()
