"""Pools on the command line: load one, with the embedder that it was fitted with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from uniroute_fast import Router


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `load_pool` reads."""
    parser.add_argument("pool", metavar="POOL", help="a file that `uniroute fit` wrote")
    parser.add_argument(
        "--embedder",
        metavar="sentence-transformers:MODEL",
        help="the embedder it was fitted with, unless that is the lexical one, which is inside",
    )


def load_pool(args: argparse.Namespace) -> Router:
    """Load the router that the arguments name."""
    from uniroute_fast import Router, SentenceTransformerEmbedder
    from uniroute_fast.errors import InvalidArgumentError

    if args.embedder is None:
        return Router.load(args.pool)
    name, _, model = args.embedder.partition(":")
    if name != "sentence-transformers" or not model:
        raise InvalidArgumentError(
            f"--embedder: {args.embedder!r}; expected sentence-transformers:MODEL"
        )
    return Router.load(args.pool, embedder=SentenceTransformerEmbedder(model))
