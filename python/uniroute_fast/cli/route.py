"""Route every prompt of a log: the log with a model for each row.

LOG and ROUTED are .parquet, .arrow, .jsonl, .csv or .txt (those of lines also .gz, .zst, .bz2), a
folder of such files, or a URL that pyarrow knows; LOG may be - for standard input, one prompt a
line. Added are the columns model, predicted_loss, cost, cluster, coverage and status; all others
are kept. Rows that cannot be routed say why in their status and never stop the job. Killed, the
same command goes on from where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniroute_fast.cli.output import add_json, columns, keep_apart, report
from uniroute_fast.cli.pool import add_pool, load_pool
from uniroute_fast.cli.progress import Bar

if TYPE_CHECKING:
    import argparse

    from uniroute_fast.batch import Summary

FORMATS = ("parquet", "arrow", "jsonl", "csv", "text")

#: Models of the table that people read; programs get all.
SHOWN = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_pool(parser)
    add_log(parser)
    parser.add_argument("--out", required=True, metavar="ROUTED", help="what to write")
    weight = parser.add_mutually_exclusive_group()
    weight.add_argument(
        "--cost-weight",
        type=float,
        default=0.0,
        metavar="L",
        help="predicted loss that one unit of cost is worth (default: 0, quality alone)",
    )
    weight.add_argument(
        "--budget",
        type=float,
        metavar="USD",
        help="most that the whole log may cost, in the unit of the pool's costs",
    )
    parser.add_argument("--prefix", default="", help="put before the names of the added columns")
    parser.add_argument("--out-format", choices=FORMATS[:-1], help="whatever ROUTED is called")
    parser.add_argument(
        "--compression",
        default="snappy",
        choices=("snappy", "zstd", "lz4", "gzip", "brotli", "none"),
        help="of Parquet's pages (default: snappy)",
    )
    add_json(parser)


def add_log(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where the prompts are."""
    parser.add_argument("log", metavar="LOG", help="a file, a folder, a URL or -")
    parser.add_argument("--log-format", choices=FORMATS, help="whatever LOG is called")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    prompts.add_argument(
        "--messages-column",
        metavar="NAME",
        help="chat messages in place of texts: what the user wrote in them is routed",
    )


def run(args: argparse.Namespace) -> None:
    """Route the log and report what it comes to."""
    from uniroute_fast.batch import route_log

    keep_apart("--out", args.out, args.pool, args.log)
    pool = args.pool if args.embedder is None else load_pool(args)
    with Bar() as bar:
        summary = route_log(
            pool,
            args.log,
            args.out,
            cost_weight=args.cost_weight,
            budget=args.budget,
            text_column=args.text_column,
            messages_column=args.messages_column,
            prefix=args.prefix,
            log_format=args.log_format,
            out_format=args.out_format,
            compression=args.compression,
            progress=bar.show,
        )
    report(args.json, summary.to_dict(), _text(summary))


def _text(summary: Summary) -> str:
    totals = summary.totals
    rows = [
        (name, f"{count:,}", f"{count / totals.routed:.1%}")
        for name, count in totals.models.most_common(SHOWN)
    ]
    if len(totals.models) > SHOWN:
        rest = totals.routed - sum(count for _, count in totals.models.most_common(SHOWN))
        rows.append(
            (f"{len(totals.models) - SHOWN} others", f"{rest:,}", f"{rest / totals.routed:.1%}")
        )
    lines = [columns(("model", "prompts", "share"), rows)] if rows else []
    failed = {name: n for name, n in sorted(totals.statuses.items()) if name != "ok"}
    if failed:
        lines.append("not routed: " + ", ".join(f"{n:,} {name}" for name, n in failed.items()))
    if summary.resumed_rows:
        lines.append(f"gone on after {summary.resumed_rows:,} rows of an earlier run")
    done = totals.rows - summary.resumed_rows
    lines.append(
        f"{summary.out}: {totals.rows:,} rows, spend {totals.cost:,.6g}, cost weight "
        f"{summary.cost_weight:.6g}, {summary.seconds:.1f} s"
        + (f", {done / summary.seconds:,.0f} rows/s" if done else "")
    )
    return "\n".join(lines)
