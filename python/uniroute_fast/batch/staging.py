"""Where the output grows until it is whole, and how it then takes its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast.batch.formats import Format, format_of
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from uniroute_fast.batch.logs import LogFile


class Target:
    """Where the output goes: a file or a folder, here or at a URL."""

    def __init__(self, out: str, is_folder: bool) -> None:
        self.out, self.is_folder = out.rstrip("/") if is_folder else out, is_folder
        self.is_url = "://" in out
        # A URL's file is made here and sent when whole.
        local = Path(Path(self.out).name) if self.is_url else Path(self.out)
        self.path = local
        if not self.is_url and not is_folder and local.is_dir():
            raise InvalidArgumentError(f"out: {out!r} is a folder; expected a file")
        if is_folder and not self.is_url and local.is_dir() and any(local.iterdir()):
            raise InvalidArgumentError(f"out: folder {out!r} exists and is not empty")
        if is_folder and local.is_file():
            raise InvalidArgumentError(f"out: {out!r} is a file; the log is a folder")
        if not local.parent.is_dir():
            raise InvalidArgumentError(f"out: no folder {str(local.parent)!r}")
        self.staging = local.with_name(f".{local.name}.partial")

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
        """Put the output in its place, in one step, and tidy up."""
        if not self.target.is_folder:
            self._put(self.folder / self.target.path.name)
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for journal in self.folder.rglob("*.journal"):
            journal.unlink()
        for own in (self.IDENTITY, self.LOCK):
            (self.folder / own).unlink()
        self._put(self.folder)

    def _put(self, whole: Path) -> None:
        if self.target.is_url:
            from pyarrow import fs

            fs.copy_files(str(whole.absolute()), self.target.out)
        else:
            whole.replace(self.target.path)

    def _sweep(self) -> None:
        for left in self.folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != self.LOCK:
                left.unlink()

    def _save(self) -> None:
        state = {"identity": self.identity, "cost_weight": self._weight}
        temporary = self.folder / (self.IDENTITY + ".new")
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
    except BlockingIOError as error:
        raise InvalidArgumentError(f"out: another process is making {out!r} right now") from error
