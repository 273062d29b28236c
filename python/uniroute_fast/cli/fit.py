"""Fit a router on unlabelled prompts and write it to a file.

Its pool is empty at first: `uniroute add` fills it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast.cli.output import add_json, keep_apart, report
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    import argparse

    from uniroute_fast.embedding.embedder import Embedder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "prompts",
        metavar="PROMPTS",
        help=".parquet, .jsonl, .csv or .arrow with a column of texts, or .txt, one prompt a line",
    )
    parser.add_argument("--out", required=True, metavar="POOL", help="the file to write")
    parser.add_argument(
        "--seen",
        metavar="SCORES",
        help="scores of LLMs already evaluated on these prompts: a column of ids, then one column "
        "an LLM, in [0, 1], higher is better, empty = not run; they sharpen the cluster map and "
        "later profiles",
    )
    parser.add_argument(
        "--embedder",
        default="lexical",
        metavar="NAME[:ARGUMENT]",
        help="lexical, lexical:DIM or sentence-transformers:MODEL (default: lexical)",
    )
    parser.add_argument("--clusters", type=int, metavar="K", help="default: chosen from the data")
    parser.add_argument(
        "--typical-prompts",
        type=int,
        default=3,
        metavar="N",
        help="prompts of each cluster that are kept in the file, for explanations; 0 where they "
        "are private (default: 3)",
    )
    parser.add_argument("--seed", type=int, default=0)
    add_column_names(parser)
    add_json(parser)


def add_column_names(parser: argparse.ArgumentParser) -> None:
    """Add the options that name columns of the prompts."""
    parser.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    parser.add_argument(
        "--id-column",
        default="id",
        metavar="NAME",
        help="matches scores to prompts (default: id)",
    )


def run(args: argparse.Namespace) -> None:
    """Read the prompts, fit, save, report."""
    from uniroute_fast import Outcomes, Router
    from uniroute_fast.cli.tables import read_ids, read_losses, read_prompts

    keep_apart("--out", args.out, args.prompts, args.seen)
    table = read_prompts(args.prompts, args.text_column)
    texts = table[args.text_column]
    seen = None
    if args.seen:
        ids = read_ids(args.prompts, table, args.id_column)
        names, losses = read_losses(args.seen, ids, args.prompts, None, args.id_column)
        seen = Outcomes(losses, names)
    start = time.perf_counter()
    embedder = make_embedder(args.embedder, texts, args.seed)
    router = Router.fit(
        texts,
        embedder=embedder,
        n_clusters=args.clusters,
        seen=seen,
        seed=args.seed,
        typical_prompts=args.typical_prompts,
    )
    seconds = time.perf_counter() - start
    router.save(args.out)
    figures = {
        "prompts": table.num_rows,
        "seen": 0 if seen is None else seen.n_models,
        "clusters": router.n_clusters,
        "dim": router.dim,
        "seconds": seconds,
        "bytes": Path(args.out).stat().st_size,
        "out": args.out,
    }
    report(
        args.json,
        figures,
        f"fitted on {table.num_rows:,} prompts and {figures['seen']} seen LLMs in {seconds:.1f} s: "
        f"{router.n_clusters} clusters, {router.dim} dimensions\n{args.out}: "
        f"{figures['bytes'] / 1e6:.1f} MB",
    )


def make_embedder(spec: str, texts: Any, seed: int) -> Embedder | None:
    """Return the embedder that ``--embedder`` names; None for the router's own default."""
    from uniroute_fast import LexicalEmbedder, SentenceTransformerEmbedder

    name, _, argument = spec.partition(":")
    if name == "lexical" and not argument:
        return None
    if name == "lexical" and argument.isdecimal():
        return LexicalEmbedder.fit(texts, dim=int(argument), seed=seed)
    if name == "sentence-transformers" and argument:
        return SentenceTransformerEmbedder(argument)
    raise InvalidArgumentError(
        f"--embedder: {spec!r}; expected lexical, lexical:DIM or sentence-transformers:MODEL"
    )
