"""Kill a job at random moments, take it up again, and compare with an uninterrupted run.

    python bench/kill.py --rows 500000 --kills 20

The log is that of `bench/batch.py`. Each time the job is killed (SIGKILL) at a moment drawn between
its start and the time that it takes, and run again until it ends; its output must be, byte for
byte, that of the uninterrupted run. Exits with 1 where it is not.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from batch import make_log, make_pool


def digest(path: Path) -> str:
    """Return what identifies a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Kill, take up again, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--format", choices=("parquet", "jsonl"), default="parquet")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, pool = folder / f"log.{arguments.format}", folder / "pool.uniroute"
        make_pool(pool)
        make_log(log, arguments.rows)
        command = [sys.executable, "-m", "uniroute_fast.cli", "route", pool, log, "--out"]
        whole, out = folder / f"whole.{arguments.format}", folder / f"out.{arguments.format}"
        start = time.monotonic()
        subprocess.run([*command, whole], check=True, capture_output=True)
        takes, expected = time.monotonic() - start, digest(whole)
        print(f"{arguments.rows:,} rows, {takes:.1f} s uninterrupted")
        for kill in range(arguments.kills):
            moment = rng.uniform(0, takes)
            job = subprocess.Popen(
                [*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                job.wait(timeout=moment)
                how = "had ended"
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()
                if out.exists() and digest(out) != expected:
                    sys.exit(f"kill {kill}: half an output stood under its name")
                how = "killed"
            left = folder / f".{out.name}.partial"
            size = sum(f.stat().st_size for f in left.rglob("*.part")) if left.exists() else 0
            subprocess.run([*command, out], check=True, capture_output=True)
            same = digest(out) == expected
            verdict = "identical" if same else "DIFFERENT"
            print(f"{kill + 1:3} {how} at {moment:5.2f} s, {size / 1e6:6.1f} MB done: {verdict}")
            if not same:
                sys.exit(1)
            out.unlink()
            shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    main()
