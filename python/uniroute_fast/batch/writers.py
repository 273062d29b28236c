"""The output as bytes, part by part.

A writer turns each part into bytes that depend on that part alone, so that parts can be made by
several threads and appended in order; what ends the file is made from notes that each part leaves.
"""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from uniroute_fast._checks.json import without_nan
from uniroute_fast.batch import parquet_footer
from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.decide import COLUMNS
from uniroute_fast.batch.parts import CsvRows, JsonLines, Part, csv_line, pylist
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uniroute_fast.batch.formats import Format


#: Of Parquet's pages.
COMPRESSIONS = ("snappy", "zstd", "lz4", "gzip", "brotli", "none")


class Encoded(NamedTuple):
    """A part as bytes, and a note for the end of the file."""

    data: bytes | memoryview
    note: str = ""


class Writer(Protocol):
    """Writes one format."""

    def begin(self) -> bytes:
        """Return what comes before the first part."""

    def encode(self, part: Part, columns: list[Any]) -> Encoded:
        """Return a part with its decision columns, as bytes."""

    def end(self, notes: Iterable[tuple[str, int]]) -> bytes:
        """Return what comes after the last part, for each part's note and where it begins."""


def open_writer(
    argument: str, form: Format, names: list[str], schema: Any, compression: str, text: str
) -> Writer:
    """Return the writer of a format.

    Parameters
    ----------
    argument : str
        The output's, for the message.
    form : Format
    names : list of str
        Of the decision columns.
    schema : pyarrow.Schema, or None
        Of the output; None where the log's rows have no common one.
    compression : str
        Of Parquet's pages.
    text : str
        The prompts' column, whose values are mostly distinct.

    Raises
    ------
    InvalidArgumentError
        The format cannot hold such columns.
    """
    if form.kind == "jsonl":
        return _JsonLines(names, form.compression)
    if schema is None:
        raise InvalidArgumentError(
            f"{argument}: {form.kind} for a log of JSON lines, whose rows need not agree on "
            "columns; expected .jsonl"
        )
    if form.kind == "parquet":
        if compression not in COMPRESSIONS:
            raise InvalidArgumentError(
                f"compression: {compression!r}; expected one of {', '.join(COMPRESSIONS)}"
            )
        return _Parquet(argument, names, schema, compression, text)
    if form.kind == "arrow":
        return _Arrow(names, schema)
    if form.kind == "csv":
        return _Csv(argument, names, schema, form.compression)
    raise InvalidArgumentError(
        f"{argument}: text cannot hold columns; expected .parquet, .jsonl, .csv or .arrow"
    )


def _with_columns(part: Part, names: list[str], columns: list[Any]) -> Any:
    table = part.table()
    for name, column in zip(names, columns, strict=True):
        table = table.append_column(name, column)
    return table


class _Parquet:
    def __init__(
        self, argument: str, names: list[str], schema: Any, compression: str, text: str
    ) -> None:
        self.names, self.schema, self.compression = names, schema, compression
        # Dictionaries and statistics of long distinct texts cost much and give nothing.
        self.leaves = [path for path in _leaf_paths(argument, schema) if path != text]

    def begin(self) -> bytes:
        return parquet_footer.MAGIC

    def encode(self, part: Part, columns: list[Any]) -> Encoded:
        table = _with_columns(part, self.names, columns)
        file = parquet_footer.split(memoryview(self._file(table)))
        return Encoded(file.chunks, base64.b64encode(file.footer).decode())

    def end(self, notes: Iterable[tuple[str, int]]) -> bytes:
        footers = [(base64.b64decode(note), start) for note, start in notes]
        if not footers:
            empty = parquet_footer.split(memoryview(self._file(self.schema.empty_table())))
            footers = [(empty.footer, len(parquet_footer.MAGIC))]
        return parquet_footer.join_footers(footers)

    def _file(self, table: Any) -> Any:
        pa = pyarrow()
        import pyarrow.parquet as pq

        buffer = pa.BufferOutputStream()
        pq.write_table(
            table,
            buffer,
            row_group_size=max(1, len(table)),
            compression=self.compression,
            use_dictionary=self.leaves,
            write_statistics=self.leaves,
        )
        return buffer.getvalue()


def _leaf_paths(argument: str, schema: Any) -> list[str]:
    """Return the paths by which Parquet knows the columns of a schema, nested ones too."""
    import pyarrow.parquet as pq

    pa = pyarrow()
    buffer = pa.BufferOutputStream()
    try:
        pq.write_table(schema.empty_table(), buffer)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidArgumentError(
            f"{argument}: Parquet cannot hold the columns: {error}; expected .jsonl or .arrow"
        ) from error
    leaves = pq.ParquetFile(buffer.getvalue()).schema
    return [leaves.column(i).path for i in range(len(leaves))]


class _Arrow:
    """An IPC stream: readers of Arrow files and streams tell the two apart."""

    def __init__(self, names: list[str], schema: Any) -> None:
        pa = pyarrow()
        self.names = names
        plain = [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in schema
        ]
        # Dictionaries would have to be the same in all parts.
        self.schema = pa.schema(plain, schema.metadata)

    def begin(self) -> bytes:
        return bytes(self.schema.serialize())

    def encode(self, part: Part, columns: list[Any]) -> Encoded:
        table = _with_columns(part, self.names, columns).cast(self.schema)
        batches = table.combine_chunks().to_batches()
        return Encoded(b"".join(bytes(batch.serialize()) for batch in batches))

    def end(self, notes: Iterable[tuple[str, int]]) -> bytes:
        return b"\xff\xff\xff\xff\x00\x00\x00\x00"


class _Csv:
    def __init__(
        self, argument: str, names: list[str], schema: Any, compression: str | None
    ) -> None:
        pa = pyarrow()
        self.names, self.schema, self.compression = names, schema, compression
        for field in schema:
            if pa.types.is_nested(field.type):
                raise InvalidArgumentError(
                    f"{argument}: CSV cannot hold column {field.name!r}, {field.type}; "
                    "expected .parquet, .jsonl or .arrow"
                )

    def begin(self) -> bytes:
        return _compressed(csv_line(self.schema.names).encode(), self.compression)

    def encode(self, part: Part, columns: list[Any]) -> Encoded:
        if isinstance(part, CsvRows):
            text = self._spliced(part, columns)
        else:
            text = self._written(part, columns)
        return Encoded(_compressed(text, self.compression))

    def end(self, notes: Iterable[tuple[str, int]]) -> bytes:
        return b""

    def _spliced(self, part: CsvRows, columns: list[Any]) -> bytes:
        """Return the rows as they were, with the decisions behind: those too short filled up."""
        import csv

        width = len(part.header)
        added = zip(*(_as_strings(column).to_pylist() for column in columns), strict=True)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for values, more in zip(part.rows, added, strict=True):
            writer.writerow([*values, *[""] * (width - len(values)), *more])
        return out.getvalue().encode(errors="surrogateescape")

    def _written(self, part: Part, columns: list[Any]) -> bytes:
        import pyarrow.csv as arrow_csv

        buffer = pyarrow().BufferOutputStream()
        options = arrow_csv.WriteOptions(include_header=False)
        arrow_csv.write_csv(_with_columns(part, self.names, columns), buffer, options)
        return bytes(buffer.getvalue())


class _JsonLines:
    def __init__(self, names: list[str], compression: str | None) -> None:
        self.names, self.compression = names, compression

    def begin(self) -> bytes:
        return b""

    def encode(self, part: Part, columns: list[Any]) -> Encoded:
        if isinstance(part, JsonLines):
            objects = _as_objects(part.lines, columns[COLUMNS.index("status")])
        else:
            objects = _json_objects(part.table())
        spliced = bytearray()
        for line, members in zip(objects, self._members(columns), strict=True):
            comma = b"" if line[1:-1].strip() == b"" else b", "
            spliced += line[:-1] + comma + members + b"}\n"
        return Encoded(_compressed(bytes(spliced), self.compression))

    def end(self, notes: Iterable[tuple[str, int]]) -> bytes:
        return b""

    def _members(self, columns: list[Any]) -> list[bytes]:
        """Return the decisions of every row as JSON members, without braces."""
        pc = _compute()
        pieces: list[Any] = []
        for i, (name, column) in enumerate(zip(self.names, columns, strict=True)):
            pieces.append(("" if i == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": ")
            pieces.append(pc.fill_null(_as_json(column), "null"))
        joined = pc.binary_join_element_wise(*pieces, "")
        return [text.encode() for text in joined.to_pylist()]


def _as_objects(lines: list[bytes], status: Any) -> Iterator[bytes]:
    """Yield lines that are JSON objects; one that is none becomes one that holds it."""
    for line, malformed in zip(
        lines, _compute().equal(status, "malformed").to_pylist(), strict=True
    ):
        text = line.strip()
        yield json.dumps({"line": text.decode(errors="replace")}).encode() if malformed else text


def _json_objects(table: Any) -> Iterator[bytes]:
    """Yield the rows of a table as JSON objects; NaN, which JSON does not know, as null."""
    names = table.column_names
    for values in zip(*map(pylist, table.columns), strict=True):
        row = without_nan(dict(zip(names, values, strict=True)))
        yield json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_text).encode()


def _as_text(value: Any) -> str:
    """Return what JSON has no type for: bytes as the text that they are, all else as it prints."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _as_json(column: Any) -> Any:
    """Return a column of strings or numbers as JSON texts."""
    pa, pc = pyarrow(), _compute()
    if not pa.types.is_string(column.type):
        return _as_strings(column)
    encoded = pc.dictionary_encode(column)
    values = [json.dumps(value, ensure_ascii=False) for value in encoded.dictionary.to_pylist()]
    return pa.array(values, pa.string()).take(encoded.indices)


def _as_strings(column: Any) -> Any:
    """Return a column as strings; numbers in the shortest form that gives the same value."""
    return column.cast(pyarrow().string())


def _compute() -> Any:
    import pyarrow.compute as pc

    return pc


def _compressed(data: bytes, compression: str | None) -> bytes:
    """Return data as one member or frame of a compressed file."""
    if compression is None or not data:
        return data
    pa = pyarrow()
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, compression) as stream:
        stream.write(data)
    return bytes(buffer.getvalue())
