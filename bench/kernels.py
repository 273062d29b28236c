"""Kernels against faiss, NumPy and scikit-learn in the same run, with the same threads.

python bench/kernels.py                          # the tables of docs/performance.md
python bench/kernels.py --plot docs/kernels.svg  # and how times grow with N, K, D and M
python bench/kernels.py --threads                # two threads against one; wants an idle machine

Contenders take turns and medians are reported, in seconds of the calling thread's processor time
(wall time for --threads), so that what else the machine does meets all alike. All run on one
thread. What is measured, and against whom, stands in `workloads.py`; BENCH_CORETYPE=Haswell (or
another kernel of OpenBLAS) is for processors that OpenBLAS does not know, where it would be slow.
"""

from __future__ import annotations

# ruff: noqa: B023 (contenders run before the loop goes on)
import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from workloads import (
    CLUSTERS,
    DIMS,
    FEW,
    MIXED,
    MIXTURES,
    OURS,
    POOL,
    PROMPTS,
    QUERIES,
    Workload,
    assignment,
    clustered,
    faiss,
    few_rows,
    flat_index,
    np,
    query,
    rng,
    soft_map,
    soft_route,
    uf,
)


def medians(
    runs: int, contenders: dict[str, Callable[[], object]], clock: Callable[[], float]
) -> dict[str, float]:
    """Return the median seconds of each; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, work in contenders.items():
            start = clock()
            work()
            taken[name].append(clock() - start)
    return {name: float(np.median(times)) for name, times in taken.items()}


def measured(
    runs: int, workload: Workload, clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    return medians(runs, workload.contenders, clock)


def peaks() -> dict[str, float]:
    """Return what this core can do: float32 by BLAS, int8 as four times that, reading."""
    a = rng.standard_normal((2048, 2048), dtype=np.float32)
    big = rng.standard_normal(1 << 26, dtype=np.float32)
    work = {"product": lambda: a @ a, "reading": lambda: big @ big}
    taken = medians(5, work, time.thread_time)
    flops = 2 * 2048**3 / taken["product"] / 1e9
    return {
        "float32 GFLOP/s": flops,
        "int8 GOP/s": 4 * flops if uf._native.isa() == "avx512" else float("nan"),
        "read GB/s": big.nbytes / taken["reading"] / 1e9,
    }


def assignments(isa: str, runs: int, peak: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for d in DIMS:
        for k in CLUSTERS:
            workload = assignment(d, k, isa)
            taken = measured(runs, workload)
            ours, peer = taken[OURS], taken["faiss IndexFlatL2"]

            def ratio(to: str) -> float:
                return peer / taken[to] if to in taken else float("nan")

            operations = 2 * PROMPTS * k * d / ours / 1e9
            rows.append(
                {
                    "ISA": isa,
                    "D": d,
                    "K": k,
                    "ours ms": ours * 1e3,
                    "faiss ms": peer * 1e3,
                    "faiss / ours": peer / ours,
                    "labels only": ratio(f"{OURS}, labels only"),
                    "with packing": ratio(f"{OURS}, packing included"),
                    "scikit-learn / ours": taken.get("scikit-learn", float("nan")) / ours,
                    "GOP/s": operations,
                    "of int8 peak": operations / peak["int8 GOP/s"] if isa != "avx2" else np.nan,
                    "of read bandwidth": workload.facts["bytes"] / ours / 1e9 / peak["read GB/s"],
                    "candidates": workload.facts["candidates"],
                }
            )
    return rows


def queries(runs: int) -> list[dict[str, Any]]:
    """One query from Python, a hundred times a turn."""
    rows = []
    for d, k in QUERIES:
        workload = query(d, k)
        hundreds = {
            name: lambda work=work: [work() for _ in range(100)]
            for name, work in workload.contenders.items()
        }
        taken = medians(runs, hundreds, time.thread_time)
        ours, by_faiss, by_numpy = (
            taken[name] / 100 for name in (OURS, "faiss IndexFlatL2", "NumPy")
        )
        rows.append(
            {
                "D": d,
                "K": k,
                "ours us": ours * 1e6,
                "faiss us": by_faiss * 1e6,
                "NumPy us": by_numpy * 1e6,
                "best peer / ours": min(by_faiss, by_numpy) / ours,
            }
        )
    return rows


def few(runs: int) -> list[dict[str, Any]]:
    """Few rows, from plain arrays to labels, several times a turn."""
    rows = []
    for n, d, k in FEW:
        times = max(1, 64 // n)
        several = {
            name: lambda work=work: [work() for _ in range(times)]
            for name, work in few_rows(n, d, k).contenders.items()
        }
        taken = medians(runs, several, time.thread_time)
        ours, by_faiss, by_numpy, product = (seconds / times for seconds in taken.values())
        rows.append(
            {
                "N": n,
                "D": d,
                "K": k,
                "ours us": ours * 1e6,
                "faiss us": by_faiss * 1e6,
                "NumPy us": by_numpy * 1e6,
                "its product alone us": product * 1e6,
                "best peer / ours": min(by_faiss, by_numpy) / ours,
            }
        )
    return rows


def soft_maps(runs: int, peak: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for name in MIXTURES:
        workload = soft_map(name)
        taken = measured(runs, workload)
        ours = taken[OURS]
        operations = 2 * PROMPTS * MIXED * POOL / ours / 1e9
        packed = POOL * MIXED * 9 + POOL * 24
        rows.append(
            {
                "what": name,
                "clusters a prompt": workload.facts["clusters a prompt"],
                "ours ms": ours * 1e3,
                "NumPy ms": taken["NumPy"] * 1e3,
                "NumPy / ours": taken["NumPy"] / ours,
                "with costs": taken["NumPy, with costs"] / taken[f"{OURS}, with costs"],
                "of int8 peak": operations / peak["int8 GOP/s"],
                "candidates": workload.facts["candidates"],
                "memory ratio": (PROMPTS * POOL * 4) / (packed + PROMPTS * 8),
            }
        )
    return rows


def soft_routes(runs: int) -> list[dict[str, Any]]:
    workload = soft_route()
    workload.contenders[OURS]()  # Packs the pool.
    taken = measured(runs, workload)
    return [
        {
            "one batch ms": taken[OURS] * 1e3,
            "NumPy ms": taken["NumPy"] * 1e3,
            "NumPy / packed": taken["NumPy"] / taken[OURS],
        }
    ]


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

        both = {"one": work(1), "two": work(2)}
        one, two = medians(runs, both, time.perf_counter).values()
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
            pair = {"ours": lambda: packed.assign(x), "peer": lambda: index.search(x, 1)}
            taken = medians(5, pair, time.thread_time)
            ours.append(taken["ours"] * 1e3)
            peers.append(taken["peer"] * 1e3)
        axis.loglog(values, ours, "o-", label="uniroute_fast")
        axis.loglog(values, peers, "s--", label="faiss IndexFlatL2")
        others = ", ".join(f"{key} {size:,}" for key, size in base.items() if key != name)
        axis.set(xlabel=name, ylabel="ms", title=f"nearest centroid, {others}")
    ours, peers, pools = [], [], (100, 1000, 5000, 20_000)
    phi = rng.dirichlet(np.ones(64), 2000).astype(np.float32)
    for m in pools:
        psi, costs = rng.random((64, m), dtype=np.float32), rng.random(m)
        pool = uf.decisions.PackedPool(psi, costs)
        pair = {"ours": lambda: pool.best(phi), "peer": lambda: (phi @ psi).argmin(1)}
        taken = medians(5, pair, time.thread_time)
        ours.append(taken["ours"] * 1e3)
        peers.append(taken["peer"] * 1e3)
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
    parser.add_argument("--only", choices=("assignment", "query", "few", "soft"), help="one part")
    parser.add_argument("--isa", help="assignment under this instruction set alone")
    parser.add_argument("--threads", action="store_true", help="compare thread counts instead")
    options = parser.parse_args()
    if options.plot:
        return plot(options.plot)
    # Not above, where it would come before `workloads` and bring NumPy with it.
    from uniroute_fast._versions import versions

    results: dict[str, Any] = {"versions": {**versions(), "faiss": faiss.__version__}}
    if options.threads:
        results["Two threads over one, N 100,000"] = threads(options.runs)
    else:
        peak = peaks()
        results["Peaks of one core"] = [peak]
        if options.only in (None, "assignment"):
            every = reversed(uf._native.available_isas()[1:])
            for isa in [options.isa] if options.isa else every:
                title = f"Nearest centroid, N {PROMPTS:,}, {isa}"
                results[title] = assignments(isa, options.runs, peak)
        if options.only in (None, "query"):
            results["One query from Python"] = queries(options.runs * 4 + 1)
        if options.only in (None, "few"):
            results["Few rows from Python, nothing packed"] = few(options.runs * 4 + 1)
        if options.only in (None, "soft"):
            title = f"Soft map, N {PROMPTS:,}, K {MIXED}, M {POOL:,}"
            results[title] = soft_maps(options.runs, peak)
            results["Embeddings to models over a soft map"] = soft_routes(options.runs)
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
