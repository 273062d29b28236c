"""Where a log lies: a file, a folder of files, a URL, or standard input."""

from __future__ import annotations

import os
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

    def has_changed(self) -> bool:
        """Tell whether the file is another one than when the log was found."""
        if self.fs is None:
            return False
        info = self.fs.get_file_info(self.path)
        return (info.size or 0, info.mtime_ns or 0) != (self.size, self.modified)


@dataclass(frozen=True)
class Log:
    """The files of a log, in their order.

    Attributes
    ----------
    files : list of LogFile
    is_folder : bool
    resumable : bool
        It can be read again: not standard input.
    local : Path, optional
        Its file or folder, where that is on this machine.
    """

    files: list[LogFile]
    is_folder: bool
    resumable: bool
    local: Path | None = None


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
    if not log:
        raise InvalidArgumentError("log: is empty; expected a path, a URL or -")
    try:
        fs, path = located(log)
        info = fs.get_file_info(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"log: {log!r} cannot be reached: {error}") from error
    local = Path(path) if isinstance(fs, arrow_fs.LocalFileSystem) else None
    if info.type == arrow_fs.FileType.NotFound:
        raise DatasetError(f"log: {log!r}: no such file or folder")
    if info.type == arrow_fs.FileType.Unknown:
        raise DatasetError(f"log: {log!r} is neither file nor folder; expected - to read a pipe")
    if info.is_file:
        file = _file(fs, info, info.base_name, format_of("log", log, named))
        return Log([file], False, True, local)
    if local is not None:
        _check_links(local)
    selector = arrow_fs.FileSelector(path, recursive=True)
    try:
        inside = sorted(fs.get_file_info(selector), key=lambda found: found.path)
    except OSError as error:
        raise DatasetError(f"log: {log!r} cannot be reached: {error}") from error
    files = []
    for found in inside:
        relative = PurePosixPath(found.path).relative_to(path)
        if found.is_file and not any(part[0] in "._" for part in relative.parts):
            form = format_of("log", found.path, named)
            files.append(_file(fs, found, str(relative), form))
    if not files:
        raise InvalidArgumentError(f"log: folder {log!r} holds no files; expected one or more")
    return Log(files, True, True, local)


def located(path: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path within it.

    Raises
    ------
    InvalidArgumentError
        Its name is no Unicode, which pyarrow needs.
    pyarrow.ArrowException, OSError
        Not a URL that pyarrow knows.
    """
    from pyarrow import fs

    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{path!r}: expected a path that is valid UTF-8") from error

    if "://" in path:
        return fs.FileSystem.from_uri(path)  # type: ignore[no-any-return]
    return fs.LocalFileSystem(), str(Path(path).absolute())


def _check_links(folder: Path) -> None:
    """Refuse links that lead nowhere, or to files that the folder holds already."""
    inside = folder.resolve()
    for link in filter(Path.is_symlink, folder.rglob("*")):
        to = Path(os.path.realpath(link))
        if not to.exists():
            raise DatasetError(f"log: {str(link)!r} is a link that leads nowhere")
        if to.is_relative_to(inside) or inside.is_relative_to(to):
            raise InvalidArgumentError(
                f"log: {str(link)!r} is a link to what the folder holds already; expected no file "
                "of it twice"
            )


def _file(fs: Any, info: Any, relative: str, form: Format) -> LogFile:
    return LogFile(fs, info.path, relative, form, info.size or 0, info.mtime_ns or 0)
