"""What a command prints: for people, or with ``--json`` for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.json import without_nan
from uniroute_fast._native import legible
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` to a command that reports figures."""
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add ``--report`` to a command that can show its figures as a page."""
    parser.add_argument(
        "--report", metavar="FILE", help="write the figures as one HTML page that needs no network"
    )


def check_writable(option: str, path: str | None) -> None:
    """Refuse a file that cannot be written, before the work is done.

    Raises
    ------
    InvalidArgumentError
        Its folder is not there, or it is a folder itself, a pipe or a device.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise InvalidArgumentError(f"{option}: {path} is a folder; expected a file")
    if Path(path).exists() and not Path(path).is_file():
        raise InvalidArgumentError(f"{option}: {path} is no file; expected one, or nothing")
    if not Path(path).parent.is_dir():
        raise InvalidArgumentError(f"{option}: {path}: no folder {Path(path).parent}")


def keep_apart(option: str, out: str | None, *inputs: str | None) -> None:
    """Refuse to write over what is read.

    Raises
    ------
    InvalidArgumentError
        `out` is the same file as one of the inputs, or there already in one that is a folder.
    """
    if out is None or not Path(out).exists():
        return
    place = Path(out).resolve()
    for path in map(Path, filter(None, inputs)):
        inside = path.is_dir() and place.is_relative_to(path.resolve()) and not place.is_dir()
        if inside or (path.exists() and place.samefile(path)):
            raise InvalidArgumentError(f"{option}: {out} is also read; expected another file")


def report(as_json: bool, figures: Mapping[str, Any], text: str) -> None:
    """Print the figures as JSON, or the text that shows them."""
    if as_json:
        print(json.dumps(without_nan(figures), allow_nan=False))
    else:
        print(legible(text, sys.maxsize))


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as a table: the first column to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
