"""Area of every method on the shared sets: ``python bench/study/routing.py --trials 20``.

Prints one table a set, and then the default method against the others over the sets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sets import SETS, complete, embed

from uniroute_fast.evaluate import METHODS, run_trials

SIMPLE = ("zero_router", "knn", "kmeans", "learned_map", "hierarchical")
TUNED = (*SIMPLE, "kmeans_tuned", "learned_map_tuned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tables = {}
    for name in arguments.sets:
        tables[name] = run_trials(
            complete(name), arguments.methods, arguments.trials, seed=arguments.seed, embed=embed
        )
        print(tables[name], flush=True)
    for method in arguments.methods:
        gains = [t["uniroute"].area - t[method].area for t in tables.values()]
        print(f"uniroute - {method:16}", " ".join(f"{g:+.4f}" for g in gains), end="")
        print(f"  mean {np.mean(gains):+.4f}")
    for peers in (SIMPLE, TUNED):
        if set(peers) <= set(arguments.methods):
            best = [t["uniroute"].area - max(t[m].area for m in peers) for t in tables.values()]
            print(f"uniroute - best of {', '.join(peers)}:")
            print(" ".join(f"{g:+.4f}" for g in best), f"mean {np.mean(best):+.4f}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps([table.to_dict() for table in tables.values()], indent=1)
        )


if __name__ == "__main__":
    main()
