"""Where the output grows until it is whole, and how it then takes its place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.formats import Format, format_of
from uniroute_fast.batch.journal import JOURNAL, writing
from uniroute_fast.batch.logs import located
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from uniroute_fast.batch.logs import Log, LogFile


class Target:
    """Where the output goes: a file or a folder, here or at a URL.

    Parameters
    ----------
    out : str
    log : Log
        What it is made of.

    Raises
    ------
    InvalidArgumentError
        It cannot be there, or would take the log's place.
    """

    def __init__(self, out: str, log: Log) -> None:
        pa = pyarrow()
        from pyarrow import fs as arrow_fs

        self.out, self.is_folder = out, log.is_folder
        try:
            self.fs, self.where = located(out)
            kind = self.fs.get_file_info(self.where).type
            is_folder, is_file = (kind == arrow_fs.FileType[n] for n in ("Directory", "File"))
            holds = is_folder and self.fs.get_file_info(arrow_fs.FileSelector(self.where))
        except (pa.ArrowException, OSError) as error:
            raise InvalidArgumentError(f"out: {out!r} cannot be reached: {error}") from error
        if is_folder and not self.is_folder:
            raise InvalidArgumentError(f"out: {out!r} is a folder; expected a file")
        if holds:
            raise InvalidArgumentError(f"out: folder {out!r} exists and is not empty")
        if is_file and self.is_folder:
            raise InvalidArgumentError(f"out: {out!r} is a file; the log is a folder")
        self.is_local = isinstance(self.fs, arrow_fs.LocalFileSystem)
        if self.is_local:
            # Links are followed: what they lead to is made, on its own disk.
            self.path = Path(self.where).resolve()
            self._check_local(log)
        else:
            # Made here and sent when whole.
            self.path = Path(Path(self.where).name)
        self.staging = self.path.with_name(f".{self.path.name}.partial")

    def _check_local(self, log: Log) -> None:
        if not self.path.parent.is_dir():
            raise InvalidArgumentError(f"out: no folder {str(self.path.parent)!r}")
        if log.local is None:
            return
        source = log.local.resolve()
        if self.path.exists() and self.path.samefile(source):
            raise InvalidArgumentError(f"out: {self.out!r} is the log; expected another file")
        if self.path.is_relative_to(source):
            raise InvalidArgumentError(
                f"out: {self.out!r} lies in the log, {str(source)!r}; expected a place outside"
            )

    def format_of(self, file: LogFile, named: str | None) -> Format:
        """Return the format of the output of a file."""
        if not self.is_folder:
            return format_of("out", self.out, named)
        return file.form if named is None else Format(named, None)

    def name_of(self, file: LogFile, form: Format) -> str:
        """Return the name of a file's output within the staging folder."""
        if not self.is_folder:
            return self.path.name
        if form == file.form:
            return file.relative
        return f"{file.relative}.{form.kind}"


class Staging:
    """The folder in which the output grows.

    It says which job it belongs to: another job's leftovers are swept away, those of the same job
    are gone on with. A lock keeps a second process out.
    """

    IDENTITY = "_uniroute.json"
    LOCK = "_lock"

    def __init__(self, target: Target, identity: dict[str, Any], resumable: bool) -> None:
        self.target = target
        self.folder = target.staging
        # As JSON gives it back.
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.resumable = resumable
        self._names: list[str] = []

    def __enter__(self) -> Staging:
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / self.LOCK).open("w")
        try:
            _lock(self._lock, self.target.out)
        except BaseException:
            self._lock.close()
            raise
        state = self._state() if self.resumable else None
        if state is None:
            self._sweep()
        self._weight: float | None = (state or {}).get("cost_weight")
        self._save()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def path(self, name: str) -> Path:
        """Return where the output of a file grows."""
        self._names.append(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def cost_weight(self) -> float | None:
        """What the budget led to, once known."""
        return self._weight

    def keep(self, cost_weight: float) -> None:
        """Note what the budget led to, for a later run of the same job."""
        self._weight = cost_weight
        self._save()

    def publish(self) -> None:
        """Put the output in its place, in one step where that is on this machine, and tidy up."""
        target = self.target
        if not target.is_local:
            self._send()
        elif not target.is_folder:
            (self.folder / target.path.name).replace(target.path)
        else:
            for name in self._names:
                (self.folder / (name + JOURNAL)).unlink()
            for own in (self.IDENTITY, self.LOCK):
                (self.folder / own).unlink()
            self.folder.replace(target.path)
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self) -> None:
        from pyarrow import fs

        target = self.target
        for name in self._names:
            where = PurePosixPath(target.where)
            if target.is_folder:
                where /= name
                target.fs.create_dir(str(where.parent), recursive=True)
            source = str((self.folder / name).absolute())
            fs.copy_files(source, str(where), destination_filesystem=target.fs)

    def _sweep(self) -> None:
        for left in self.folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != self.LOCK:
                left.unlink()

    def _save(self) -> None:
        state = {"identity": self.identity, "cost_weight": self._weight}
        temporary = self.folder / (self.IDENTITY + ".new")
        with writing(temporary):
            temporary.write_text(json.dumps(state))
            temporary.replace(self.folder / self.IDENTITY)

    def _state(self) -> dict[str, Any] | None:
        """Return what an earlier run of the same job left; None without one."""
        try:
            state = json.loads((self.folder / self.IDENTITY).read_text())
        except (OSError, ValueError):
            return None
        same = isinstance(state, dict) and state.get("identity") == self.identity
        return state if same else None


def _lock(file: Any, out: str) -> None:
    try:
        import fcntl
    except ImportError:  # Not on Windows: two jobs at once are then the user's to avoid.
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have tidied up since it was opened here.
        held = os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except (BlockingIOError, FileNotFoundError):
        held = False
    if not held:
        raise InvalidArgumentError(f"out: another process is making {out!r} right now")
