"""Rows a second through Ray with one worker and with two, and the same log in one process.

    python bench/engines.py --rows 2000000

needs the extra `ray`. The log is that of `bench/batch.py`; workers route on a thread each, and each
run writes Parquet. The output of every run is compared with that of one process, row by row.

Reading and writing are tasks of their own beside the workers: where one worker may use every core,
a machine of two is already full. So each number of workers is also run on as many cores as it has
workers, which is how a cluster grows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from batch import make_log, make_pool


def same_rows(expected: Path, found: Path) -> bool:
    """Tell whether a folder of files has the rows of a file, in any order."""
    tables = [pq.read_table(path) for path in (expected, found)]
    one, two = (table.drop_columns("text").sort_by("id") for table in tables)
    return bool(one.equals(two.select(one.column_names).cast(one.schema)))


def main() -> None:
    """Route with one process, with one worker and with two."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, help="where `bench/batch.py --make` left a log")
    arguments = parser.parse_args()
    import ray

    import uniroute_fast as uf
    from uniroute_fast.batch import route_log
    from uniroute_fast.integrations.ray import route_dataset

    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        log, pool = folder / f"log-{arguments.rows}.parquet", folder / "pool.uniroute"
        if not log.exists():
            make_pool(pool)
            make_log(log, arguments.rows)
        whole = Path(name) / "whole.parquet"
        uf.set_num_threads(1)
        start = time.perf_counter()
        route_log(pool, log, whole, cost_weight=0.001)
        seconds = time.perf_counter() - start
        print(f"one process, one thread: {arguments.rows / seconds:,.0f} rows/s")
        cores = sorted(os.sched_getaffinity(0))
        rates = {}
        for pinned, workers in ((False, 1), (False, 2), (True, 1), (True, 2)):
            # Ray's processes inherit it.
            os.sched_setaffinity(0, cores[:workers] if pinned else cores)
            # One more core than workers: Ray counts what reads and writes, too.
            ray.init(num_cpus=2 + workers, include_dashboard=False, log_to_driver=False)
            out = Path(name) / f"out-{workers}"
            dataset = ray.data.read_parquet(str(log), override_num_blocks=64)
            start = time.perf_counter()
            route_dataset(dataset, pool, 0.001, workers=workers).write_parquet(str(out))
            seconds = time.perf_counter() - start
            ray.shutdown()
            rates[pinned, workers] = arguments.rows / seconds
            same = "identical" if same_rows(whole, out) else "DIFFERENT"
            where = f"{workers} core(s)" if pinned else f"all {len(cores)} cores"
            rate = f"{rates[pinned, workers]:,.0f} rows/s"
            print(f"Ray, {workers} worker(s) on {where}: {rate}, {same}", flush=True)
            shutil.rmtree(out)
        free, pinned = (rates[kind, 2] / rates[kind, 1] for kind in (False, True))
        print(f"two workers over one: {free:.2f} on all cores, {pinned:.2f} on a core each")
        print(f"ray {ray.__version__}, pyarrow {pa.__version__}")


if __name__ == "__main__":
    main()
