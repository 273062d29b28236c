"""Measure routing methods on a dataset, over repeated random splits.

DATASET_DIR holds prompts.parquet (id, task, text), scores.parquet (id, one column an LLM, in
[0, 1], higher is better, empty = not run) and models.csv (model, cost). In each trial prompts are
split 60/10/30 into training, validation and test, LLMs 2/3 seen and 1/3 unseen; a method routes the
test prompts among the unseen LLMs. The report also routes held-out prompts among all LLMs; it shows
some of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from uniroute_fast.cli.output import add_json, add_report, check_writable, keep_apart, report

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
    add_report(parser)
    parser.add_argument(
        "--figure", metavar="FILE", help="draw the deferral curves: .svg, .png or .pdf"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the trials, print their table, and draw what is asked for."""
    from uniroute_fast import datasets
    from uniroute_fast.evaluate import describe, route_whole_pool, run_trials
    from uniroute_fast.report import check_format, evaluation_page, save_curves, save_page

    check_writable("--report", args.report)
    check_writable("--figure", args.figure)
    keep_apart("--report", args.report, args.dataset)
    keep_apart("--figure", args.figure, args.dataset, args.report)
    if args.figure:
        check_format(args.figure)
    methods = ",".join(args.methods).split(",") if args.methods else None
    dataset = datasets.load(args.dataset)
    table = run_trials(
        dataset,
        methods,
        trials=args.trials,
        n_val=args.n_val,
        seed=args.seed,
        progress=sys.stderr.isatty(),
    )
    figures = table.to_dict()
    if args.report:
        pool = route_whole_pool(dataset, args.n_val, args.seed)
        figures |= {"about": describe(table.figures), "pool": pool.to_dict()}
        save_page(evaluation_page(figures), args.report)
    if args.figure:
        save_curves(table, args.figure)
    written = [f"{path} written" for path in (args.report, args.figure) if path]
    report(args.json, figures, "\n".join([str(table), *written]))
