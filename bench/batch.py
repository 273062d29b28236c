"""Whole logs: wall time and memory of `uniroute route` beside a plain copy, in the same run.

    python bench/batch.py --rows 2000000

The log's prompts are drawn, with repetition, from the data sets' (see ``UNIROUTE_DATA``), with a
number in front of each so that no two rows are alike. "Copy" reads and writes the same file with
the same library and no routing: for Parquet `pyarrow.parquet`, batch by batch, with the row groups,
compression, dictionaries and statistics of the routed output; for JSON lines `json.loads` and
`json.dumps`, line by line. Each is a process of its own; they take turns.

Before that it prints what each stage takes of the processor for a row, on one thread. With
`--folder` the log and the pool stay there and serve the next run of as many rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("UNIROUTE_DATA", ROOT / ".." / "shared" / "data"))
SETS = ("mmlu_pro", "zeroeval", "bfcl")
CHUNK = 100_000


def copy_parquet(source: str, target: str) -> None:
    """Read and write, nothing else."""
    file = pq.ParquetFile(source)
    short = [name for name in file.schema_arrow.names if name != "text"]
    with pq.ParquetWriter(
        target, file.schema_arrow, use_dictionary=short, write_statistics=short
    ) as writer:
        for batch in file.iter_batches(1 << 15):
            writer.write_batch(batch, row_group_size=1 << 15)


def copy_jsonl(source: str, target: str) -> None:
    """Parse and write, nothing else."""
    with open(source, "rb") as lines, open(target, "w") as out:  # noqa: PTH123
        for line in lines:
            out.write(json.dumps(json.loads(line)) + "\n")


def prompts() -> list[str]:
    """Return the prompts of the data sets."""
    return [
        text
        for name in SETS
        for text in pq.read_table(DATA / name / "prompts.parquet")["text"].to_pylist()
    ]


def drawn(rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a log."""
    texts, rng = prompts(), np.random.default_rng(0)
    for start in range(0, rows, CHUNK):
        chosen = rng.integers(len(texts), size=min(CHUNK, rows - start))
        columns = {
            "id": np.arange(start, start + len(chosen)),
            "user": [f"user-{c % 997}" for c in chosen],
            "text": [f"{start + i} {texts[c]}" for i, c in enumerate(chosen)],
        }
        yield pa.table(columns)


def make_log(path: Path, rows: int) -> None:
    """Write a log; it has its name once it is whole."""
    unfinished = path.with_suffix(".unfinished")
    if path.suffix == ".parquet":
        first, *_ = drawn(1)
        with pq.ParquetWriter(unfinished, first.schema) as writer:
            for table in drawn(rows):
                writer.write_table(table)
    else:
        with unfinished.open("w") as lines:
            for table in drawn(rows):
                lines.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    unfinished.rename(path)


def make_pool(path: Path) -> None:
    """Fit on mmlu_pro and add its LLMs."""
    import uniroute_fast as uf
    from uniroute_fast import datasets

    data = datasets.load(DATA / "mmlu_pro").complete_block()
    texts = list(data.texts)
    router = uf.Router.fit(texts[:6000])
    some = slice(6000, 7000)
    router.add_models(data.models, data.costs, texts[some], data.losses[some])
    router.save(path)


def stages(pool: Path, log: Path) -> dict[str, float]:
    """Return microseconds of processor time that each stage takes for a row, on one thread."""
    import uniroute_fast as uf
    from uniroute_fast.batch import BatchRouter
    from uniroute_fast.batch.logs import find_log
    from uniroute_fast.batch.readers import Position, open_log
    from uniroute_fast.batch.writers import open_writer

    uf.set_num_threads(1)
    pa.set_cpu_count(1)
    router = BatchRouter(pool, 0.001)
    router.load()
    [file] = find_log(str(log)).files
    reader = open_log(file.fs, file.path, file.form, router)
    schema = None if reader.schema is None else router.output_schema(reader.schema)
    writer = open_writer("out", file.form, router.names, schema, "snappy", "text")
    parts = reader.parts(Position())
    taken = dict.fromkeys(("read", "parse", "route", "write"), 0.0)
    rows = 0
    for _ in range(4):
        clock = [time.process_time()]
        part, _ = next(parts)
        clock.append(time.process_time())
        prompts = part.prompts(router)
        clock.append(time.process_time())
        columns = router.decide(prompts)
        clock.append(time.process_time())
        writer.encode(part, columns)
        clock.append(time.process_time())
        for name, seconds in zip(taken, np.diff(clock), strict=True):
            taken[name] += seconds
        rows += len(columns[0])
    return {name: seconds / rows * 1e6 for name, seconds in taken.items()}


def measure(work: str, *argv: str) -> dict[str, float]:
    """Run a piece of work in a process of its own; return seconds and peak MB."""
    done = subprocess.run(
        [sys.executable, __file__, "--work", work, *argv], check=True, capture_output=True
    )
    return json.loads(done.stdout)


def work(name: str, argv: list[str]) -> None:
    """Do one piece of work and print what it took."""
    start = time.perf_counter()
    if name == "route":
        from uniroute_fast.batch import route_log

        route_log(argv[0], argv[1], argv[2], cost_weight=0.001)
    else:
        {"parquet": copy_parquet, "jsonl": copy_jsonl}[name](*argv)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss, which begins with what the parent held.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak}))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--format", choices=("parquet", "jsonl"), default="parquet")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    parser.add_argument("--make", action="store_true", help="only make the files, in --folder")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], args.work[1:])
        return
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        log, pool = folder / f"log-{args.rows}.{args.format}", folder / "pool.uniroute"
        if not pool.exists():
            make_pool(pool)
        if not log.exists():
            make_log(log, args.rows)
        if not args.make:
            compare(pool, log, args.rows, args.runs)


def compare(pool: Path, log: Path, rows: int, runs: int) -> None:
    """Measure copying and routing a log in turns, and print a table."""
    out = log.with_name(f"out{log.suffix}")
    print(f"{rows:,} rows, {log.stat().st_size / 1e6:.0f} MB")
    cost = stages(pool, log)
    shown = ", ".join(f"{name} {us:.2f}" for name, us in cost.items())
    print(f"processor us a row: {shown}; all {sum(cost.values()):.2f}")
    print("run  copy s (cpu)       route s (cpu)      ratio   copy MB  route MB")
    for run in range(runs):
        copied = measure(log.suffix[1:], str(log), str(out))
        out.unlink()
        routed = measure("route", str(pool), str(log), str(out))
        out.unlink()
        one, two = (f"{taken['seconds']:8.2f} ({taken['cpu']:6.2f})" for taken in (copied, routed))
        ratio = routed["seconds"] / copied["seconds"]
        print(
            f"{run:3}  {one}  {two}  {ratio:5.2f}  {copied['peak_mb']:8.0f} "
            f"{routed['peak_mb']:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
