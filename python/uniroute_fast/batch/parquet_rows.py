"""The rows of a Parquet file in batches whose size is bounded by bytes, not by rows alone.

In the file a long value that comes a thousand times may lie once, in a dictionary or as the
beginning of the values after it; read, it is there a thousand times. How long such values can be
is in the headers of pages. Those are read before the rows are, as many as can be: of a file that
is not on this machine only the first of each column, where the dictionary is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast.batch.parquet_footer import read_page
from uniroute_fast.errors import UniRouteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uniroute_fast.batch.parquet_footer import Page

#: Bytes that values which repeat may take in a batch, and values of one column of lists.
EXPANDED = 1 << 30
VALUES = 1 << 26

#: Rows of row groups that are read together.
TOGETHER = 1 << 16

#: Bytes of a page's header: most have fewer, and none may have more.
HEADER, LONGEST_HEADER = 1 << 14, 1 << 24


def check_counts(metadata: Any) -> None:
    """Refuse a footer that counts rows or values below zero, or rows that no group has.

    Raises
    ------
    UniRouteError
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise UniRouteError(
            f"parquet: a footer of {metadata.num_rows} rows in groups of {rows[:8]}"
        )


def row_batches(
    file: Any, source: Any, is_local: bool, groups: Iterable[int], most: int
) -> Iterator[Any]:
    """Yield the rows of some row groups.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    source : pyarrow.NativeFile
        What it reads.
    is_local : bool
        It lies on this machine: a small read costs little.
    groups : iterable of int
    most : int
        Rows of a batch.
    """
    for together in _together(file.metadata, groups):
        rows = min(_rows_at_once(file.metadata.row_group(g), source, is_local) for g in together)
        yield from file.iter_batches(min(rows, most), row_groups=together, use_threads=False)


def _together(metadata: Any, groups: Iterable[int]) -> Iterator[list[int]]:
    """Yield row groups, small ones together: to begin one costs as much as to read many rows."""
    waiting: list[int] = []
    rows = 0
    for group in groups:
        waiting.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= TOGETHER:
            yield waiting
            waiting, rows = [], 0
    if waiting:
        yield waiting


def _rows_at_once(group: Any, source: Any, is_local: bool) -> int:
    """Return how many rows of a group a batch may have, 1 at least."""
    longest = values = 1
    for i in range(group.num_columns):
        chunk = group.column(i)
        values = max(values, chunk.num_values // max(1, group.num_rows))
        if chunk.physical_type == "BYTE_ARRAY":
            every = is_local or "DELTA_BYTE_ARRAY" in chunk.encodings
            pages = _pages(chunk, source, every)
            longest = max(longest, *(page.size for page in pages if page.repeats), 1)
    return max(1, min(EXPANDED // longest, VALUES // values))


def _pages(chunk: Any, source: Any, every: bool) -> Iterator[Page]:
    """Yield the headers of a column's pages in a row group, or of the first alone."""
    offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
    at = min((offset for offset in offsets if offset), default=0)
    end = at + chunk.total_compressed_size
    while 0 < at < end:
        data = source.read_at(min(HEADER, end - at), at)
        try:
            page = read_page(data)
        except UniRouteError:
            if len(data) < HEADER:
                raise
            page = read_page(source.read_at(min(LONGEST_HEADER, end - at), at))
        yield page
        if not every:
            return
        at += page.end
