"""Single decisions of this build beside those of another one, in turns.

    git worktree add /tmp/before COMMIT
    python -m venv /tmp/before/.venv
    /tmp/before/.venv/bin/pip install '/tmp/before[fit]'
    python bench/against.py /tmp/before/.venv/bin/python

Prints the median microseconds of `route` without constraints by either, over several processes of
each, and the ratio. The prompts and the pool are made up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import numpy as np

#: Runs in a process of either build: only what both have.
WORK = """
import json, time
import numpy as np
import uniroute_fast as uf
rng = np.random.default_rng(0)
words = [f"word{i}" for i in range(3000)]
texts = [" ".join(rng.choice(words, 40)) for _ in range(2000)]
embedder = uf.LexicalEmbedder.fit(texts, dim=64)
x = embedder.embed(texts)[:64]
router = uf.Router(embedder, [("nearest", x)])
router.insert([f"m{i}" for i in range(MODELS)], rng.lognormal(size=MODELS),
              rng.random((64, MODELS)))
taken = []
for i in range(30_000):
    text = texts[i % len(texts)]
    start = time.perf_counter_ns()
    router.route(text, 0.1)
    taken.append(time.perf_counter_ns() - start)
print(json.dumps(float(np.median(taken[2000:])) / 1e3))
"""


def run(python: str, models: int) -> float:
    """Return the median, in microseconds, of one process."""
    command = [python, "-W", "ignore", "-c", WORK.replace("MODELS", str(models))]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout
    return float(json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", help="the Python that has the other build installed")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=8)
    arguments = parser.parse_args()
    pairs = [
        (run(sys.executable, arguments.models), run(arguments.other, arguments.models))
        for _ in range(arguments.processes)
    ]
    own, other = np.median(pairs, axis=0)
    print(f"route: {own:.2f} us here, {other:.2f} us there, ratio {own / other:.3f}")


if __name__ == "__main__":
    main()
