"""Parquet files joined without decoding them: their bytes end to end, under one footer.

A Parquet file is ``PAR1``, column chunks, a footer, the footer's length, ``PAR1``. The footer is a
``FileMetaData`` in Thrift's compact protocol and holds absolute offsets of the chunks. To join
files, take the chunks as they are, shift each file's offsets to where its chunks now lie, and
concatenate the lists of row groups. Only what has to change is interpreted: every other field,
known or not, is carried over.

Sources: parquet.thrift of the Parquet format, and the Thrift compact protocol's specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from uniroute_fast.errors import UniRouteError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"PAR1"

# Types of the compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

# Numbers of the fields that are changed.
NUM_ROWS, ROW_GROUPS = 3, 4  # FileMetaData
COLUMNS, GROUP_OFFSET, ORDINAL = 1, 5, 7  # RowGroup
CHUNK_OFFSET, META_DATA, OFFSET_INDEX, COLUMN_INDEX = 2, 3, 4, 6  # ColumnChunk
PAGES = (9, 10, 11, 14)  # ColumnMetaData: data page, index page, dictionary page, bloom filter

# Numbers of the fields that are read of a page's header, and what they may say.
PAGE_TYPE, PAGE_SIZE, PAGE_COMPRESSED, DATA_PAGE, DATA_PAGE_V2 = 1, 2, 3, 5, 8
DICTIONARY_PAGE, DELTA_BYTE_ARRAY = 2, 7

#: Most levels of structs.
DEPTH = 16

#: A struct: type and value of each field by number, in the order of the file.
Struct = dict[int, tuple[int, Any]]


class Joined(NamedTuple):
    """What a file adds to a joined one."""

    chunks: memoryview
    footer: bytes


def split(file: memoryview) -> Joined:
    """Split a whole Parquet file, which encrypts nothing, into chunks and footer."""
    end = len(file) - 8
    start = end - int.from_bytes(file[end : end + 4], "little")
    if bytes(file[:4]) != MAGIC or bytes(file[-4:]) != MAGIC or start < 4:
        raise UniRouteError("parquet: not a whole file")
    return Joined(file[4:start], bytes(file[start:end]))


def join_footers(footers: Iterable[tuple[bytes, int]]) -> bytes:
    """Return the end of the joined file: footer, its length, magic.

    Parameters
    ----------
    footers : iterable of (bytes, int)
        Each file's footer, and where its chunks begin in the joined file. One or more, all of the
        same schema; the first one's other fields stay.
    """
    joined: Struct | None = None
    groups: list[Struct] = []
    rows = 0
    for footer, start in footers:
        metadata = _Reader(footer).struct()
        rows += metadata[NUM_ROWS][1]
        for group in metadata[ROW_GROUPS][1][1]:
            # `split` leaves the magic out.
            _move(group, start - len(MAGIC), len(groups))
            groups.append(group)
        joined = joined or metadata
    assert joined is not None
    joined[NUM_ROWS] = (I64, rows)
    joined[ROW_GROUPS] = (LIST, (STRUCT, groups))
    footer = _Writer().struct(joined)
    return footer + len(footer).to_bytes(4, "little") + MAGIC


class Page(NamedTuple):
    """What the header of a page says.

    Attributes
    ----------
    size : int
        Bytes of the page, decompressed: no value in it is longer.
    repeats : bool
        A few of those bytes may stand for many values, each of them long: a dictionary, or values
        that say how much of the one before they begin with.
    end : int
        Bytes of the header and of the page as it lies in the file.
    """

    size: int
    repeats: bool
    end: int


def read_page(data: bytes) -> Page:
    """Read the header of a page, with which the data begins."""
    reader = _Reader(data)
    fields = {number: value for number, (_, value) in reader.struct().items()}
    kind, size, compressed = (fields.get(n) for n in (PAGE_TYPE, PAGE_SIZE, PAGE_COMPRESSED))
    if not (isinstance(kind, int) and isinstance(size, int) and isinstance(compressed, int)):
        raise UniRouteError("parquet: no header of a page")
    if size < 0 or compressed < 0:
        raise UniRouteError(f"parquet: a page of {size} bytes, {compressed} of them in the file")
    headers = (fields.get(DATA_PAGE), 2), (fields.get(DATA_PAGE_V2), 4)
    encodings = [header.get(at) for header, at in headers if isinstance(header, dict)]
    repeats = kind == DICTIONARY_PAGE or (I32, DELTA_BYTE_ARRAY) in encodings
    return Page(size, repeats, reader.at + compressed)


def _move(group: Struct, by: int, ordinal: int) -> None:
    _add(group, GROUP_OFFSET, by)
    if ORDINAL in group:
        # An i16 in the format, which files of more row groups leave out.
        if ordinal < 1 << 15:
            group[ORDINAL] = (I16, ordinal)
        else:
            del group[ORDINAL]
    for chunk in group[COLUMNS][1][1]:
        for field in (CHUNK_OFFSET, OFFSET_INDEX, COLUMN_INDEX):
            _add(chunk, field, by)
        for field in PAGES:
            _add(chunk[META_DATA][1], field, by)


def _add(struct: Struct, field: int, by: int) -> None:
    # Offsets of 0 mean that there is none.
    if field in struct and struct[field][1] > 0:
        kind, value = struct[field]
        struct[field] = (kind, value + by)


class _Reader:
    """Reads the compact protocol."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self._depth = 0

    def struct(self) -> Struct:
        # Footers and headers have six levels.
        self._depth += 1
        if self._depth > DEPTH:
            raise UniRouteError(f"parquet: structs within structs, more than {DEPTH} deep")
        fields: Struct = {}
        number = 0
        while (head := self._byte()) != 0:
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else _unzigzag(self._varint())
            fields[number] = (kind, self._value(kind, in_struct=True))
        self._depth -= 1
        return fields

    def _value(self, kind: int, in_struct: bool = False) -> Any:
        if kind in (TRUE, FALSE):
            # A field's type says it all; in a list each has a byte.
            return kind == TRUE if in_struct else self._byte() == TRUE
        if kind == BYTE:
            return self._byte()
        if kind in (I16, I32, I64):
            return _unzigzag(self._varint())
        if kind == DOUBLE:
            return self._bytes(8)
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind in (LIST, SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            item = head & 15
            if item in (LIST, SET):
                raise UniRouteError("parquet: a list of lists, which no footer has")
            if count > len(self.data) - self.at:
                raise UniRouteError(f"parquet: a list of {count} items, more than there are bytes")
            return item, [self._value(item) for _ in range(count)]
        if kind == STRUCT:
            return self.struct()
        raise UniRouteError(f"parquet: a footer with a field of type {kind}, not known here")

    def _byte(self) -> int:
        if self.at == len(self.data):
            raise UniRouteError("parquet: ends within a struct")
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise UniRouteError(f"parquet: {count} bytes in a struct, more than there are")
        self.at += count
        return self.data[self.at - count : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise UniRouteError("parquet: an integer of more than 64 bits")
        return value | byte << shift


class _Writer:
    """Writes the compact protocol."""

    def __init__(self) -> None:
        self.out = bytearray()

    def struct(self, fields: Struct) -> bytes:
        self._struct(fields)
        return bytes(self.out)

    def _struct(self, fields: Struct) -> None:
        last = 0
        for number, (kind, value) in fields.items():
            if kind in (TRUE, FALSE):
                kind = TRUE if value else FALSE
            if 0 < number - last < 16:
                self.out.append((number - last) << 4 | kind)
            else:
                self.out.append(kind)
                self._varint(_zigzag(number))
            last = number
            if kind not in (TRUE, FALSE):
                self._value(kind, value)
        self.out.append(0)

    def _value(self, kind: int, value: Any) -> None:
        if kind in (TRUE, FALSE):
            self.out.append(TRUE if value else FALSE)
        elif kind == BYTE:
            self.out.append(value)
        elif kind in (I16, I32, I64):
            self._varint(_zigzag(value))
        elif kind == DOUBLE:
            self.out += value
        elif kind == BINARY:
            self._varint(len(value))
            self.out += value
        elif kind in (LIST, SET):
            item, values = value
            self.out.append(min(len(values), 15) << 4 | item)
            if len(values) >= 15:
                self._varint(len(values))
            for each in values:
                self._value(item, each)
        else:
            self._struct(value)

    def _varint(self, value: int) -> None:
        while value > 0x7F:
            self.out.append(value & 0x7F | 0x80)
            value >>= 7
        self.out.append(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if not value & 1 else -(value + 1 >> 1)
