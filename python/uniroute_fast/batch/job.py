"""A whole log, routed: read, route, write, and go on where it was killed."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from uniroute_fast import _native
from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.budget import Spending
from uniroute_fast.batch.decide import BatchRouter
from uniroute_fast.batch.journal import PartialFile
from uniroute_fast.batch.logs import LogFile, find_log
from uniroute_fast.batch.readers import PART_BYTES, PART_ROWS, Position, Reader, open_log
from uniroute_fast.batch.staging import Staging, Target
from uniroute_fast.batch.totals import Totals
from uniroute_fast.batch.writers import Encoded, Writer, open_writer
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from uniroute_fast.batch.parts import Part

T = TypeVar("T")

#: What a progress callback is given: the pass ("price" or "route"), the file, the share of it
#: that is done (None where unknown), and the totals so far.
Progress = Callable[[str, str, float | None, Totals], None]


@dataclass
class Summary:
    """What `route_log` did.

    Attributes
    ----------
    out : str
    cost_weight : float
        The one given, or the one that the budget led to.
    totals : Totals
    resumed_rows : int
        Rows that an earlier run had finished.
    seconds : float
        Of this run.
    """

    out: str
    cost_weight: float
    totals: Totals = field(default_factory=Totals)
    resumed_rows: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and numbers."""
        totals = self.totals.to_dict()
        routed = self.totals.routed
        return {
            "out": self.out,
            "cost_weight": self.cost_weight,
            **totals,
            "routed": routed,
            "mean_cost": self.totals.cost / routed if routed else None,
            "mean_predicted_loss": self.totals.predicted_loss / routed if routed else None,
            "resumed_rows": self.resumed_rows,
            "seconds": self.seconds,
        }


def route_log(
    pool: str | os.PathLike[str] | Any,
    log: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    cost_weight: float = 0.0,
    budget: float | None = None,
    text_column: str = "text",
    messages_column: str | None = None,
    prefix: str = "",
    log_format: str | None = None,
    out_format: str | None = None,
    compression: str = "snappy",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Route every prompt of a log, in bounded memory.

    Parameters
    ----------
    pool : path or Router
        With a path the job can be taken up again after a crash.
    log : path or URL
        A file, a folder of files (partitioned or not) or a URL that pyarrow knows (s3://, gs://):
        .parquet, .arrow, .jsonl, .csv or .txt, those of lines also with .gz, .zst or .bz2.
        ``-`` is standard input, one prompt a line.
    out : path or URL
        What `log` is: for a folder a folder of the same layout. Formats may differ, except that
        JSON lines stay JSON lines. It appears whole or not at all.
    cost_weight : float
    budget : float, optional
        Most that the whole log may cost, in the unit of the pool's costs: a first pass over the
        log finds the least cost weight that keeps to it. In place of `cost_weight`.
    text_column, messages_column, prefix
        As in `BatchRouter`.
    log_format, out_format : {"parquet", "arrow", "jsonl", "csv", "text"}, optional
        In place of what the suffix says.
    compression : str
        Of Parquet's pages: snappy, zstd, lz4, gzip, brotli, none.
    threads : int, optional
        Parts in work at once. Default: `get_num_threads`.
    progress : callable, optional
        Called after every part.

    Returns
    -------
    Summary

    Raises
    ------
    InvalidArgumentError, DatasetError, ArtifactError
        Arguments, columns or files that cannot be used; before anything is written, unless a file
        turns out damaged on the way.
    OSError
        The disk is full, say. What is finished stays: the same call goes on from there.

    Notes
    -----
    Rows that cannot be routed have nulls and a status: "null", "empty", "blank", "unknown",
    "invalid", "not text", "malformed". They never stop the job.

    Memory is that of a few parts of at most 32,768 rows or 16 MB of lines. Finished parts lie in
    ``.NAME.partial`` beside `out`; the same call with the same pool and log goes on from the last
    one, and its output is the same, byte for byte.
    """
    start = time.perf_counter()
    router = BatchRouter(
        pool,
        cost_weight,
        text_column=text_column,
        messages_column=messages_column,
        prefix=prefix,
    )
    if not router.router.models:
        raise InvalidArgumentError("pool: has no LLM yet; expected one or more: add them first")
    if budget is not None and not (0 <= budget < math.inf):
        raise InvalidArgumentError(f"budget: {budget}; expected a finite number, 0 or more")
    source = find_log(os.fspath(log), log_format)
    if budget is not None and not source.resumable:
        raise InvalidArgumentError(
            "budget: takes two passes over the log; expected a file or folder, not standard input"
        )
    target = Target(os.fspath(out), source.is_folder)
    # Opened before anything is written, so that what does not fit is refused at once.
    first = _FileJob(source.files[0], target, out_format, compression, router)

    def jobs() -> Iterator[_FileJob]:
        yield first
        for file in source.files[1:]:
            yield _FileJob(file, target, out_format, compression, router)

    identity = {
        "pool": _digest(pool),
        "log": [file.identity() for file in source.files],
        "router": [text_column, messages_column, prefix],
        "weight": [cost_weight, budget],
        "form": [log_format, out_format, compression, PART_ROWS, PART_BYTES],
        "versions": _versions(),
    }
    pipeline = _Pipeline(threads or _native.get_num_threads(), progress)
    with Staging(target, identity, source.resumable) as staging:
        if budget is not None:
            if staging.cost_weight is None:
                staging.keep(pipeline.price(jobs(), router, budget))
            router.cost_weight = staging.cost_weight or 0.0
        summary = Summary(os.fspath(out), router.cost_weight)
        for job in jobs():
            pipeline.route(job, router, staging, summary)
        staging.publish()
    summary.seconds = time.perf_counter() - start
    return summary


class _FileJob:
    """One file of a log, and the file that it becomes."""

    def __init__(
        self,
        file: LogFile,
        target: Target,
        out_format: str | None,
        compression: str,
        router: BatchRouter,
    ) -> None:
        self.file = file
        self.reader: Reader = open_log(file.fs, file.path, file.form, router)
        form = target.format_of(file, out_format)
        self.name = target.name_of(file, form)
        schema = self.reader.schema
        self.writer: Writer = open_writer(
            "out",
            form,
            router.names,
            None if schema is None else router.output_schema(schema),
            compression,
            router.text_column,
        )

    def parts(self, start: Position) -> Iterator[tuple[Part, Position]]:
        return self.reader.parts(start)

    def share(self, at: Position) -> float | None:
        """Return how much of the file lies before a position."""
        total = self.reader.total
        if not total:
            return None
        return (at.bytes or at.rows) / total


class _Pipeline:
    """Reads parts, works on some at once, and takes the results in order.

    The calling thread reads and writes while the others route and encode, which release the GIL:
    so reading, routing and writing overlap, and at most ``2 x threads`` parts are in memory.
    """

    def __init__(self, threads: int, progress: Progress | None) -> None:
        self.threads = threads
        self.progress = progress

    def route(self, job: _FileJob, router: BatchRouter, staging: Staging, summary: Summary) -> None:
        """Route a file into the staging folder."""

        def work(part: Part) -> tuple[Encoded, int, Totals]:
            prompts = part.prompts(router)
            columns = router.decide(prompts.texts, statuses=prompts.statuses)
            encoded = job.writer.encode(part, columns)
            return encoded, zlib.crc32(encoded.data), Totals.of(columns)

        partial = PartialFile(staging.path(job.name), job.writer.begin())
        with contextlib.closing(partial):
            for part in partial.parts:
                summary.totals.add(part.totals)
                summary.resumed_rows += part.totals.rows
            if partial.finished:
                return
            with contextlib.closing(self._ordered(job.parts(partial.position), work)) as done:
                for (encoded, crc, totals), at in done:
                    partial.append(encoded, crc, at, totals)
                    summary.totals.add(totals)
                    if self.progress:
                        self.progress("route", job.file.path, job.share(at), summary.totals)
            partial.finish(job.writer.end((part.note, part.start) for part in partial.parts))

    def price(self, jobs: Iterator[_FileJob], router: BatchRouter, budget: float) -> float:
        """Return the least cost weight with which the whole log keeps to the budget."""
        spending = Spending(router.router)
        totals = Totals()
        for job in jobs:
            done = self._ordered(
                job.parts(Position()), lambda part: spending.of(part.prompts(router).texts)
            )
            for counted, at in done:
                spending.add(counted)
                totals.rows = spending.rows
                if self.progress:
                    self.progress("price", job.file.path, job.share(at), totals)
        return spending.cost_weight(budget)

    def _ordered(
        self, parts: Iterator[tuple[Part, Position]], work: Callable[[Part], T]
    ) -> Generator[tuple[T, Position]]:
        waiting: deque[tuple[Any, Position]] = deque()
        with ThreadPoolExecutor(self.threads, "uniroute-batch") as pool:
            try:
                for part, at in parts:
                    waiting.append((pool.submit(work, part), at))
                    del part
                    while len(waiting) >= 2 * self.threads or (waiting and waiting[0][0].done()):
                        done, at = waiting.popleft()
                        yield done.result(), at
                while waiting:
                    done, at = waiting.popleft()
                    yield done.result(), at
            finally:
                pool.shutdown(cancel_futures=True)


def _digest(pool: Any) -> str:
    """Return what identifies a pool: all that its decisions come from."""
    data = (
        pool.to_bytes("null", {})
        if isinstance(pool, _native.Router)
        else Path(os.fspath(pool)).read_bytes()
    )
    return hashlib.sha256(data).hexdigest()


def _versions() -> list[str]:
    """Return the versions that the output's bytes depend on."""
    return [_native.__version__, pyarrow().__version__]
