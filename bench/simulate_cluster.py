"""What one core, eight or four thousand make of a log: measured on one, simulated on the others.

    python bench/simulate_cluster.py --rows 2000000
    python bench/simulate_cluster.py --plan 1e12 --file-rows 3e7 --price 0.04

First it measures, on a few files of the log of `bench/batch.py`, what a worker on one core takes:
to start (a process, and the pool loaded), for each file (opening, journal, flushing it to the disk)
and for each part (reading, routing, encoding, writing), and their bytes in storage. Then it routes
all files with one worker and with two, and simulates just that: the difference is the simulation's
error. Then it simulates many workers on a log of so many rows.

The simulation is one of events. A worker starts, then takes file after file. Each needs the
processor for the sum of its parts' times, drawn from the measured ones, and moves its bytes;
both overlap, as they do in `route_log`, and the longer one counts. Transfers share the storage:
each gets the same, at most what a worker's own network gives. Some workers are slow for good
(stragglers). Workers die, at random moments, and what they did of their file is lost with them:
the output of a file that goes to a URL is sent when it is whole.

What it leaves out: the time until machines are there, files of different sizes, and how often a
storage refuses requests. All workers are paid until the last file is there.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from batch import make_log, make_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORKERS = (1, 2, 8, 64, 512, 4096)
#: Parts of a file that are drawn one by one; of more only the sum is.
DRAWN = 256
COST_WEIGHT = 0.001
#: Times that each real run is done: the quickest counts.
RUNS = 3


@dataclass(frozen=True)
class Measured:
    """What a worker is like.

    Attributes
    ----------
    start : float
        Seconds until a process has loaded the pool.
    file : float
        Seconds for each file, whatever its size: opening, journal, flushing it to the disk.
    parts : float[n]
        Processor seconds of parts, one thread.
    part_rows : float
    row_bytes : float
        Read and written in storage, for a row.
    pool_bytes : int
    """

    start: float
    file: float
    parts: np.ndarray
    part_rows: float
    row_bytes: float
    pool_bytes: int

    @property
    def rate(self) -> float:
        """Rows a second that one worker does, once it is at work and storage keeps up."""
        return self.part_rows / float(self.parts.mean())


@dataclass(frozen=True)
class Cluster:
    """Workers and what they share.

    Attributes
    ----------
    workers : int
    network, storage : float
        Bytes a second: at most, of one worker, and of all together.
    slow_share, slow_factor : float
        Share of the workers whose processors take so many times as long, for good.
    lifetime : float
        Mean seconds until a worker dies.
    restart : float
        Seconds until another one is in its place.
    """

    workers: int
    network: float = 1e9
    storage: float = 1e15
    slow_share: float = 0.0
    slow_factor: float = 2.0
    lifetime: float = math.inf
    restart: float = 60.0


@dataclass
class Outcome:
    """How a simulated job went.

    Attributes
    ----------
    wall : float
        Seconds.
    deaths : int
    lost : float
        Seconds of work, of all workers together, that deaths undid.
    """

    wall: float = 0.0
    deaths: int = 0
    lost: float = 0.0


@dataclass
class _Worker:
    """What a worker is at: the start (no file), or a file of so many rows."""

    slowness: float
    life: int = 0
    rows: float | None = None
    begun: float = 0.0
    computing: bool = False
    moving: bool = False


@dataclass
class _Storage:
    """Transfers that share a bandwidth evenly.

    Every transfer moves as many bytes as any other, so that each ends when ``moved``, the bytes
    that one which was always there would have moved, has grown by its size.
    """

    cluster: Cluster
    active: int = 0
    moved: float = 0.0
    ends: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Bytes a second of each transfer."""
        return min(self.cluster.network, self.cluster.storage / max(1, self.active))

    def next_end(self, now: float) -> float:
        """Return when the next transfer ends, if no other begins or ends before."""
        if not self.ends:
            return math.inf
        return now + max(0.0, self.ends[0][0] - self.moved) / self.rate


class Job:
    """A log of files that a cluster routes, event by event.

    Parameters
    ----------
    measured : Measured
    cluster : Cluster
    files : sequence of float
        Rows of each file.
    seed : int
    """

    def __init__(
        self, measured: Measured, cluster: Cluster, files: Sequence[float], seed: int = 0
    ) -> None:
        self.measured, self.cluster = measured, cluster
        self.rng = np.random.default_rng(seed)
        slow = self.rng.random(cluster.workers) < cluster.slow_share
        self.workers = [_Worker(cluster.slow_factor if one else 1.0) for one in slow]
        self.queue = deque(files)
        self.left = len(files)
        self.idle: set[int] = set()
        self.storage = _Storage(cluster)
        # (when, order, worker, its life, what): a worker that has died since has another life.
        self.events: list[tuple[float, int, int, int, Callable[[int], None]]] = []
        self.order = itertools.count()
        self.now = 0.0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Return how the job goes."""
        for number in range(self.cluster.workers):
            self._start(number)
        while self.left:
            self._step()
        self.outcome.wall = self.now
        return self.outcome

    def _step(self) -> None:
        """Go on to the next event."""
        end = self.storage.next_end(self.now)
        at = min(end, self.events[0][0] if self.events else math.inf)
        if self.storage.active:
            self.storage.moved += self.storage.rate * (at - self.now)
        self.now = at
        if end <= at:
            _, number, life = heapq.heappop(self.storage.ends)
            happens = self._moved
        else:
            _, _, number, life, happens = heapq.heappop(self.events)
        if life == self.workers[number].life:
            happens(number)

    def _after(self, seconds: float, number: int, happens: Callable[[int], None]) -> None:
        at, life = self.now + seconds, self.workers[number].life
        heapq.heappush(self.events, (at, next(self.order), number, life, happens))

    def _start(self, number: int) -> None:
        self._work(number, None, self.measured.start, self.measured.pool_bytes)
        if self.cluster.lifetime < math.inf:
            self._after(self.rng.exponential(self.cluster.lifetime), number, self._died)

    def _take(self, number: int) -> None:
        """Give a worker the next file, if there is one."""
        if not self.queue:
            self.idle.add(number)
            return
        rows = self.queue.popleft()
        seconds = self.measured.file + processor_seconds(self.measured, rows, self.rng)
        self._work(number, rows, seconds, rows * self.measured.row_bytes)

    def _work(self, number: int, rows: float | None, seconds: float, size: float) -> None:
        worker = self.workers[number]
        worker.rows, worker.begun = rows, self.now
        worker.computing = worker.moving = True
        self._after(seconds * worker.slowness, number, self._computed)
        heapq.heappush(self.storage.ends, (self.storage.moved + size, number, worker.life))
        self.storage.active += 1

    def _computed(self, number: int) -> None:
        self.workers[number].computing = False
        self._done(number)

    def _moved(self, number: int) -> None:
        self.workers[number].moving = False
        self.storage.active -= 1
        self._done(number)

    def _done(self, number: int) -> None:
        worker = self.workers[number]
        if worker.computing or worker.moving:
            return
        if worker.rows is not None:
            self.left -= 1
        self._take(number)

    def _died(self, number: int) -> None:
        worker = self.workers[number]
        worker.life += 1
        self.outcome.deaths += 1
        self.storage.active -= worker.moving
        self.idle.discard(number)
        if worker.rows is not None and (worker.computing or worker.moving):
            self.outcome.lost += self.now - worker.begun
            self.queue.appendleft(worker.rows)
        worker.computing = worker.moving = False
        self._after(self.cluster.restart, number, self._start)
        if self.idle:
            self._take(self.idle.pop())


def processor_seconds(measured: Measured, rows: float, rng: np.random.Generator) -> float:
    """Draw what a file of so many rows takes of the processor."""
    parts = rows / measured.part_rows
    if parts <= DRAWN:
        drawn = rng.choice(measured.parts, max(1, round(parts)))
        return float(drawn.mean() * parts)
    mean, deviation = measured.parts.mean(), measured.parts.std()
    return float(max(0.0, rng.normal(parts * mean, math.sqrt(parts) * deviation)))


# --- measuring ---


def work(pool: str, files: list[str], core: int) -> None:
    """Route files, one after the other, on one core, as a worker does; print what it took."""
    os.sched_setaffinity(0, {core})
    import uniroute_fast as uf
    from uniroute_fast.batch import BatchRouter, route_log

    uf.set_num_threads(1)
    BatchRouter(pool).load()
    report: dict = {"begun": time.time(), "parts": [], "rows": [], "files": []}
    for file in files:
        start = time.perf_counter()
        stamps: list[tuple[float, int]] = []
        route_log(
            pool,
            file,
            file + ".routed.parquet",
            cost_weight=COST_WEIGHT,
            progress=lambda at, stamps=stamps: stamps.append((time.perf_counter(), at.rows)),
        )
        whole = time.perf_counter() - start
        # The first part has the opening of the file in it.
        seconds, rows = np.diff(np.array(stamps), axis=0).T
        report["parts"] += list(seconds)
        report["rows"] += list(rows)
        report["files"].append(whole - stamps[-1][1] * seconds.sum() / rows.sum())
    print(json.dumps(report | {"processor": time.process_time()}))


def run(pool: Path, files: list[Path], workers: int) -> tuple[float, list[dict]]:
    """Really route files with so many workers; return the wall time and what each reported."""
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores):
        sys.exit(f"{workers} workers need as many cores; there are {len(cores)}")
    launched = time.time()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", str(pool), str(cores[i]), *files[i::workers]],
            stdout=subprocess.PIPE,
        )
        for i in range(workers)
    ]
    reports = [json.loads(process.communicate()[0]) for process in processes]
    wall = time.time() - launched
    for report in reports:
        report["start"] = report["begun"] - launched
    return wall, reports


def measure(pool: Path, files: list[Path]) -> Measured:
    """Measure what a worker is like, on a few files."""
    reports = [run(pool, files, 1)[1][0] for _ in range(RUNS)]
    # Of runs of the same work the quickest counts: whatever else the machine does only adds.
    best = min(reports, key=lambda report: sum(report["parts"]))
    seconds, rows = np.array(best["parts"]), np.array(best["rows"])
    routed = [file.with_name(file.name + ".routed.parquet") for file in files]
    stored = sum(file.stat().st_size for file in files + routed)
    return Measured(
        start=min(report["start"] for report in reports),
        file=float(np.median(best["files"])),
        parts=seconds / rows * rows.mean(),
        part_rows=float(rows.mean()),
        row_bytes=stored / sum(pq.read_metadata(file).num_rows for file in files),
        pool_bytes=pool.stat().st_size,
    )


def cut(log: Path, folder: Path, files: int) -> list[Path]:
    """Cut a log into files of as many rows."""
    rows = pq.read_metadata(log).num_rows
    size = math.ceil(rows / files)
    paths = []
    for i, batch in enumerate(pq.ParquetFile(log).iter_batches(size)):
        paths.append(folder / f"part-{i:03}.parquet")
        pq.write_table(pa.Table.from_batches([batch]), paths[-1], row_group_size=1 << 15)
    return paths


# --- printing ---


def check(measured: Measured, pool: Path, paths: list[Path]) -> None:
    """Route a log with one worker and with two, and simulate just that."""
    print("\nworkers   simulated s   measured s   error   busiest worker's processor s   rows/s")
    rows = [pq.read_metadata(path).num_rows for path in paths]
    for workers in (1, 2):
        real, reports = min((run(pool, paths, workers) for _ in range(RUNS)), key=lambda r: r[0])
        busiest = max(report["processor"] for report in reports)
        guess = Job(measured, Cluster(workers), rows).run().wall
        print(
            f"{workers:7} {guess:13.2f} {real:12.2f} {guess / real - 1:+7.1%} {busiest:30.2f} "
            f"{sum(rows) / real:8,.0f}",
            flush=True,
        )


def check_engine(measured: Measured, rows: float, one: float, two: float) -> None:
    """Take an engine's cost of a row from one worker and predict two."""
    slower = measured.rate / one
    parts = measured.parts * slower
    engine = replace(measured, start=0.0, file=0.0, parts=parts)
    files = [measured.part_rows] * round(rows / measured.part_rows)
    rate = sum(files) / Job(engine, Cluster(2), files).run().wall
    print(
        f"\nengine: a row costs {1e6 / one:.1f} us through it, {1e6 / measured.rate:.1f} us "
        f"without; two workers {rate:,.0f} rows/s simulated, {two:,.0f} measured "
        f"({rate / two - 1:+.1%})"
    )


def table(
    title: str, measured: Measured, clusters: list[Cluster], files: list[float], price: float | None
) -> None:
    """Simulate a job on clusters and print a row for each."""
    print(f"\n{title}")
    print(
        "workers        rows/s         wall   of ideal   worker hours   deaths   work lost   money"
    )
    rows = sum(files)
    for cluster in clusters:
        job = Job(measured, cluster, files).run()
        hours = cluster.workers * job.wall / 3600
        ideal = rows / measured.rate / cluster.workers
        money = "-" if price is None else f"{hours * price:,.2f}"
        lost = job.lost / (cluster.workers * job.wall)
        print(
            f"{cluster.workers:7,} {rows / job.wall:13,.0f} {duration(job.wall):>12} "
            f"{ideal / job.wall:10.1%} {hours:14,.1f} {job.deaths:8,} {lost:11.2%} {money:>7}",
            flush=True,
        )


def duration(seconds: float) -> str:
    """Return seconds in the unit that people would use."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Measure, check, simulate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the log that is measured")
    parser.add_argument("--files", type=int, default=16, help="that it is cut into")
    parser.add_argument("--folder", type=Path, help="where `bench/batch.py --make` left a log")
    parser.add_argument(
        "--engine",
        nargs=2,
        type=float,
        metavar=("ONE", "TWO"),
        help="rows/s of one and of two workers, a core each, from bench/engines.py: checked too",
    )
    parser.add_argument("--plan", type=float, default=1e12, help="rows of the log to come")
    parser.add_argument("--file-rows", type=float, default=3e7, help="rows of each of its files")
    parser.add_argument("--price", type=float, help="of a worker, a core, for an hour")
    parser.add_argument("--network", type=float, default=3e8, help="bytes/s of a worker, at most")
    parser.add_argument("--storage", type=float, default=5e10, help="bytes/s of all, at most")
    parser.add_argument("--slow-share", type=float, default=0.02, help="of the workers")
    parser.add_argument("--slow-factor", type=float, default=2.0, help="how slow those are")
    parser.add_argument("--lifetime", type=float, default=100.0, help="of a worker, mean hours")
    parser.add_argument("--restart", type=float, default=120.0, help="seconds, after a death")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        pool, core, *files = args.work
        work(pool, files, int(core))
        return
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log, pool = folder / f"log-{args.rows}.parquet", folder / "pool.uniroute"
        if not log.exists():
            make_pool(pool)
            make_log(log, args.rows)
        paths = cut(
            log, Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))), args.files
        )
        measured = measure(pool, paths[:4])
        spread = measured.parts.std() / measured.parts.mean()
        print(
            f"a worker: {measured.start:.2f} s to start, {measured.file:.3f} s for a file, "
            f"{measured.rate:,.0f} rows/s in parts of {measured.part_rows:,.0f} (their times "
            f"spread by {spread:.0%}), {measured.row_bytes:.0f} bytes of storage for a row, "
            f"pool {measured.pool_bytes / 1e6:.1f} MB"
        )
        check(measured, pool, paths)
    if args.engine:
        check_engine(measured, args.rows, *args.engine)
    files = [args.file_rows] * max(1, round(args.plan / args.file_rows))
    title = f"{sum(files):.3g} rows in {len(files):,} files of {args.file_rows:.3g}"
    for what, shared in (
        ("storage for all, nobody slow, nobody dies", {}),
        (f"storage of {args.storage / 1e9:g} GB/s", {"storage": args.storage}),
        (
            f"that, {args.slow_share:.0%} of the workers {args.slow_factor:g} times as slow, each "
            f"dies every {args.lifetime:g} h",
            {
                "storage": args.storage,
                "slow_share": args.slow_share,
                "slow_factor": args.slow_factor,
                "lifetime": args.lifetime * 3600,
                "restart": args.restart,
            },
        ),
    ):
        clusters = [Cluster(workers, args.network, **shared) for workers in WORKERS]
        table(f"{title}: {what}", measured, clusters, files, args.price)


if __name__ == "__main__":
    main()
