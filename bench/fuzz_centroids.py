"""Differential fuzzer: nearest centroid against NumPy in float64, under every instruction set.

python bench/fuzz_centroids.py                  # 10 million rows
python bench/fuzz_centroids.py --rows 100000 --seed 7

Kinds of data are those of tests/clusters/test_nearest_centroid.py. Stops at the first difference
and prints what reproduces it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/clusters"))

from test_nearest_centroid import ISAS, KINDS, data

import uniroute_fast as uf


def brute_force(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    wide, labels = c.astype(np.float64), np.empty(len(x), np.uint32)
    step = max(1, 4_000_000 // c.size)
    for at in range(0, len(x), step):
        part = x[at : at + step, None].astype(np.float64)
        labels[at : at + step] = ((part - wide) ** 2).sum(-1).argmin(-1)
    return labels


def main() -> None:
    """Run until enough rows have been compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    compared, case = 0, 0
    while compared < options.rows:
        seed = options.seed * 1_000_003 + case
        rng = np.random.default_rng(seed)
        kind = KINDS[case % len(KINDS)]
        # Small shapes mostly, so that many rows are compared; a large one now and then.
        large = case % 50 == 0
        d = int(rng.integers(1, 2049 if large else 40))
        k = int(rng.integers(1, 1500 if large else 80))
        n = int(rng.integers(1, 100 if large else 8000))
        x, c = (np.ascontiguousarray(a, np.float32) for a in data(kind, rng, n, k, d))
        expected = brute_force(x, c)
        for isa in ISAS:
            labels, _ = uf.Centroids(c, isa=isa).assign(x)
            if (labels != expected).any():
                row = int((labels != expected).argmax())
                sys.exit(f"seed {seed}, {kind!r}, N {n}, K {k}, D {d}, {isa}: row {row} differs")
        compared += n
        case += 1
    print(f"{compared:,} rows in {case:,} cases under {', '.join(ISAS)}: no difference")


if __name__ == "__main__":
    main()
