"""A folder in which only this package writes, under a name that anyone can foresee.

Whoever foresees the name may have put something there: a link, a folder of theirs, links in it. So
the folder is held open and worked on through its descriptor, no link is followed, a file is
created only where none is, and one that was there is taken up only if it has no second name.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UNFOLLOWED = os.O_CLOEXEC | os.O_NOFOLLOW


class OwnFolder:
    """A folder of this user's, which no other user may enter; made where there is none.

    Raises
    ------
    InvalidArgumentError
        There is something else under its name, or a folder of another user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(0o700)
            made = True
        except FileExistsError:
            made = False
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _UNFOLLOWED)
        except OSError as error:
            if path.is_symlink() or not path.is_dir():
                raise self.refused("", "is a link or no folder") from error
            raise
        if not made and os.fstat(self._fd).st_uid != os.geteuid():
            self.close()
            raise self.refused("", "belongs to another user")

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)

    def refused(self, name: str, problem: str) -> InvalidArgumentError:
        """Return the error that says what is wrong with the folder, or with something in it."""
        return InvalidArgumentError(
            f"out: {str(self.path / name)!r} {problem}; expected nothing there, or what an earlier "
            "job left: move it away"
        )

    def check(self, is_ours: Callable[[str, bool], bool]) -> None:
        """Refuse a folder with anything in it that is not ours, and keep all others out of it.

        Parameters
        ----------
        is_ours : callable
            Given the name of a file or folder within this one, and whether it is a folder.
        """
        for name, found in self._contents():
            is_folder = stat.S_ISDIR(found.st_mode)
            if not is_folder and not stat.S_ISREG(found.st_mode):
                raise self.refused(name, "is a link or no file")
            if not is_ours(name, is_folder):
                raise self.refused(name, "was not written by a job")
            if not is_folder and found.st_nlink != 1:
                raise self.refused(name, "is a file with another name elsewhere")
        os.fchmod(self._fd, 0o700)

    def has(self, name: str) -> bool:
        """Tell whether there is something of that name."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str) -> IO[bytes]:
        """Create a file, in place of the one that has the name."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
        return self._file(name, self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL))

    def open(self, name: str) -> IO[bytes]:
        """Open a file that is there, to read it and to write on."""
        return self._checked(name, os.O_RDWR)

    def open_or_create(self, name: str) -> IO[bytes]:
        """Open a file as it is, after creating it where there is none."""
        return self._checked(name, os.O_RDWR | os.O_CREAT)

    def is_at(self, name: str, file: IO[bytes]) -> bool:
        """Tell whether a file that is open is the one of that name."""
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(file.fileno()))

    def rename(self, name: str, to: str) -> None:
        """Give a file another name within the folder; folders on the way to it are made."""
        for parent in list(PurePosixPath(to).parents)[-2::-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, dir_fd=self._fd)
        os.replace(name, to, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def hand_over(self, name: str, to: Path) -> None:
        """Move a file or folder out of here to its place, in one step."""
        os.replace(name, to, src_dir_fd=self._fd)

    def empty(self, *but: str) -> None:
        """Remove all that is in the folder but some files; it was checked before."""
        # What lies in a folder comes after it.
        for name, found in reversed(list(self._contents())):
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=self._fd)
            elif name not in but:
                os.unlink(name, dir_fd=self._fd)

    def remove(self, *last: str) -> None:
        """Remove the folder and all that is in it, some files in this order after the others."""
        self.empty(*last)
        for name in last:
            os.unlink(name, dir_fd=self._fd)
        self.path.rmdir()

    def _contents(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield what is in the folder, at any depth, by its name from here."""

        def fail(error: OSError) -> None:
            raise error

        for top, folders, files, fd in os.fwalk(dir_fd=self._fd, onerror=fail):
            for name in folders + files:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                yield str(PurePosixPath(top, name)), found

    def _checked(self, name: str, flags: int) -> IO[bytes]:
        try:
            # A pipe would keep us waiting for its other end.
            fd = self._open(name, flags | os.O_NONBLOCK)
        except IsADirectoryError as error:
            raise self.refused(name, "is a folder") from error
        except OSError as error:
            if self.has(name) and not stat.S_ISREG(
                os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode
            ):
                raise self.refused(name, "is a link or no file") from error
            raise
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(fd)
            raise self.refused(name, "is no file, or one with another name elsewhere")
        return self._file(name, fd)

    def _file(self, name: str, fd: int) -> IO[bytes]:
        return open(self.path / name, "r+b", opener=lambda *_: fd)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | _UNFOLLOWED, 0o666, dir_fd=self._fd)
