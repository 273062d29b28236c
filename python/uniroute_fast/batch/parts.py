"""A part of a log: some rows, as their format has them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.prompter import Prompter, Prompts
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from uniroute_fast.batch.prompter import Prompter


class Part(Protocol):
    """Some rows of a log."""

    def prompts(self, router: Prompter) -> Prompts:
        """Return the texts to route."""

    def table(self) -> Any:
        """Return the rows as an Arrow table."""

    def values(self, column: str) -> list[Any]:
        """Return a column's values; None where a row has none."""


@dataclass
class TablePart:
    """Rows of a columnar file."""

    rows: Any
    statuses: dict[int, str] = field(default_factory=dict)

    def prompts(self, router: Prompter) -> Prompts:
        """Return the texts to route."""
        prompts = router.prompts(self.rows)
        if self.statuses:
            prompts.texts = prompts.texts.to_pylist()
            for row in self.statuses:
                prompts.texts[row] = None
        return Prompts(prompts.texts, prompts.statuses | self.statuses)

    def table(self) -> Any:
        """Return the rows."""
        return self.rows

    def values(self, column: str) -> list[Any]:
        """Return a column's values."""
        return pylist(self.rows.column(column))


def pylist(column: Any) -> list[Any]:
    """Return a column's values as Python objects; what is no UTF-8 in a text is replaced."""
    pa = pyarrow()
    values: list[Any]
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise DatasetError(f"a string in the log is no UTF-8: {error}") from error
        texts = column.cast(pa.large_binary()).to_pylist()
        values = [None if text is None else text.decode(errors="replace") for text in texts]
    return values


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

    def prompts(self, router: Prompter) -> Prompts:
        """Parse the lines; those that are no objects get the status "malformed"."""
        prompts = Prompts([])
        column = router.messages_column or router.text_column
        taken = set(router.names)
        for row, line in enumerate(self.lines):
            text, status = None, None
            record = _record(line)
            if record is None:
                status = "malformed"
            elif not taken.isdisjoint(record):
                raise DatasetError(
                    f"line {self.first_line + row + 1}: has {min(taken & record.keys())!r} "
                    "already; expected another name: give a prefix for the added columns"
                )
            else:
                text, status = router.prompt_of(record.get(column))
            prompts.texts.append(text)
            if status:
                prompts.statuses[row] = status
        return prompts

    def values(self, column: str) -> list[Any]:
        """Return a member of every line; None where it has none or is no object."""
        return [(_record(line) or {}).get(column) for line in self.lines]

    def table(self) -> Any:
        """Refuse: lines need not agree on columns and types."""
        raise DatasetError("JSON lines stay JSON lines: expected an output that ends in .jsonl")


@dataclass
class CsvRows:
    """Rows of a CSV file, as it has them: all values are strings."""

    header: list[str]
    rows: list[list[str]]

    def prompts(self, router: Prompter) -> Prompts:
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

    def values(self, column: str) -> list[Any]:
        """Return a column's values; None where a row is too short or the value is empty."""
        at = self.header.index(column)
        return [row[at] or None if at < len(row) else None for row in self.rows]

    def table(self) -> Any:
        """Return the rows as columns of strings; null where a row is too short."""
        pa = pyarrow()
        columns: list[list[str | None]] = [[] for _ in self.header]
        for values in self.rows:
            for i, column in enumerate(columns):
                column.append(_valid(values[i]) if i < len(values) else None)
        arrays = [pa.array(column, pa.string()) for column in columns]
        return pa.table(arrays, names=self.header)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return a line's object, if it holds one."""
    try:
        # Not the bytes, whose encoding would be guessed, line by line.
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


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
