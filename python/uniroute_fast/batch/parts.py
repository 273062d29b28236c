"""A part of a log: some rows, as their format has them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.messages import last_user_text
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from uniroute_fast.batch.decide import BatchRouter


@dataclass
class Prompts:
    """The texts of a part, and the status of rows that hold none."""

    texts: Any
    statuses: dict[int, str] = field(default_factory=dict)


class Part(Protocol):
    """Some rows of a log."""

    def prompts(self, router: BatchRouter) -> Prompts:
        """Return the texts to route."""

    def table(self) -> Any:
        """Return the rows as an Arrow table."""


@dataclass
class TablePart:
    """Rows of a columnar file."""

    rows: Any
    statuses: dict[int, str] = field(default_factory=dict)

    def prompts(self, router: BatchRouter) -> Prompts:
        """Return the texts to route."""
        return Prompts(router.texts(self.rows), self.statuses)

    def table(self) -> Any:
        """Return the rows."""
        return self.rows


def text_part(lines: list[bytes], column: str) -> TablePart:
    """Return the part whose rows are the lines of a text."""
    pa = pyarrow()
    texts: list[str] = []
    statuses: dict[int, str] = {}
    for row, line in enumerate(lines):
        line = line.rstrip(b"\r\n")
        try:
            texts.append(line.decode())
        except UnicodeDecodeError:
            texts.append(line.decode(errors="replace"))
            statuses[row] = "invalid"
    return TablePart(pa.table({column: pa.array(texts, pa.string())}), statuses)


@dataclass
class JsonLines:
    """Lines of JSON, one object each."""

    lines: list[bytes]
    first_line: int

    def prompts(self, router: BatchRouter) -> Prompts:
        """Parse the lines; those that are no objects get the status "malformed"."""
        prompts = Prompts([])
        column = router.messages_column or router.text_column
        taken = set(router.names)
        for row, line in enumerate(self.lines):
            text, status = None, None
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                status = "malformed"
            else:
                if not isinstance(record, dict):
                    status = "malformed"
                elif not taken.isdisjoint(record):
                    raise DatasetError(
                        f"line {self.first_line + row + 1}: has {min(taken & record.keys())!r} "
                        "already; expected another name: give a prefix for the added columns"
                    )
                else:
                    value = record.get(column)
                    text = value if router.messages_column is None else last_user_text(value)
                    if text is not None and not isinstance(text, str):
                        text, status = None, "not text"
            prompts.texts.append(text)
            if status:
                prompts.statuses[row] = status
        return prompts

    def table(self) -> Any:
        """Refuse: lines need not agree on columns and types."""
        raise DatasetError("JSON lines stay JSON lines: expected an output that ends in .jsonl")


@dataclass
class CsvRows:
    """Rows of a CSV file, as it has them: all values are strings."""

    header: list[str]
    rows: list[list[str]]

    def prompts(self, router: BatchRouter) -> Prompts:
        """Return the texts; rows of another length than the header's are "malformed"."""
        at = self.header.index(router.text_column)
        prompts = Prompts([])
        for row, values in enumerate(self.rows):
            if len(values) == len(self.header):
                prompts.texts.append(values[at])
            else:
                prompts.texts.append(None)
                prompts.statuses[row] = "malformed"
        return prompts

    def table(self) -> Any:
        """Return the rows as columns of strings; null where a row is too short."""
        pa = pyarrow()
        columns: list[list[str | None]] = [[] for _ in self.header]
        for values in self.rows:
            for i, column in enumerate(columns):
                column.append(_valid(values[i]) if i < len(values) else None)
        arrays = [pa.array(column, pa.string()) for column in columns]
        return pa.table(arrays, names=self.header)


def _valid(text: str) -> str:
    """Return a text without the surrogates that stand for bytes that are no UTF-8."""
    return (
        text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="replace")
    )


def csv_line(values: list[Any]) -> str:
    """Return a row as a line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
