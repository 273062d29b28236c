"""Name the prompts whose outcomes would tell the most of a new LLM.

Run these on it, score the answers, and add it with `uniroute add`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniroute_fast._checks.files import whole_file
from uniroute_fast.cli.fit import add_column_names
from uniroute_fast.cli.output import add_json, check_writable, keep_apart, report
from uniroute_fast.cli.pool import add_pool, load_pool

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_pool(parser)
    parser.add_argument("prompts", metavar="PROMPTS", help="the candidates: ids and texts")
    parser.add_argument("-n", type=int, default=50, metavar="N", help="how many (default 50)")
    parser.add_argument("--model", help="an LLM of the pool to learn more of (default: a new one)")
    parser.add_argument("--out", metavar="FILE", help="write their rows there, as Parquet")
    add_column_names(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Read, choose, write, report."""
    from uniroute_fast.cli.tables import read_ids, read_prompts

    check_writable("--out", args.out)
    keep_apart("--out", args.out, args.pool, args.prompts)
    router = load_pool(args)
    table = read_prompts(args.prompts, args.text_column)
    ids = read_ids(args.prompts, table, args.id_column)
    probes = router.suggest_probes(args.n, table[args.text_column], model=args.model)
    if args.out:
        import pyarrow.parquet as pq

        with whole_file(args.out) as file:
            pq.write_table(table.take(probes.indices), file)
    chosen = [ids[i] for i in probes.indices]
    before, after = probes.standard_error[[0, -1]]
    shown = "" if args.out else "\n".join(chosen) + "\n"
    report(
        args.json,
        {"ids": chosen, "standard_error": probes.standard_error.tolist(), "out": args.out},
        f"{shown}{len(chosen)} of {len(ids):,} prompts; standard error of the predicted loss "
        f"{before:.3f} before, {after:.3f} after" + (f"; {args.out}" if args.out else ""),
    )
