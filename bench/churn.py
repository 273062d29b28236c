"""Readers' latency while the pool changes under them.

    python bench/churn.py [--seconds 60] [--models 5000] [--rate 200]

First, what each kind of change takes. Then two threads route flat out, over a quiet pool, and while
a third adds, removes, reprices, disables and enables models `rate` times a second. Sampled
decisions are checked, in float64, against the snapshot that was published under their version.
Prints latencies of both runs, their ratio, the changes made, the decisions checked, and the
process's memory after each quarter.
"""

from __future__ import annotations

import argparse
import array
import collections
import queue
import threading
import time
from pathlib import Path

import numpy as np

import uniroute_fast as uf

DIM, WEIGHT, SAMPLED = 64, 0.1, 200

#: Latest latencies that a reader keeps, in room made at the start: memory then tells of the rest.
KEPT = 1 << 18

#: How often memory is looked at in a run.
QUARTERS = 4


def memory_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


class Reader(threading.Thread):
    """Routes until told to stop; keeps latencies, hands some decisions to the checker."""

    def __init__(self, router: uf.Router, x: np.ndarray, stop: threading.Event) -> None:
        super().__init__()
        self.router, self.x, self.stop = router, x, stop
        self.nanoseconds = array.array("q", [0]) * KEPT
        self.samples: queue.SimpleQueue[tuple[int, uf.Decision]] = queue.SimpleQueue()
        self.routed = 0

    def run(self) -> None:
        """Route until told to stop."""
        route, clock, x = self.router.route, time.perf_counter_ns, self.x
        while not self.stop.is_set():
            row = self.routed % len(x)
            start = clock()
            decision = route(embeddings=x[row], cost_weight=WEIGHT)
            elapsed = clock() - start
            if self.routed % 10 == 0:
                self.nanoseconds[self.routed // 10 % KEPT] = elapsed
            # A decision keeps its snapshot: not more of them than are checked soon.
            if self.routed % SAMPLED == 0 and self.samples.qsize() < 20:
                self.samples.put((row, decision))
            self.routed += 1


def is_best(snapshot: uf.Snapshot, x: np.ndarray, decision: uf.Decision) -> bool:
    """Whether a decision is that of the rule in float64 over a snapshot."""
    gamma = snapshot.predict_loss(embeddings=x[None])[0].astype(np.float64)
    objective = np.where(snapshot.enabled, gamma + WEIGHT * snapshot.costs, np.inf)
    order = np.lexsort((np.arange(len(objective)), snapshot.costs, objective))
    return bool(order[0] == decision.index and snapshot.models[order[0]] == decision.model)


def change(router: uf.Router, i: int, rng: np.random.Generator, models: int) -> None:
    """Make one change; after six the pool has as many models as before."""
    name = f"m{rng.integers(models)}"
    match i % 6:
        case 0:
            router.insert([f"new{i}"], rng.random(1), rng.random((router.n_clusters, 1)))
        case 1:
            router.set_cost(name, float(rng.random()))
        case 2:
            router.set_cost(f"new{i - 2}", float(rng.random()))
        case 3:
            router.disable_model(f"new{i - 3}")
        case 4:
            router.enable_model(f"new{i - 4}")
        case _:
            router.remove_model(f"new{i - 5}")


KINDS = ("insert", "set_cost", "set_cost, new", "disable_model", "enable_model", "remove_model")


def time_changes(router: uf.Router, models: int) -> None:
    """Print what each kind of change takes while nobody routes: medians of 200."""
    rng = np.random.default_rng(2)
    times: list[list[float]] = [[] for _ in KINDS]
    for i in range(200 * len(KINDS)):
        start = time.perf_counter()
        change(router, i, rng, models)
        times[i % len(KINDS)].append(time.perf_counter() - start)
    for kind, seconds in zip(KINDS, times, strict=True):
        print(f"{kind:14} {1e6 * float(np.median(seconds)):8.1f} us")


def run(router: uf.Router, x: np.ndarray, seconds: float, rate: float, models: int) -> dict:
    stop = threading.Event()
    readers = [Reader(router, x, stop) for _ in range(2)]
    published = collections.OrderedDict({router.version: router.snapshot()})
    rng = np.random.default_rng(1)
    checked = wrong = changes = 0
    for reader in readers:
        reader.start()
    start = time.monotonic()
    memory: list[float] = []
    while (now := time.monotonic() - start) < seconds:
        if now > seconds * (len(memory) + 1) / QUARTERS:
            memory.append(memory_mib())
        if rate and now * rate >= changes:
            change(router, changes, rng, models)
            changes += 1
            published[router.version] = router.snapshot()
            while len(published) > 400:
                published.popitem(last=False)
        else:
            time.sleep(0.5 / rate if rate else 0.05)
        for reader in readers:
            try:
                row, decision = reader.samples.get_nowait()
            except queue.Empty:
                continue
            if decision.version in published and checked < 20 * now:
                checked += 1
                wrong += not is_best(published[decision.version], x[row], decision)
    stop.set()
    for reader in readers:
        reader.join()
    memory.append(memory_mib())
    kept = [reader.nanoseconds[: reader.routed // 10] for reader in readers]
    times = np.concatenate(kept) / 1e3
    return {
        "median us": float(np.median(times)),
        "p99 us": float(np.percentile(times, 99)),
        "routed": sum(reader.routed for reader in readers),
        "changes": changes,
        "checked": checked,
        "wrong": wrong,
        **{f"MiB {i + 1}/{QUARTERS}": mib for i, mib in enumerate(memory)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--clusters", type=int, default=64)
    parser.add_argument("--rate", type=float, default=200)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, DIM)).astype(np.float32)
    router = uf.Router(None, [("nearest", x[: arguments.clusters])])
    names = [f"m{i}" for i in range(arguments.models)]
    losses = rng.random((arguments.clusters, arguments.models), dtype=np.float32)
    router.insert(names, rng.random(arguments.models), losses)
    router.route_batch(embeddings=x)
    time_changes(router, arguments.models)
    quiet = run(router, x, min(arguments.seconds, 15), 0, arguments.models)
    busy = run(router, x, arguments.seconds, arguments.rate, arguments.models)
    for key in quiet:
        print(f"{key:10} quiet {quiet[key]:12.2f}   changing {busy[key]:12.2f}")
    print(f"p99 ratio  {busy['p99 us'] / quiet['p99 us']:.2f}")


if __name__ == "__main__":
    main()
