"""Where the output grows until it is whole, and how it then takes its place."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.formats import Format, format_of
from uniroute_fast.batch.journal import files_of, writing
from uniroute_fast.batch.logs import located
from uniroute_fast.batch.own_folder import OwnFolder
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
            is_other = kind == arrow_fs.FileType.Unknown
            holds = is_folder and self.fs.get_file_info(arrow_fs.FileSelector(self.where))
        except (pa.ArrowException, OSError) as error:
            raise InvalidArgumentError(f"out: {out!r} cannot be reached: {error}") from error
        if is_other:
            raise InvalidArgumentError(f"out: {out!r} is neither file nor folder")
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
        if self.is_at(source):
            raise InvalidArgumentError(f"out: {self.out!r} is the log; expected another file")
        if self.path.is_relative_to(source):
            raise InvalidArgumentError(
                f"out: {self.out!r} lies in the log, {str(source)!r}; expected a place outside"
            )

    def is_at(self, path: Path) -> bool:
        """Tell whether the output would take the place of a file or folder."""
        there = self.is_local and self.path.exists() and path.exists()
        return there and self.path.samefile(path)

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


class Place(NamedTuple):
    """Where in the staging folder one output grows, and where it lies once it is finished."""

    stem: str
    whole: str


class Staging:
    """The folder in which the output grows.

    It says which job it belongs to and which files that job writes: another job's leftovers are
    swept away, those of the same job are gone on with, and anything else in it is refused before
    anything changes. A lock keeps a second process out.
    """

    IDENTITY = "_uniroute.json"
    UNSAVED = "_uniroute.json.new"
    LOCK = "_lock"
    WHOLE = "_whole"

    def __init__(
        self, target: Target, identity: dict[str, Any], names: list[str], resumable: bool
    ) -> None:
        self.target = target
        # As JSON gives it back.
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.names = names
        self.resumable = resumable

    def __enter__(self) -> Staging:
        with contextlib.ExitStack() as opened:
            self.folder = OwnFolder(self.target.staging)
            opened.callback(self.folder.close)
            if not self.folder.has(self.LOCK):
                # Before the lock is made, which is a change.
                self._check()
            self._lock = opened.enter_context(self.folder.open_or_create(self.LOCK))
            self._hold()
            state = self._check()
            if not self.resumable or state.get("identity") != self.identity:
                state = {}
                self.folder.empty(self.LOCK, self.IDENTITY)
            self._weight: float | None = state.get("cost_weight")
            self._save()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def place(self, name: str) -> Place:
        """Return where the output of a file grows."""
        return self._places(self.names, self.target.is_folder)[name]

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
        elif target.is_folder:
            self.folder.hand_over(self.WHOLE, target.path)
        else:
            self.folder.hand_over(self.place(target.path.name).whole, target.path)
        # The output is there: what is left beside it is swept away by the next job.
        with contextlib.suppress(OSError):
            self.folder.remove(self.IDENTITY, self.LOCK)

    def _send(self) -> None:
        from pyarrow import fs

        target = self.target
        for name in self.names:
            where = PurePosixPath(target.where)
            if target.is_folder:
                where /= name
                target.fs.create_dir(str(where.parent), recursive=True)
            source = str((self.folder.path / self.place(name).whole).absolute())
            fs.copy_files(source, str(where), destination_filesystem=target.fs)

    def _check(self) -> dict[str, Any]:
        """Return what the job that left this folder says of itself, after checking that it is ours.

        Raises
        ------
        InvalidArgumentError
            Something in it was not written by that job.
        """
        state = self._state()
        places = self._places(state.get("names", []), state.get("is_folder", False)).values()
        files = {self.IDENTITY, self.UNSAVED, self.LOCK}
        files.update(name for place in places for name in (*files_of(place.stem), place.whole))
        folders = {str(parent) for place in places for parent in PurePosixPath(place.whole).parents}
        self.folder.check(lambda name, is_folder: name in (folders if is_folder else files))
        return state

    def _hold(self) -> None:
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed it since it was opened here.
            held = self.folder.is_at(self.LOCK, self._lock)
        except BlockingIOError:
            held = False
        if not held:
            raise InvalidArgumentError(
                f"out: another process is making {self.target.out!r} right now"
            )

    def _save(self) -> None:
        state = {
            "identity": self.identity,
            "cost_weight": self._weight,
            "names": self.names,
            "is_folder": self.target.is_folder,
        }
        with writing(self.folder.path / self.UNSAVED):
            with self.folder.create(self.UNSAVED) as file:
                file.write(json.dumps(state).encode())
            self.folder.rename(self.UNSAVED, self.IDENTITY)

    def _state(self) -> dict[str, Any]:
        """Return what the job that left this folder says of itself; nothing without one."""
        if not self.folder.has(self.IDENTITY):
            return {}
        with self.folder.open(self.IDENTITY) as file:
            text = file.read()
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        names = state.get("names") if isinstance(state, dict) else None
        ours = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return state if ours else {}

    @classmethod
    def _places(cls, names: list[str], is_folder: bool) -> dict[str, Place]:
        # A name of its own for each, without its folders.
        return {
            name: Place(str(i) if is_folder else name, f"{cls.WHOLE}/{name}")
            for i, name in enumerate(names)
        }
