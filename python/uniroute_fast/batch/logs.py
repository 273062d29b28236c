"""Where a log lies: a file, a folder of files, a URL, or standard input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.formats import Format, format_of
from uniroute_fast.errors import DatasetError, InvalidArgumentError


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Attributes
    ----------
    fs : pyarrow.fs.FileSystem, or None for standard input
    path : str
        Within the file system.
    relative : str
        Within the log's folder.
    form : Format
    size : int
    modified : int
        In nanoseconds.
    """

    fs: Any
    path: str
    relative: str
    form: Format
    size: int = 0
    modified: int = 0

    def identity(self) -> list[Any]:
        """Return what changes when the file does."""
        return [self.path, self.size, self.modified]


@dataclass(frozen=True)
class Log:
    """The files of a log, in their order."""

    files: list[LogFile]
    is_folder: bool
    resumable: bool


def find_log(log: str, named: str | None = None) -> Log:
    """Find the files of a log.

    Parameters
    ----------
    log : str
        A path, a URL or ``-``. Files of a folder are taken in the order of their paths, at any
        depth; those that begin with a dot or an underscore are left out.
    named : str, optional
        The format, in place of what suffixes say.

    Raises
    ------
    DatasetError, InvalidArgumentError
        There is nothing to read, or its format is not known.
    """
    pa = pyarrow()
    from pyarrow import fs as arrow_fs

    if log == "-":
        return Log(
            [LogFile(None, "standard input", "-", Format(named or "text", None))], False, False
        )
    try:
        fs, path = (
            arrow_fs.FileSystem.from_uri(log)
            if "://" in log
            else (arrow_fs.LocalFileSystem(), str(Path(log).absolute()))
        )
        info = fs.get_file_info(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"log: {log!r} cannot be reached: {error}") from error
    if info.type == arrow_fs.FileType.NotFound:
        raise DatasetError(f"log: {log!r}: no such file or folder")
    if info.is_file:
        return Log([_file(fs, info, info.base_name, format_of("log", log, named))], False, True)
    selector = arrow_fs.FileSelector(path, recursive=True)
    files = []
    for found in sorted(fs.get_file_info(selector), key=lambda found: found.path):
        relative = PurePosixPath(found.path).relative_to(path)
        if found.is_file and not any(part[0] in "._" for part in relative.parts):
            form = format_of("log", found.path, named)
            files.append(_file(fs, found, str(relative), form))
    if not files:
        raise InvalidArgumentError(f"log: folder {log!r} holds no files; expected one or more")
    return Log(files, True, True)


def _file(fs: Any, info: Any, relative: str, form: Format) -> LogFile:
    return LogFile(fs, info.path, relative, form, info.size or 0, info.mtime_ns or 0)
