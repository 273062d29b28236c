"""How far a job is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniroute_fast.batch.logs import LogFile
    from uniroute_fast.batch.readers import Position, Reader


@dataclass(frozen=True)
class Progress:
    """How far a pass over a log is.

    Attributes
    ----------
    stage : str
        "price" (what cost weight keeps to the budget?), "route" or "compare".
    share : float or None
        Of the log's bytes; None where that cannot be told.
    rows : int
    bytes : int
        Of the log's files, as they lie there.
    spend : float
        So far; 0 while nothing is decided.
    """

    stage: str
    share: float | None
    rows: int
    bytes: int
    spend: float = 0.0


#: Called after every part.
Callback = Callable[[Progress], None]


class Meter:
    """Tells a callback how far one pass is; without one, nobody."""

    def __init__(self, stage: str, files: Sequence[LogFile], callback: Callback | None) -> None:
        self.stage = stage
        self.callback = callback
        self._total = sum(file.size for file in files)
        self._before = 0
        self.rows = 0

    def at(self, file: LogFile, reader: Reader, position: Position, spend: float = 0.0) -> None:
        """Note that a file is done up to a position."""
        if self.callback is None:
            return
        done = (position.bytes or position.rows) / reader.total if reader.total else None
        read = self._before + round(file.size * (done or 0.0))
        share = read / self._total if self._total and done is not None else None
        rows = self.rows + position.rows
        self.callback(Progress(self.stage, share, rows, read, spend))

    def end(self, file: LogFile, rows: int) -> None:
        """Note that a file of so many rows is done."""
        self._before += file.size
        self.rows += rows
