"""A progress bar on standard error, where that is a terminal and tqdm is installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniroute_fast.batch import Progress


class Bar:
    """Shows rows/s, bytes/s, the time left and the spend so far; a context manager."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.stage = ""
        self.make: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.make = tqdm

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, progress: Progress) -> None:
        """Show how far a pass is."""
        if self.make is None:
            return
        if progress.stage != self.stage:
            self.__exit__()
            self.bar = self.make(desc=progress.stage, unit=" rows", unit_scale=True)
            self.stage = progress.stage
        if progress.share:
            self.bar.total = round(progress.rows / progress.share)
        seconds = self.bar.format_dict["elapsed"]
        rate = f"{progress.bytes / seconds / 1e6:.1f} MB/s" if seconds else ""
        spend = f", spend {progress.spend:,.4g}" if progress.spend else ""
        self.bar.set_postfix_str(rate + spend, refresh=False)
        self.bar.update(progress.rows - self.bar.n)
