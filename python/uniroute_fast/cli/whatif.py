"""Compare what a log costs, and how good its answers are, under other rules.

Reads the log twice; writes nothing but the report, where one is wanted. With --model-column, "as
served" is what the log says happened. Quality is what the pool's profiles predict; `uniroute
evaluate` measures it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from uniroute_fast.cli.output import (
    add_json,
    add_report,
    check_writable,
    columns,
    keep_apart,
    report,
)
from uniroute_fast.cli.pool import add_pool, load_pool
from uniroute_fast.cli.progress import Bar
from uniroute_fast.cli.route import add_log

if TYPE_CHECKING:
    from uniroute_fast.batch import WhatIf

#: Clusters and LLMs of the text; programs get all.
SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_pool(parser)
    add_log(parser)
    parser.add_argument(
        "--cost-weights",
        type=_numbers,
        metavar="L,...",
        help="tried beside 0 (default: four that spread the spend)",
    )
    parser.add_argument("--budget", type=float, metavar="USD", help="tried too, for the whole log")
    parser.add_argument(
        "--model-column", metavar="NAME", help="the LLM that really served each prompt"
    )
    parser.add_argument(
        "--cost-column",
        metavar="NAME",
        help="what that really cost (default: what the pool says of that LLM)",
    )
    add_report(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Compare and report."""
    from uniroute_fast.batch import what_if
    from uniroute_fast.report import save_page, what_if_page

    check_writable("--report", args.report)
    keep_apart("--report", args.report, args.pool, args.log)
    pool = args.pool if args.embedder is None else load_pool(args)
    with Bar() as bar:
        found = what_if(
            pool,
            args.log,
            cost_weights=args.cost_weights,
            budget=args.budget,
            model_column=args.model_column,
            cost_column=args.cost_column,
            text_column=args.text_column,
            messages_column=args.messages_column,
            log_format=args.log_format,
            progress=bar.show,
        )
    if args.report:
        save_page(what_if_page(found.to_dict(), args.log), args.report)
    report(args.json, found.to_dict(), _text(found))


def _text(found: WhatIf) -> str:
    rules = [
        (
            one.name,
            f"{one.rows:,}",
            f"{one.spend:,.6g}",
            f"{one.spend / one.rows * 1000:,.4g}" if one.rows else "-",
            f"{one.quality:.4f} ± {one.quality_2se:.4f}",
            "-" if one.name == found.reference else f"{one.gain:+.4f} ± {one.gain_2se:.4f}",
        )
        for one in found.outcomes
    ]
    best = next(one for one in found.outcomes if one.cost_weight == 0)
    lines = [
        f"{found.rows:,} prompts, {found.routable:,} can be routed",
        "",
        columns(
            ("rule", "prompts", "spend", "per 1,000", "expected quality", f"v {found.reference}"),
            rules,
        ),
    ]
    if found.unknown_served:
        lines.append(
            f"{found.unknown_served:,} prompts were served by LLMs that are not in the pool: "
            "'as served' leaves them out"
        )
    for one in found.outcomes:
        if one.name in (found.reference, best.name) or "budget" in one.name:
            lines += ["", f"{one.name}: who answers", *_shares(one.models, one.rows)]
    rows = [
        (
            str(cluster["cluster"]),
            f"{cluster['prompts']:,}",
            f"{cluster['spend']:,.4g}",
            f"{cluster['quality']:.3f}",
            f"{cluster['model']} ({cluster['model_share']:.0%})",
        )
        for cluster in best.clusters[:SHOWN]
    ]
    lines += [
        "",
        f"largest clusters under '{best.name}'",
        columns(("cluster", "prompts", "spend", "quality", "most often"), rows),
        "",
        "± two standard errors over prompts; quality is what the profiles predict. "
        f"{found.seconds:.1f} s",
    ]
    return "\n".join(lines)


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers and commas") from error


def _shares(models: dict[str, int], rows: int) -> list[str]:
    shown = list(models.items())[:SHOWN]
    lines = [f"  {count / rows:6.1%}  {name}" for name, count in shown]
    rest = rows - sum(count for _, count in shown)
    return lines + ([f"  {rest / rows:6.1%}  {len(models) - SHOWN} others"] if rest else [])
