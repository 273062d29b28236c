"""What the kernels are measured on, and against whom.

Each function makes its data and returns the contenders by name, ours first: `kernels.py` prints
them as tables of ratios, `test_kernels.py` gives them to pytest-benchmark. To be imported before
NumPy is: OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which may force a slower kernel on the peers, are
unset (BENCH_CORETYPE sets the first), and everybody gets one thread.
"""

from __future__ import annotations

# ruff: noqa: E402 (the environment comes first)
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
if "BENCH_CORETYPE" in os.environ:
    os.environ["OPENBLAS_CORETYPE"] = os.environ["BENCH_CORETYPE"]
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import faiss
import numpy as np
from sklearn.metrics import pairwise_distances_argmin

import uniroute_fast as uf

PROMPTS = 20_000
DIMS, CLUSTERS = (384, 768), (64, 256, 1024, 4096)
QUERIES = ((384, 256), (768, 1024))
FEW = tuple((n, 768, 1024) for n in (1, 4, 16, 64, 256))
MIXTURES = (
    "flat Phi, unrelated LLMs",
    "peaked Phi, unrelated LLMs",
    "peaked Phi, alike LLMs",
    "Phi cut at 1/64, unrelated LLMs",
    "Phi cut at 1/64, alike LLMs",
)
MIXED, POOL = 64, 5000
OURS = "uniroute_fast"

uf.set_num_threads(1)
faiss.omp_set_num_threads(1)
rng = np.random.default_rng(0)


@dataclass
class Workload:
    """Callables that do the same work, and what there is to know of it."""

    contenders: dict[str, Callable[[], object]]
    facts: dict[str, Any] = field(default_factory=dict)


def clustered(n: int, k: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` rows around `k` centroids, as embeddings lie around theirs."""
    c = rng.standard_normal((k, d), dtype=np.float32)
    noise = rng.standard_normal((n, d), dtype=np.float32)
    return c[rng.integers(0, k, n)] + np.float32(0.7) * noise, c


def flat_index(c: np.ndarray) -> faiss.IndexFlatL2:
    index = faiss.IndexFlatL2(c.shape[1])
    index.add(c)
    return index


def assignment(d: int, k: int, isa: str) -> Workload:
    """Nearest centroid of a batch, with distances; centroids packed beforehand, as in faiss."""
    x, c = clustered(PROMPTS, k, d)
    index, packed = flat_index(c), uf.Centroids(c, isa=isa)
    contenders = {
        OURS: lambda: packed.assign(x),
        f"{OURS}, labels only": lambda: packed.assign(x, return_distance=False),
        "faiss IndexFlatL2": lambda: index.search(x, 1),
    }
    if isa == uf._native.isa():
        contenders[f"{OURS}, packing included"] = lambda: uf.nearest_centroid(x, c)
    if k <= 1024:
        contenders["scikit-learn"] = lambda: pairwise_distances_argmin(x, c)
    candidates = float(packed.count_candidates(x[:2000]).mean())
    return Workload(contenders, {"bytes": x.nbytes, "candidates": candidates})


def query(d: int, k: int) -> Workload:
    """Nearest centroid of one query, data in cache."""
    x, c = clustered(1, k, d)
    row, half = x[0], (c * c).sum(1) / 2
    index, packed = flat_index(c), uf.Centroids(c)
    return Workload(
        {
            OURS: lambda: packed.nearest(row),
            "faiss IndexFlatL2": lambda: index.search(x, 1),
            "NumPy": lambda: (c @ row - half).argmax(),
        }
    )


def few_rows(n: int, d: int, k: int) -> Workload:
    """Nearest centroid of few rows, from plain arrays to labels."""
    x, c = clustered(n, k, d)
    return Workload(
        {
            OURS: lambda: uf.nearest_centroid(x, c, return_distance=False),
            "faiss knn": lambda: faiss.knn(x, c, 1),
            "NumPy": lambda: ((c * c).sum(1) / 2 - x @ c.T).argmin(1),
            "NumPy, product alone": lambda: x @ c.T,
        }
    )


def mixtures(name: str) -> np.ndarray:
    """Return the Phi that a name of `MIXTURES` speaks of."""
    if "flat" in name:
        return rng.dirichlet(np.ones(MIXED), PROMPTS).astype(np.float32)
    phi = np.exp(3 * rng.standard_normal((PROMPTS, MIXED), dtype=np.float32))
    if "cut" in name:
        phi[phi < phi.max(1, keepdims=True) / 64] = 0
    return phi / phi.sum(1, keepdims=True)


def profiles(name: str, m: int = POOL) -> np.ndarray:
    """Return the profiles of LLMs that are alike (by level more than by cluster) or unrelated."""
    if "alike" not in name:
        return rng.random((MIXED, m), dtype=np.float32)
    level = rng.random((1, m)) + 0.15 * rng.standard_normal((MIXED, m))
    return np.clip(level, 0, 1).astype(np.float32)


def soft_map(name: str) -> Workload:
    """Winners of mixtures of clusters against NumPy's product and argmin, given the same Phi."""
    phi, psi, costs = mixtures(name), profiles(name), 10 ** rng.uniform(-3, 1, POOL)
    weighted = (0.01 * costs).astype(np.float32)
    pool = uf.decisions.PackedPool(psi, costs)
    return Workload(
        {
            OURS: lambda: pool.best(phi),
            f"{OURS}, with costs": lambda: pool.best(phi, 0.01),
            "NumPy": lambda: (phi @ psi).argmin(1),
            "NumPy, with costs": lambda: (phi @ psi + weighted).argmin(1),
        },
        {
            "clusters a prompt": float((phi > 0).sum(1).mean()),
            "candidates": float(pool.count_candidates(phi[:2000]).mean()),
        },
    )


def soft_route() -> Workload:
    """Embeddings to models over a learned map cut at 1/64, the pool packed by the first batch."""
    d = 128
    x = rng.standard_normal((PROMPTS, d), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    weights = 20 * rng.standard_normal((MIXED, d), dtype=np.float32)
    router = uf.Router(None, [("softmax", weights, np.zeros(MIXED, np.float32), 1 / 64)])
    psi, costs = profiles("unrelated"), 10 ** rng.uniform(-3, 1, POOL)
    router.insert([f"m{i}" for i in range(POOL)], costs, psi)
    weighted = (0.01 * costs).astype(np.float32)

    def by_numpy() -> np.ndarray:
        logits = x @ weights.T
        phi = np.exp(logits - logits.max(1, keepdims=True))
        phi[phi < 1 / 64] = 0
        phi /= phi.sum(1, keepdims=True)
        return (phi @ psi + weighted).argmin(1)

    return Workload(
        {
            OURS: lambda: router.route_batch(embeddings=x, cost_weight=0.01),
            "NumPy": by_numpy,
        }
    )
