"""The kernels and their peers under pytest-benchmark, a group for each workload.

pytest bench --benchmark-only --benchmark-columns=min,median,ops --benchmark-sort=name

Contenders of a group run one after the other, by the wall clock: this wants an idle machine.
`kernels.py` lets them take turns and prints the ratios.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

import workloads

ISAS = workloads.uf._native.available_isas()[1:]
PEERS = {
    "assignment": (
        workloads.OURS,
        f"{workloads.OURS}, labels only",
        f"{workloads.OURS}, packing included",
        "faiss IndexFlatL2",
        "scikit-learn",
    ),
    "query": (workloads.OURS, "faiss IndexFlatL2", "NumPy"),
    "few_rows": (workloads.OURS, "faiss knn", "NumPy", "NumPy, product alone"),
    "soft_map": (
        workloads.OURS,
        f"{workloads.OURS}, with costs",
        "NumPy",
        "NumPy, with costs",
    ),
    "soft_route": (workloads.OURS, "NumPy"),
}
WORKLOADS = [
    *(
        ("assignment", d, k, isa)
        for isa in ISAS
        for d in workloads.DIMS
        for k in workloads.CLUSTERS
    ),
    *(("query", d, k) for d, k in workloads.QUERIES),
    *(("few_rows", *sizes) for sizes in workloads.FEW),
    *(("soft_map", name) for name in workloads.MIXTURES),
    ("soft_route",),
]


@lru_cache(maxsize=1)  # One at a time: each takes much memory.
def made(make: str, *arguments: object) -> workloads.Workload:
    return getattr(workloads, make)(*arguments)


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        pytest.param(workload, name, id=f"{' '.join(map(str, workload))}: {name}")
        for workload in WORKLOADS
        for name in PEERS[workload[0]]
    ],
)
def test_speed(benchmark, workload: tuple, name: str) -> None:
    work = made(*workload).contenders.get(name)
    if work is None:
        pytest.skip("this contender sits this workload out: see workloads.py")
    benchmark.group = " ".join(map(str, workload))
    if workload[0] in ("query", "few_rows"):
        benchmark(work)
    else:
        benchmark.pedantic(work, rounds=3, warmup_rounds=1)
