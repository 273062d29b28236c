"""Kernels against faiss, NumPy and scikit-learn in the same run, with the same threads.

python bench/kernels.py                          # the tables of docs/performance.md
python bench/kernels.py --plot docs/kernels.svg  # and how times grow with N, K, D and M
python bench/kernels.py --threads                # two threads against one; wants an idle machine

Contenders take turns and medians are reported, in seconds of the calling thread's processor time
(wall time for --threads), so that what else the machine does meets all alike. All run on one
thread. Before NumPy is loaded, OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset: they may force a
slower kernel on the peers.
"""

from __future__ import annotations

# ruff: noqa: B023, E402 (contenders run before the loop goes on; the environment comes first)
import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import faiss
import numpy as np
from sklearn.metrics import pairwise_distances_argmin

import uniroute_fast as uf
from uniroute_fast._versions import versions

PROMPTS = 20_000
rng = np.random.default_rng(0)


def medians(
    runs: int, *contenders: Callable[[], object], clock: Callable[[], float] = time.thread_time
) -> list[float]:
    """Return the median seconds of each; they take turns."""
    taken: list[list[float]] = [[] for _ in contenders]
    for _ in range(runs):
        for work, times in zip(contenders, taken, strict=True):
            start = clock()
            work()
            times.append(clock() - start)
    return [float(np.median(times)) for times in taken]


def clustered(n: int, k: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` rows around `k` centroids, as embeddings lie around theirs."""
    c = rng.standard_normal((k, d), dtype=np.float32)
    noise = rng.standard_normal((n, d), dtype=np.float32)
    return c[rng.integers(0, k, n)] + np.float32(0.7) * noise, c


def flat_index(c: np.ndarray) -> faiss.IndexFlatL2:
    index = faiss.IndexFlatL2(c.shape[1])
    index.add(c)
    return index


def peaks() -> dict[str, float]:
    """Return what this core can do: float32 by BLAS, int8 as four times that, reading."""
    a = rng.standard_normal((2048, 2048), dtype=np.float32)
    (product,) = medians(5, lambda: a @ a)
    big = rng.standard_normal(1 << 26, dtype=np.float32)
    (reading,) = medians(5, lambda: big @ big)
    flops = 2 * 2048**3 / product / 1e9
    return {
        "float32 GFLOP/s": flops,
        "int8 GOP/s": 4 * flops if uf._native.isa() in ("avx512", "amx") else float("nan"),
        "read GB/s": big.nbytes / reading / 1e9,
    }


def assignment(isa: str, runs: int, peak: dict[str, float]) -> list[dict[str, Any]]:
    """Nearest centroid of a batch, with distances; centroids packed beforehand, as in faiss."""
    rows = []
    for d in (384, 768):
        for k in (64, 256, 1024, 4096):
            x, c = clustered(PROMPTS, k, d)
            index, packed = flat_index(c), uf.Centroids(c, isa=isa)
            contenders = [
                lambda: packed.assign(x),
                lambda: packed.assign(x, return_distance=False),
                lambda: uf.nearest_centroid(x, c),
                lambda: index.search(x, 1),
            ]
            if k <= 1024:
                contenders.append(lambda: pairwise_distances_argmin(x, c))
            ours, labels, packing, peer, *sklearn = medians(runs, *contenders)
            operations = 2 * PROMPTS * k * d / ours / 1e9
            rows.append(
                {
                    "ISA": isa,
                    "D": d,
                    "K": k,
                    "ours ms": ours * 1e3,
                    "faiss ms": peer * 1e3,
                    "faiss / ours": peer / ours,
                    "labels only": peer / labels,
                    "with packing": peer / packing if isa == uf._native.isa() else float("nan"),
                    "scikit-learn / ours": sklearn[0] / ours if sklearn else float("nan"),
                    "GOP/s": operations,
                    "of int8 peak": operations / peak["int8 GOP/s"] if isa != "avx2" else np.nan,
                    "of read bandwidth": x.nbytes / ours / 1e9 / peak["read GB/s"],
                    "candidates": float(packed.count_candidates(x[:2000]).mean()),
                }
            )
    return rows


def one_query(runs: int) -> list[dict[str, Any]]:
    """One query from Python, data in cache."""
    rows = []
    for d, k in ((384, 256), (768, 1024)):
        x, c = clustered(1, k, d)
        row, half = x[0], (c * c).sum(1) / 2
        index, packed = flat_index(c), uf.Centroids(c)
        ours, by_faiss, by_numpy = medians(
            runs,
            lambda: [packed.nearest(row) for _ in range(100)],
            lambda: [index.search(x, 1) for _ in range(100)],
            lambda: [(c @ row - half).argmax() for _ in range(100)],
        )
        rows.append(
            {
                "D": d,
                "K": k,
                "ours us": ours * 1e4,
                "faiss us": by_faiss * 1e4,
                "NumPy us": by_numpy * 1e4,
                "best peer / ours": min(by_faiss, by_numpy) / ours,
                "packed centroids GB/s": c.size / (ours / 100) / 1e9,
            }
        )
    return rows


def soft_map(runs: int, peak: dict[str, float]) -> list[dict[str, Any]]:
    """Winners of mixtures of clusters: NumPy's product and argmin."""
    k, m = 64, 5000
    rows = []
    for name in (
        "flat Phi, unrelated LLMs",
        "peaked Phi, unrelated LLMs",
        "peaked Phi, alike LLMs",
    ):
        psi = rng.random((k, m), dtype=np.float32)
        if "alike" in name:  # LLMs differ by level more than by cluster.
            level = rng.random((1, m)) + 0.15 * rng.standard_normal((k, m))
            psi = np.clip(level, 0, 1).astype(np.float32)
        if "flat" in name:
            phi = rng.dirichlet(np.ones(k), PROMPTS).astype(np.float32)
        else:
            phi = np.exp(3 * rng.standard_normal((PROMPTS, k), dtype=np.float32))
            phi /= phi.sum(1, keepdims=True)
        costs = 10 ** rng.uniform(-3, 1, m)
        weighted = (0.01 * costs).astype(np.float32)
        pool = uf.PackedPool(psi, costs)
        ours, ours_costs, peer, peer_costs = medians(
            runs,
            lambda: pool.best(phi),
            lambda: pool.best(phi, 0.01),
            lambda: (phi @ psi).argmin(1),
            lambda: (phi @ psi + weighted).argmin(1),
        )
        operations = 2 * PROMPTS * k * m / ours / 1e9
        rows.append(
            {
                "what": name,
                "ours ms": ours * 1e3,
                "NumPy ms": peer * 1e3,
                "NumPy / ours": peer / ours,
                "with costs": peer_costs / ours_costs,
                "of int8 peak": operations / peak["int8 GOP/s"],
                "candidates": float(pool.count_candidates(phi[:2000]).mean()),
                "memory ratio": (PROMPTS * m * 4) / (m * k * 5 + m * 24 + PROMPTS * 8),
            }
        )
    return rows


def threads(runs: int) -> list[dict[str, Any]]:
    """Two threads against one, wall time."""
    rows = []
    for d, k in ((384, 256), (384, 1024), (768, 1024)):
        x, c = clustered(100_000, k, d)
        packed = uf.Centroids(c)

        def work(n: int) -> Callable[[], object]:
            def run() -> None:
                uf.set_num_threads(n)
                packed.assign(x)

            return run

        one, two = medians(runs, work(1), work(2), clock=time.perf_counter)
        rows.append({"D": d, "K": k, "one ms": one * 1e3, "two ms": two * 1e3, "ratio": one / two})
    return rows


def plot(path: str) -> None:
    """Draw how seconds grow with each size, ours and the peer's."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    base = {"N": 4000, "K": 256, "D": 384}
    sizes = {"N": (500, 2000, 8000, 32000), "K": (16, 64, 256, 1024), "D": (64, 128, 384, 1024)}
    for axis, (name, values) in zip(axes[:3], sizes.items(), strict=True):
        ours, peers = [], []
        for value in values:
            n, k, d = ({**base, name: value}[key] for key in "NKD")
            x, c = clustered(n, k, d)
            index, packed = flat_index(c), uf.Centroids(c)
            pair = medians(5, lambda: packed.assign(x), lambda: index.search(x, 1))
            ours.append(pair[0] * 1e3)
            peers.append(pair[1] * 1e3)
        axis.loglog(values, ours, "o-", label="uniroute_fast")
        axis.loglog(values, peers, "s--", label="faiss IndexFlatL2")
        others = ", ".join(f"{key} {size:,}" for key, size in base.items() if key != name)
        axis.set(xlabel=name, ylabel="ms", title=f"nearest centroid, {others}")
    ours, peers, pools = [], [], (100, 1000, 5000, 20_000)
    phi = rng.dirichlet(np.ones(64), 2000).astype(np.float32)
    for m in pools:
        psi, costs = rng.random((64, m), dtype=np.float32), rng.random(m)
        pool = uf.PackedPool(psi, costs)
        pair = medians(5, lambda: pool.best(phi), lambda: (phi @ psi).argmin(1))
        ours.append(pair[0] * 1e3)
        peers.append(pair[1] * 1e3)
    axes[3].loglog(pools, ours, "o-", label="uniroute_fast")
    axes[3].loglog(pools, peers, "s--", label="NumPy")
    axes[3].set(xlabel="M", ylabel="ms", title="soft map, N 2,000, K 64")
    for axis in axes:
        axis.legend()
    figure.savefig(path)


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table in Markdown."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return (
                "-" if np.isnan(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
            )
        return str(value)

    print(f"\n{title}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(cell(value) for value in row.values()) + " |", flush=True)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="turns each contender takes")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--plot", metavar="FILE", help="draw scaling plots instead")
    parser.add_argument("--only", choices=("assignment", "query", "soft"), help="one table")
    parser.add_argument("--threads", action="store_true", help="compare thread counts instead")
    options = parser.parse_args()
    uf.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    if options.plot:
        return plot(options.plot)
    results: dict[str, Any] = {"versions": {**versions(), "faiss": faiss.__version__}}
    if options.threads:
        results["Two threads over one, N 100,000"] = threads(options.runs)
    else:
        peak = peaks()
        results["Peaks of one core"] = [peak]
        if options.only in (None, "assignment"):
            for isa in reversed(uf._native.available_isas()[1:]):
                title = f"Nearest centroid, N {PROMPTS:,}, {isa}"
                results[title] = assignment(isa, options.runs, peak)
        if options.only in (None, "query"):
            results["One query from Python"] = one_query(options.runs * 4 + 1)
        if options.only in (None, "soft"):
            results[f"Soft map, N {PROMPTS:,}, K 64, M 5,000"] = soft_map(options.runs, peak)
    for name, value in results["versions"].items():
        print(f"{name}: {value}")
    for title, rows in results.items():
        if title != "versions":
            show(title, rows)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(results, file, indent=1)
    return None


if __name__ == "__main__":
    main()
