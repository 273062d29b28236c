"""Add LLMs to a pool, from their scores on labelled prompts.

One profiling pass for all of them; the router is not fitted again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.cli.fit import add_column_names
from uniroute_fast.cli.output import add_json, columns, keep_apart, report
from uniroute_fast.cli.pool import add_pool, load_pool

if TYPE_CHECKING:
    import argparse

#: Rows of the table that people read; programs get all.
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_pool(parser)
    parser.add_argument(
        "--models",
        required=True,
        metavar="CSV",
        help="columns model and cost (of a prompt): the LLMs to add",
    )
    parser.add_argument(
        "--prompts",
        required=True,
        metavar="PROMPTS",
        help="the labelled prompts: columns of ids and texts",
    )
    parser.add_argument(
        "--scores",
        required=True,
        metavar="SCORES",
        help="a column of ids, then one column an LLM, in [0, 1], higher is better, empty = not "
        "run; other rows and columns are left out",
    )
    parser.add_argument("--out", metavar="POOL", help="write there; POOL stays as it is")
    add_column_names(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Read, profile, save, report."""
    from uniroute_fast.cli.tables import read_costs, read_ids, read_losses, read_prompts

    keep_apart("--out", args.out, args.models, args.prompts, args.scores)
    router = load_pool(args)
    costs = read_costs(args.models)
    table = read_prompts(args.prompts, args.text_column)
    ids = read_ids(args.prompts, table, args.id_column)
    names, losses = read_losses(args.scores, ids, args.prompts, list(costs), args.id_column)
    start = time.perf_counter()
    router.add_models(names, list(costs.values()), table[args.text_column], losses)
    seconds = time.perf_counter() - start
    out = args.out or args.pool
    router.save(out)
    means = np.nanmean(losses, axis=0)
    figures = {
        "added": [
            {"model": name, "cost": costs[name], "mean_loss": float(mean)}
            for name, mean in zip(names, means, strict=True)
        ],
        "prompts": len(ids),
        "pool": len(router.models),
        "seconds": seconds,
        "out": out,
    }
    best = [names[m] for m in np.argsort(means, kind="stable")]
    mean_of = dict(zip(names, means, strict=True))
    rows = [(name, f"{costs[name]:g}", f"{mean_of[name]:.3f}") for name in best[:SHOWN]]
    if len(best) > SHOWN:
        rows.append((f"and {len(best) - SHOWN} more", "", ""))
    report(
        args.json,
        figures,
        f"{columns(('model', 'cost', 'mean loss'), rows)}\n"
        f"added {len(names)} LLMs from {len(ids):,} prompts in {seconds:.2f} s; "
        f"{out}: {len(router.models)} LLMs",
    )
