"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING

from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Give a file to write on, which takes its place under its name once all is written.

    It grows beside that place, under a name that nobody can foresee. A link of its name is
    replaced, not followed: someone else may have put it there. A file that is replaced leaves its
    permissions.

    Raises
    ------
    InvalidArgumentError
        A pipe, a device or a folder has the name.
    """
    place = Path(path)
    if place.exists() and not place.is_file():
        raise InvalidArgumentError(f"{place} is no file; expected one, or nothing")
    before = place.lstat().st_mode if place.exists() else 0
    growing = place.with_name(f".uniroute-{secrets.token_hex(8)}")
    with growing.open("xb") as file:
        try:
            if stat.S_ISREG(before):
                os.fchmod(file.fileno(), stat.S_IMODE(before))
            yield file
            file.close()
            growing.replace(place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                growing.unlink()
            raise
