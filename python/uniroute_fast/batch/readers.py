"""A log as a stream of parts, from any part on.

The parts of a log depend on the log and on the sizes here alone, never on where reading began: that
is what lets a job go on where it was killed and still give the same bytes.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.formats import Format
from uniroute_fast.batch.parquet_rows import check_counts, row_batches
from uniroute_fast.batch.parts import CsvRows, JsonLines, Part, TablePart, text_part
from uniroute_fast.batch.text_bytes import text_bytes, written_bytes
from uniroute_fast.errors import DatasetError, InvalidArgumentError, UniRouteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uniroute_fast.batch.prompter import Prompter

#: A part of a columnar file is whole blocks of so many rows at most, cut after so many rows or so
#: many bytes of text; that of a file of lines is cut after so many bytes.
BLOCK_ROWS = 1 << 10
PART_ROWS = 1 << 15
PART_BYTES = 1 << 24
#: Bytes of a line, or of a row of CSV: what is longer is no log, or a quote that is not closed.
LONGEST = 1 << 28
#: Bytes that the rows of a part may hold, and thus the longest row of a columnar file.
HELD = 1 << 28
#: Bytes of the header of a CSV file, and its columns.
HEADER, COLUMNS = 1 << 24, 10_000

#: What comes of damaged files, beside the exceptions of pyarrow.
DAMAGE = (OSError, EOFError, UnicodeError, OverflowError, MemoryError, RecursionError, csv.Error)


@dataclass(frozen=True)
class Position:
    """Where a part ends: in rows, and in (uncompressed) bytes of a file of lines."""

    rows: int = 0
    bytes: int = 0


class Reader(Protocol):
    """Reads one file of a log."""

    #: Arrow schema of the rows; None where every row has its own.
    schema: Any
    #: Rows or, of files of lines, bytes; None where unknown: for the progress bar.
    total: int | None

    def parts(self, start: Position) -> Iterator[tuple[Part, Position]]:
        """Yield the parts from a position on, each with the position where it ends."""


def open_log(fs: Any, path: str, form: Format, router: Prompter) -> Reader:
    """Open a file of a log and check that it has what the router needs.

    Parameters
    ----------
    fs : pyarrow.fs.FileSystem, or None for standard input
    path : str
    form : Format
    router : Prompter

    Raises
    ------
    DatasetError, InvalidArgumentError
        The file cannot be read, or its columns do not fit.
    """
    if fs is None and form.kind not in ("text", "jsonl"):
        raise DatasetError(f"standard input: {form.kind} cannot be read from it; expected a file")
    with reading(path, f"cannot be read as {form.kind}"):
        if form.kind == "parquet":
            return _Parquet(fs, path, router)
        if form.kind == "arrow":
            return _Arrow(fs, path, router)
        return _Lines(fs, path, form, router)


@contextlib.contextmanager
def reading(path: str, failure: str) -> Iterator[None]:
    """Say of an error to which a damaged file leads which file that is.

    Raises
    ------
    DatasetError
    """
    try:
        yield
    except (InvalidArgumentError, DatasetError):
        raise
    except (pyarrow().ArrowException, UniRouteError, *DAMAGE) as error:
        said = str(error) or type(error).__name__
        raise DatasetError(f"{path}: {failure}: {said}") from error


class _Parquet:
    def __init__(self, fs: Any, path: str, router: Prompter) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.source = fs.open_input_file(path)
        self.is_local = fs.type_name == "local"
        # Small reads as they are needed: whole row groups can be larger than all else here.
        self.file = pq.ParquetFile(
            self.source, pre_buffer=False, buffer_size=1 << 20, memory_map=False
        )
        check_counts(self.file.metadata)
        self.schema = self.file.schema_arrow
        router.check_schema(self.schema)
        self.total = self.file.metadata.num_rows

    def parts(self, start: Position) -> Iterator[tuple[Part, Position]]:
        groups, skip = self._from(start.rows)
        block = self._block()
        batches = row_batches(self.file, self.source, self.is_local, groups, block)
        return _table_parts(self.path, self.schema, batches, start.rows, skip, block)

    def _block(self) -> int:
        """Return the rows of a block: fewer where rows are so long that a block fills a part."""
        metadata = self.file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        longest = max((g.total_byte_size / g.num_rows for g in groups if g.num_rows), default=0)
        block = BLOCK_ROWS
        while block > 1 and block * longest > PART_BYTES:
            block //= 2
        return block

    def _from(self, row: int) -> tuple[list[int], int]:
        """Return the row groups that hold a row and those after it, and the rows to skip."""
        metadata = self.file.metadata
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            if row < count:
                return list(range(group, metadata.num_row_groups)), row
            row -= count
        return [], 0


class _Arrow:
    def __init__(self, fs: Any, path: str, router: Prompter) -> None:
        pa = pyarrow()
        self.path = path
        file = fs.open_input_file(path)
        self.total: int | None = None
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        self.file = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        self.schema = self.file.schema
        router.check_schema(self.schema)

    def parts(self, start: Position) -> Iterator[tuple[Part, Position]]:
        batches = self._batches()
        return _table_parts(self.path, self.schema, batches, start.rows, start.rows, BLOCK_ROWS)

    def _batches(self) -> Iterator[Any]:
        if hasattr(self.file, "num_record_batches"):
            batches = (self.file.get_batch(i) for i in range(self.file.num_record_batches))
        else:
            batches = iter(self.file)
        for batch in batches:
            # Buffers come as the file has them: offsets that are damaged would lead anywhere.
            for column in batch.columns:
                _as_bytes(column).validate(full=True)
            yield batch


def _table_parts(
    path: str, schema: Any, batches: Iterator[Any], row: int, skip: int, block: int
) -> Iterator[tuple[Part, Position]]:
    """Cut batches, without the first ``skip`` rows, into parts of whole blocks.

    Where a part ends depends on its rows alone, not on how the file comes in batches.
    """
    waiting: list[Any] = []
    count = size = held = 0

    def part() -> tuple[Part, Position]:
        nonlocal waiting, count, size, held, row
        table, row = pyarrow().Table.from_batches(waiting, schema), row + count
        waiting, count, size, held = [], 0, 0, 0
        return TablePart(table), Position(row)

    batches = iter(batches)
    while True:
        with reading(path, f"cannot be read after row {row + count}"):
            batch = next(batches, None)
        if batch is None:
            break
        dropped = min(skip, len(batch))
        skip -= dropped
        batch = batch.slice(dropped)
        while len(batch):
            piece, more = _fitting(batch.slice(0, block - count % block), HELD - held)
            if not len(piece):
                # The next row has no place in this part.
                if not count:
                    raise DatasetError(f"{path}: row {row} holds more than {HELD:,} bytes of text")
                yield part()
                continue
            batch = batch.slice(len(piece))
            waiting.append(piece)
            count += len(piece)
            size += sum(map(text_bytes, piece.columns))
            held += more
            if count % block == 0 and (count >= PART_ROWS or size >= PART_BYTES):
                yield part()
    if count:
        yield part()


def _fitting(batch: Any, room: int) -> tuple[Any, int]:
    """Return as many of the first rows as hold no more bytes than there is room, and how many."""
    held = _held_bytes(batch)
    if held <= room:
        return batch, held
    least, most = 0, len(batch)  # Fitting, and not.
    while most - least > 1:
        middle = (least + most) // 2
        if _held_bytes(batch.slice(0, middle)) <= room:
            least = middle
        else:
            most = middle
    fitting = batch.slice(0, least)
    return fitting, _held_bytes(fitting)


def _held_bytes(batch: Any) -> int:
    """Return the bytes of all strings of a batch, once each row has its own."""
    return sum(map(written_bytes, batch.columns))


def _as_bytes(column: Any) -> Any:
    """Return strings as bytes, in place: a row that is no UTF-8 has a status, and is no error."""
    pa = pyarrow()
    kind = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
    return column if kind is None else column.view(kind)


class _Lines:
    """JSON lines, CSV or text."""

    def __init__(self, fs: Any, path: str, form: Format, router: Prompter) -> None:
        self.fs, self.path, self.form = fs, path, form
        self.text_column = router.text_column
        self.schema: Any = None
        self.total: int | None = None
        if fs is not None and form.compression is None:
            self.total = fs.get_file_info(path).size
        self.header: list[str] | None = None
        if form.kind == "jsonl":
            return
        pa = pyarrow()
        if form.kind == "csv":
            with self._open(0) as file:
                self.header = self._csv_header(file)
            names = self.header
        else:
            names = [self.text_column]
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])
        router.check_schema(self.schema)

    def _csv_header(self, file: IO[bytes]) -> list[str]:
        lines = (line.decode("utf-8-sig") for line in self._lines(file, HEADER))
        header = next(csv.reader(lines), None)
        if not header:
            raise DatasetError(f"{self.path}: no header")
        if len(header) > COLUMNS:
            raise DatasetError(
                f"{self.path}: a header of {len(header):,} columns; expected at most {COLUMNS:,}"
            )
        return header

    def parts(self, start: Position) -> Iterator[tuple[Part, Position]]:
        cut = self._csv_parts if self.form.kind == "csv" else self._line_parts
        with reading(self.path, "cannot be read"):
            file = self._open(start.bytes)
        with file:
            parts = cut(file, start)
            while True:
                with reading(self.path, "cannot be read"):
                    part = next(parts, None)
                if part is None:
                    return
                yield part

    def _line_parts(self, file: IO[bytes], at: Position) -> Iterator[tuple[Part, Position]]:
        while block := file.read(PART_BYTES):
            # To the end of the last line.
            block += next(self._lines(file), b"")
            lines = block.split(b"\n")
            if at.bytes == 0:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
            if not lines[-1]:
                del lines[-1]
            part: Part
            if self.form.kind == "jsonl":
                part = JsonLines(lines, at.rows)
            else:
                part = text_part(lines, self.text_column)
            at = Position(at.rows + len(lines), at.bytes + len(block))
            yield part, at

    def _csv_parts(self, file: IO[bytes], at: Position) -> Iterator[tuple[Part, Position]]:
        assert self.header is not None
        # The limit is for the whole process; long prompts must pass.
        csv.field_size_limit(LONGEST)
        lines = _Decoded(self._lines(file))
        reader = self._csv_rows(lines)
        if at.rows == 0 and at.bytes == 0:
            next(reader)
        rows: list[list[str]] = []
        begun, read = at.bytes, at.bytes + lines.taken()
        for values in reader:
            read += lines.taken()
            if values:
                rows.append(values)
            # Rows that are too short are filled up: to so many cells, which full rows never reach.
            if read - begun >= PART_BYTES or len(rows) * len(self.header) >= PART_BYTES:
                at = Position(at.rows + len(rows), read)
                yield CsvRows(self.header, rows), at
                rows, begun = [], read
        if rows:
            yield CsvRows(self.header, rows), Position(at.rows + len(rows), read + lines.taken())

    def _csv_rows(self, lines: _Decoded) -> Iterator[list[str]]:
        """Yield the rows; of one that is no CSV the text, as one cell."""
        rows = csv.reader(lines)
        while True:
            try:
                yield next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                if lines.bytes > LONGEST:
                    raise DatasetError(
                        f"{self.path}: cannot be read: {error}: is a quote not closed?"
                    ) from error
                yield ["".join(lines.texts).rstrip("\r\n")]

    def _lines(self, file: IO[bytes], longest: int | None = None) -> Iterator[bytes]:
        """Yield the lines that are left."""
        most = LONGEST if longest is None else longest
        while line := file.readline(most + 1):
            if len(line) > most:
                raise DatasetError(
                    f"{self.path}: cannot be read: has a line of more than {most:,} bytes"
                )
            yield line

    def _open(self, position: int) -> IO[bytes]:
        import io

        if self.fs is None:
            if sys.stdin is None:
                raise DatasetError("standard input: is closed; expected prompts, one a line")
            return sys.stdin.buffer
        if self.form.compression is None:
            raw = self.fs.open_input_file(self.path)
            raw.seek(position)
            return io.BufferedReader(raw, 1 << 20)
        file = io.BufferedReader(
            self.fs.open_input_stream(self.path, compression=self.form.compression), 1 << 20
        )
        while position:
            skipped = len(file.read(min(position, PART_BYTES)))
            if not skipped:
                raise DatasetError(f"{self.path}: is shorter than it was: has it changed?")
            position -= skipped
        return file


class _Decoded:
    """Lines as text, and those of the row in work; bytes that are no UTF-8 become surrogates."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines = lines
        self.texts: list[str] = []
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            text = line.decode(errors="surrogateescape")
            self.bytes += len(line)
            self.texts.append(text)
            yield text

    def taken(self) -> int:
        """Return the bytes since the last call: those of a row, once it is there."""
        taken, self.bytes = self.bytes, 0
        self.texts.clear()
        return taken
