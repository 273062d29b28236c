"""Measure routing methods on a dataset, over repeated random splits.

DATASET_DIR holds prompts.parquet (id, task, text), scores.parquet (id, one column an LLM, in
[0, 1], higher is better, empty = not run) and models.csv (model, cost). In each trial prompts are
split 60/10/30 into training, validation and test, LLMs 2/3 seen and 1/3 unseen; a method routes the
test prompts among the unseen LLMs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from uniroute_fast.cli.output import add_json, report

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("dataset", metavar="DATASET_DIR")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="separated by spaces or commas; default: all; an unknown name lists them",
    )
    parser.add_argument("--trials", type=int, default=20, metavar="T", help="default: 20")
    parser.add_argument(
        "--n-val",
        type=int,
        metavar="N",
        help="labelled prompts of each new LLM (default: 400, or 10%% of the prompts)",
    )
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the trials and print their table."""
    from uniroute_fast import datasets
    from uniroute_fast.evaluate import run_trials

    methods = ",".join(args.methods).split(",") if args.methods else None
    table = run_trials(
        datasets.load(args.dataset),
        methods,
        trials=args.trials,
        n_val=args.n_val,
        seed=args.seed,
        progress=sys.stderr.isatty(),
    )
    report(args.json, table.to_dict(), str(table))
