"""The command line ``uniroute``: one module a command, each with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from uniroute_fast._native import legible
from uniroute_fast.cli import (
    add,
    bench,
    demo,
    evaluate,
    fit,
    import_data,
    probes,
    route,
    serve,
    whatif,
)
from uniroute_fast.errors import UniRouteError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "demo": demo,
    "import": import_data,
    "fit": fit,
    "probes": probes,
    "add": add,
    "route": route,
    "what-if": whatif,
    "serve": serve,
    "evaluate": evaluate,
    "bench": bench,
}

#: Exit statuses: bad input or an operating system that refuses; Ctrl-C, as shells have it.
FAILED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Bad input, and whatever the operating system refuses, becomes one line on standard error and
    status 2; Ctrl-C becomes status 130.
    """
    try:
        args = _parser().parse_args(argv)
        args.run(args)
        # Here, not at exit: a reader of ours that went away is no error, nor is one never there.
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UniRouteError, OSError) as error:
        print(f"uniroute: {_one_line(error)}", file=sys.stderr)
        return FAILED
    except MemoryError as error:
        print(f"uniroute: out of memory: {_one_line(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("uniroute: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


class _Parser(argparse.ArgumentParser):
    """Refuses bad arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: {legible(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="uniroute",
        description="Decide which LLM answers a prompt: fit a router, add LLMs, route, evaluate.",
    )
    parser.add_argument("--version", action="store_const", const=_version, dest="run")
    commands = parser.add_subparsers(metavar="COMMAND", required=False)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    parser.set_defaults(run=lambda _: parser.error("no command"))
    return parser


def _version(_: argparse.Namespace) -> None:
    from uniroute_fast import __version__

    print(f"uniroute {__version__}")


def _one_line(error: Exception) -> str:
    return legible(" ".join(str(error).split())) or type(error).__name__
