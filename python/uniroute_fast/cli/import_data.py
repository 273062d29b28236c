"""Turn logs and published data sets into a dataset folder.

FORMAT is lm-eval (sample logs of lm-evaluation-harness), embedllm, routerbench, sprout or
llmrouterbench. SOURCE is a file or folder of it, or its name on the Hugging Face hub. `uniroute
evaluate` reads what comes out; `fit` and `add` read its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.cli.output import add_json, report
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    import argparse

#: Of each format: its reader, and which options it takes, those that it needs first.
FORMATS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "lm-eval": ("from_lm_eval", (), ("costs", "metric", "filter_name", "field")),
    "embedllm": ("from_embedllm", ("costs",), ()),
    "routerbench": ("from_routerbench", (), ("shots",)),
    "sprout": ("from_sprout", ("prices",), ()),
    "llmrouterbench": ("from_llmrouterbench", (), ("costs",)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("format", metavar="FORMAT", choices=FORMATS, help=", ".join(FORMATS))
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--out", required=True, metavar="DIR", help="new, or empty")
    parser.add_argument(
        "--costs",
        metavar="CSV",
        help="columns model and cost (embedllm needs it; lm-eval and llmrouterbench take it)",
    )
    parser.add_argument(
        "--prices",
        metavar="CSV",
        help="columns model, input and output: USD for a million tokens (sprout needs it)",
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="lm-eval: the score (default: the task's first)"
    )
    parser.add_argument(
        "--filter",
        dest="filter_name",
        metavar="NAME",
        help="lm-eval: whose scores count (default: the first of each file)",
    )
    parser.add_argument(
        "--field",
        metavar="NAME",
        help="lm-eval: field of the document to route on (default: the prompt as sent)",
    )
    parser.add_argument(
        "--shots", type=int, choices=(0, 5), help="routerbench: which table (default: 0)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Read, check, write, and say what there is."""
    from uniroute_fast import datasets

    reader, needed, optional = FORMATS[args.format]
    options: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("costs", "prices", "metric", "filter_name", "field", "shots")
        if getattr(args, name) is not None
    }
    for name in options:
        if name not in needed + optional:
            raise InvalidArgumentError(f"--{_flag(name)}: not an option of {args.format}")
    for name in needed:
        if name not in options:
            raise InvalidArgumentError(f"--{_flag(name)}: missing; {args.format} needs it")
    dataset = getattr(datasets, reader)(args.source, **options)
    datasets.save(dataset, args.out)
    run_share = 1 - float(np.isnan(dataset.scores).mean())
    figures = {
        "out": args.out,
        "prompts": len(dataset.ids),
        "models": len(dataset.models),
        "tasks": len(set(dataset.tasks)),
        "run": run_share,
        "cost_unit": dataset.cost_unit,
    }
    report(
        args.json,
        figures,
        f"{args.out}: {figures['prompts']:,} prompts of {figures['tasks']:,} tasks, "
        f"{figures['models']:,} LLMs, {run_share:.1%} of all pairs run; costs in "
        f"{dataset.cost_unit}",
    )


def _flag(name: str) -> str:
    return {"filter_name": "filter"}.get(name, name)
