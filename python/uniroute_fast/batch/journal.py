"""How far a file has come: the finished parts, in a journal beside the bytes.

A part is finished once its line stands in the journal. Bytes beyond the last finished part are cut
off when the job goes on, and every finished part is checked against its checksum: after a power
cut a journal may know of bytes that never reached the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from uniroute_fast.batch.readers import Position
from uniroute_fast.batch.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uniroute_fast.batch.own_folder import OwnFolder
    from uniroute_fast.batch.writers import Encoded


def files_of(stem: str) -> tuple[str, str]:
    """Return the names of a growing file's bytes and of its journal."""
    return f"{stem}.part", f"{stem}.journal"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a write that fails where it was, and what it means."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}; what is finished stays: the same call goes on from there"
        raise OSError(error.errno, what, str(path)) from error


@dataclass
class Finished:
    """One finished part."""

    start: int
    end: int
    crc: int
    note: str
    position: Position
    totals: Totals


class PartialFile:
    """A file that grows by whole parts and can be taken up again.

    Parameters
    ----------
    folder : OwnFolder
    stem : str
        What the file is called while it grows, as is its journal.
    whole : str
        What it is called once it is finished.
    begin : bytes
        What the file begins with.
    """

    def __init__(self, folder: OwnFolder, stem: str, whole: str, begin: bytes) -> None:
        self.folder, self.whole = folder, whole
        self.part, self.journal = files_of(stem)
        self.finished = folder.has(whole) and folder.has(self.journal)
        if self.finished:
            with folder.open(self.journal) as lines:
                self.parts = [part for line in lines if (part := _parsed(line))]
        else:
            self._open(begin)

    def _open(self, begin: bytes) -> None:
        intact = list(self._intact(begin))
        self.parts = [part for part, _ in intact]
        self.end = self.parts[-1].end if intact else len(begin)
        take = self.folder.open if intact else self.folder.create
        self._bytes, self._lines = take(self.part), take(self.journal)
        if not intact:
            self._bytes.write(begin)
        self._bytes.truncate(self.end)
        self._bytes.seek(self.end)
        self._lines.truncate(sum(length for _, length in intact))
        self._lines.seek(0, os.SEEK_END)

    @property
    def position(self) -> Position:
        """Where the log is to be read from."""
        return self.parts[-1].position if self.parts else Position()

    def append(self, encoded: Encoded, crc: int, position: Position, totals: Totals) -> None:
        """Append a part: first its bytes, then its line in the journal."""
        start, self.end = self.end, self.end + len(encoded.data)
        values = [start, self.end, crc, encoded.note, position.rows, position.bytes]
        with writing(self.folder.path / self.part):
            self._bytes.write(encoded.data)
            self._bytes.flush()
            self._lines.write(json.dumps([*values, totals.to_dict()]).encode() + b"\n")
            self._lines.flush()
        self.parts.append(Finished(start, self.end, crc, encoded.note, position, totals))

    def finish(self, end: bytes) -> None:
        """Append what ends the file, make sure that all is on the disk, and give it its name."""
        with writing(self.folder.path / self.part):
            self._bytes.write(end)
            self._bytes.flush()
            os.fsync(self._bytes.fileno())
        self.folder.rename(self.part, self.whole)

    def close(self) -> None:
        """Close the files; what is finished stays."""
        if self.finished:
            return
        for file in (self._bytes, self._lines):
            # A disk that is full has said so already.
            with contextlib.suppress(OSError):
                file.close()

    def _intact(self, begin: bytes) -> Iterator[tuple[Finished, int]]:
        """Yield the finished parts whose bytes are there, and the lengths of their lines."""
        if not (self.folder.has(self.journal) and self.folder.has(self.part)):
            return
        with self.folder.open(self.part) as file, self.folder.open(self.journal) as lines:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(begin)) != begin:
                return
            for line in lines:
                part = _parsed(line)
                if part is None or not file.tell() == part.start <= part.end <= size:
                    return
                if part.crc != _crc(file, part):
                    return
                yield part, len(line)


def _parsed(line: bytes) -> Finished | None:
    """Return the part of a line; None for one that was not written to its end."""
    if not line.endswith(b"\n"):
        return None
    try:
        start, end, crc, note, rows, size, totals = json.loads(line)
        return Finished(start, end, crc, note, Position(rows, size), Totals.from_dict(totals))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _crc(file: IO[bytes], part: Finished) -> int:
    data: Any = file.read(part.end - part.start)
    return zlib.crc32(data)
