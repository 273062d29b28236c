"""How children end that are forked while other threads route and change the pool.

    python bench/forks.py [--children 500] [--parent none|batch|single|write]

Each child routes on three threads, compares the decisions with its parent's, and changes the pool.
Prints how many ended well (0), found something wrong (1), died of a signal (negative: -6 aborted,
-11 invalid memory) or hung for 10 seconds (-14).
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import signal
import threading
import time

import numpy as np

import uniroute_fast as uf

rng = np.random.default_rng(0)
x = rng.normal(size=(3000, 8)).astype(np.float32)
router = uf.Router(None, [("nearest", x[:32])])


def batch() -> None:
    """Route, each batch on threads of its own."""
    while True:
        router.route_batch(embeddings=x, cost_weight=0.3)


def single() -> None:
    """Route one prompt at a time."""
    for i in itertools.count():
        router.route(embeddings=x[i % len(x)], cost_weight=0.3)


def write() -> None:
    """Change the pool so that every cluster's hull is built anew."""
    while True:
        router.set_profiles(["m0", "m1"], router.profiles[:, :2])
        time.sleep(0.0002)


PARENTS = {"none": [], "batch": [batch] * 2, "single": [single] * 2, "write": [write, single]}


def child(expected: np.ndarray) -> int:
    """Route and change the pool; return 0 if all is as it should be."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(10)
    right = []

    def serve() -> None:
        for _ in range(2):
            found = router.route_batch(embeddings=x, cost_weight=0.3).index
            right.append(bool((found == expected).all()))

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    router.set_cost("m3", float(router.costs[3]))
    return int(right != [True] * 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=500)
    parser.add_argument("--parent", choices=PARENTS, default="write")
    arguments = parser.parse_args()
    uf.set_num_threads(4)
    names = [f"m{i}" for i in range(500)]
    router.insert(names, rng.random(500), rng.random((32, 500)))
    expected = router.route_batch(embeddings=x, cost_weight=0.3).index
    for job in PARENTS[arguments.parent]:
        threading.Thread(target=job, daemon=True).start()
    time.sleep(0.05)
    ends: collections.Counter[int] = collections.Counter()
    for _ in range(arguments.children):
        pid = os.fork()
        if pid == 0:
            os._exit(child(expected))
        ends[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
    print(f"parent {arguments.parent}: children by exit code {dict(ends)}")


if __name__ == "__main__":
    main()
