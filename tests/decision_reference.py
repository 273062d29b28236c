"""Decisions by their definition, in NumPy alone: what every implementation is held against.

    python tests/decision_reference.py

writes the routers of `tests/conformance` and `fuzz` in the format of today, and
`tests/conformance/decisions_v1.json` with the questions and their answers. Reads files without this
package: a safetensors header is JSON.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "conformance"
FUZZ = Path(__file__).parent.parent / "fuzz"
ROUTERS = ["hard", "soft", "mixed", "familiar"]
DTYPES = {"F32": "<f4", "F64": "<f8", "I8": "i1", "U8": "u1", "U16": "<u2", "I64": "<i8"}
f32 = np.float32


class Pool:
    """What a router's file holds."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        self.manifest = json.loads(header.pop("__metadata__")["uniroute"])["manifest"]
        self.tensors = {}
        for name, info in header.items():
            start, end = (8 + length + offset for offset in info["data_offsets"])
            values = np.frombuffer(data[start:end], DTYPES[info["dtype"]])
            self.tensors[name] = values.reshape(info["shape"])
        self.names: list[str] = self.manifest["models"]
        # Strips of models, [strips, K, models of a strip].
        strips = list(self.tensors["profiles"])
        self.psi = np.concatenate(strips, axis=1)[:, : len(self.names)]
        disabled = self.manifest["disabled"]
        self.enabled = np.array([name not in disabled for name in self.names])

    @property
    def dim(self) -> int:
        head = self.manifest["heads"][0]["kind"]
        return self.tensors["head.0." + ("centroids" if head == "nearest" else "weights")].shape[1]

    def phi(self, x: np.ndarray) -> np.ndarray:
        """Return how much each cluster counts for one embedding, float32[K]."""
        parts = []
        for i, head in enumerate(self.manifest["heads"]):
            if head["kind"] == "nearest":
                centroids = self.tensors[f"head.{i}.centroids"].astype(np.float64)
                distances = ((x.astype(np.float64) - centroids) ** 2).sum(axis=1)
                parts.append(np.eye(len(centroids), dtype=f32)[distances.argmin()])
            else:
                weights, bias = self.tensors[f"head.{i}.weights"], self.tensors[f"head.{i}.bias"]
                parts.append(softmax(summed(x, weights.T) + bias, f32(head["floor"])))
        if self.manifest["familiarity"] is not None:
            share = self.share_out_of_distribution(x)
            for part in parts:
                part *= f32(1) - share
                part[-1] += share
        return np.concatenate(parts)

    def share_out_of_distribution(self, x: np.ndarray) -> np.float32:
        """Return how far an embedding is out of distribution: r^8 / (1 + r^8), in float32."""
        offsets = x.astype(np.float64) - self.tensors["familiarity.landmarks"]
        squared = f32((offsets**2).sum(axis=1).min())
        ratio = min(squared / f32(self.manifest["familiarity"]), f32(4))
        fourth = (ratio * ratio) * (ratio * ratio)
        share = fourth * fourth / (f32(1) + fourth * fourth)
        return share if share >= f32(1 / 64) else f32(0)

    def cluster(self, phi: np.ndarray) -> int:
        """Return the heaviest cluster of the first head."""
        head = self.manifest["heads"][0]["kind"]
        key = "head.0.centroids" if head == "nearest" else "head.0.bias"
        return int(phi[: len(self.tensors[key])].argmax())

    def costs(self, phi: np.ndarray, tokens: int) -> np.ndarray:
        """Return what each model costs on a prompt of so many tokens, float64[M]."""
        constant = self.tensors["costs"]
        if "usage.input" not in self.tensors:
            return constant
        scale, extra = self.tensors["usage.input"].T
        metadata = [self.manifest["metadata"].get(name, {}) for name in self.names]
        prices = np.array(
            [[m.get("input_price", np.nan), m.get("output_price", np.nan)] for m in metadata]
        )
        into, out = (prices / 1e6).T
        metered = ~np.isnan(into + out + scale)
        answers = summed(phi, self.tensors["usage.output_tokens"]).astype(np.float64)
        rate_in, rate_out = np.where(metered, into * scale, 0.0), np.where(metered, out, 0.0)
        base = np.where(metered, into * extra, constant)
        return (rate_in * float(tokens) + rate_out * answers) + base

    def decide(self, x: np.ndarray, ask: dict[str, Any]) -> dict[str, int] | None:
        """Return the decision, floats as their bits; None where no model may answer."""
        phi = self.phi(x)
        gamma, costs = summed(phi, self.psi), self.costs(phi, ask["tokens"])
        weight = np.float64(ask["cost_weight"])
        objective = gamma.astype(np.float64) + weight * costs
        allowed = self.enabled & (costs <= ask.get("max_cost", np.inf))
        allowed &= ~np.isin(self.names, ask.get("deny", []))
        if not allowed.any():
            return None
        order = np.lexsort((np.arange(len(costs)), costs, np.where(allowed, objective, np.inf)))
        chosen = order[0]
        current = ask.get("current_model")
        if current is not None and allowed[self.names.index(current)]:
            at = self.names.index(current)
            if objective[at] <= objective[chosen] + weight * np.float64(ask["switch_cost"]):
                chosen = at
        return {
            "index": int(chosen),
            "cluster": self.cluster(phi),
            "predicted_loss": int(gamma[chosen].view(np.uint32)),
            "cost": int(costs[chosen].view(np.uint64)),
        }


def summed(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return sum_i weights[i] * rows[i] in float32: in order, each product rounded first."""
    total = np.zeros(rows.shape[1], f32)
    for weight, row in zip(weights, rows, strict=True):
        if weight != 0:
            total = total + weight * row
    return total


def softmax(logits: np.ndarray, floor: np.float32) -> np.ndarray:
    """Return the softmax without entries below `floor` times the largest, all in float32."""
    values = exp(logits - logits.max())
    values[~((values > 0) & (values >= floor))] = 0
    total = f32(0)
    for value in values:
        total = total + value
    return values / total


def exp(x: np.ndarray) -> np.ndarray:
    """Return e^x for x <= 0 by the series that the cluster map is defined with."""
    rounder = f32(12_582_912.0)
    n = (x * f32(1.4426950408889634) + rounder) - rounder
    r = x - n * f32(0.693_359_4) - n * f32(-2.121_944_4e-4)
    poly = np.zeros_like(x)
    for c in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        poly = poly * r + f32(c)
    power = ((n.astype(np.int32) + 127).astype(np.uint32) << np.uint32(23)).view(f32)
    return np.where(x < f32(-87.0), f32(0), poly * power)


def questions(pool: Pool, seed: int) -> list[dict[str, Any]]:
    """Return what is asked of a router: embeddings as bits, and the rest of each request."""
    rng = np.random.default_rng(seed)
    asked = []
    for i in range(60):
        x = rng.normal(size=pool.dim).astype(f32)
        ask: dict[str, Any] = {
            "embedding": x.view(np.uint32).tolist(),
            "tokens": int(rng.integers(1, 4000)),
            "cost_weight": float(rng.choice([0.0, 0.125, 1.0, 33.3, 1000.0])),
        }
        if i % 3 == 1:
            ask["deny"] = rng.choice(pool.names, 5, replace=False).tolist()
            ask["max_cost"] = float(rng.choice([0.0005, 0.3, 10.0]))
        if i % 4 == 2:
            ask["current_model"] = str(rng.choice(pool.names))
            ask["switch_cost"] = float(rng.choice([0.0, 0.001, 0.2, 5.0]))
        asked.append(ask)
    return asked


def answers() -> dict[str, Any]:
    """Return every question with the answer of the definition."""
    suites = {}
    for seed, name in enumerate(ROUTERS):
        pool = Pool(FOLDER / f"{name}.uniroute")
        asked = questions(pool, seed)
        for ask in asked:
            ask["decision"] = pool.decide(np.array(ask["embedding"], np.uint32).view(f32), ask)
        suites[name] = asked
    return {"version": 1, "routers": suites}


def write_routers() -> None:
    """Write the routers that questions are asked of."""
    import uniroute_fast as uf

    rng = np.random.default_rng(0)
    dim, models = 5, 20
    names = [f"maker/model-{i}" for i in range(models)]
    centroids = rng.normal(size=(6, dim)).astype(f32)
    soft = ("softmax", 2 * rng.normal(size=(7, dim)), rng.normal(size=7), 1 / 64)
    second = ("softmax", rng.normal(size=(4, dim)), rng.normal(size=4), 1 / 64)
    for name, heads in {
        "hard": [("nearest", centroids)],
        "soft": [soft],
        "mixed": [soft, ("nearest", centroids)],
        "familiar": [soft, second, ("familiarity", centroids, 3.0)],
    }.items():
        router = uf.Router(None, heads)
        clusters = router.n_clusters
        # Values that tie often.
        router.insert(
            names, rng.integers(0, 5, models) / 4, rng.integers(0, 9, (clusters, models)) / 8
        )
        router.disable_model(names[3])
        if name != "hard":
            usage = rng.gamma(2.0, 200.0, (clusters, 12)).astype(f32)
            router.set_usage(names[:12], usage, rng.random(12) + 0.5, rng.integers(0, 90, 12))
            for i in range(10):
                router.set_metadata(names[i], input_price=0.25 * i, output_price=1.5 * i)
        router.set_metadata(names[0], tags=["tools"], context_length=8192)
        router.save(FOLDER / f"{name}.uniroute")


def outcomes(n: int, models: int) -> np.ndarray:
    """Return made-up losses, float64[n, models]."""
    prompts, llms = np.arange(n)[:, None], np.arange(models)
    return ((prompts * 7 + llms * prompts // 3 + llms) % 5) / 4


def write_fitted() -> None:
    """Write a router with its profiler and records."""
    import uniroute_fast as uf

    x = np.random.default_rng(0).normal(size=(120, 4)).astype(f32)
    seen = uf.Outcomes(losses=outcomes(120, 8), costs=np.arange(8) + 1.0)
    router = uf.Router.fit(embeddings=x, seen=seen)
    router.add_models(["a", "b"], [1.0, 2.0], embeddings=x[:60], losses=outcomes(60, 2))
    router.save(FOLDER / "fitted.uniroute")


def write_seeds() -> None:
    """Write the router that fuzz targets route by, and the files that they start from."""
    import uniroute_fast as uf

    kinds = (
        "sort {} numbers in rust with {} threads",
        "write a poem of {} lines on {} stars",
        "name a river near {} and {}",
    )
    texts = [kinds[i % 3].format(i // 3 % 8, i // 24) for i in range(120)]
    embedder = uf.LexicalEmbedder.fit(texts, dim=16, ngrams=2)
    router = uf.Router.fit(texts, embedder=embedder, n_clusters=3)
    router.add_models(["small", "middle", "large"], [1.0, 2.0, 4.0], texts, outcomes(120, 3))
    for m, name in enumerate(router.models):
        router.set_metadata(name, input_price=1.0 + m, output_price=3.0 + m)
    router.set_metadata("small", tags=["eu"], context_length=1000, latency=0.5)
    router.fit_tokens(texts, 100 * (1 + outcomes(120, 3)))
    router.save(FUZZ / "seeds" / "router.uniroute")
    corpus = FUZZ / "corpus" / "artifact"
    for path in (*FOLDER.glob("*.uniroute"), FUZZ / "seeds" / "router.uniroute"):
        data = path.read_bytes()
        (corpus / path.stem).write_bytes(data)
    (corpus / "another_format").write_bytes(data.replace(b'\\"format\\":1', b'\\"format\\":7'))


if __name__ == "__main__":
    write_routers()
    write_fitted()
    write_seeds()
    text = json.dumps(answers(), indent=None, separators=(",", ":"))
    (FOLDER / "decisions_v1.json").write_text(text.replace('{"embedding"', '\n{"embedding"') + "\n")
