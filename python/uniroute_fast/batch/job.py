"""A whole log, routed: read, route, write, and go on where it was killed."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast import _native
from uniroute_fast._checks.scalars import as_number
from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.budget import Spending, Steps
from uniroute_fast.batch.decide import BatchRouter
from uniroute_fast.batch.journal import PartialFile
from uniroute_fast.batch.logs import LogFile, find_log
from uniroute_fast.batch.pipeline import checked_threads, ordered, scan
from uniroute_fast.batch.progress import Callback, Meter
from uniroute_fast.batch.readers import BLOCK_ROWS, PART_BYTES, PART_ROWS, Reader, open_log, reading
from uniroute_fast.batch.staging import Staging, Target
from uniroute_fast.batch.totals import Totals
from uniroute_fast.batch.writers import Encoded, Writer, open_writer
from uniroute_fast.errors import DatasetError, InvalidArgumentError

if TYPE_CHECKING:
    from uniroute_fast.batch.parts import Part
    from uniroute_fast.batch.prompter import Prompts


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
    progress: Callback | None = None,
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
        Given a `Progress` after every part.

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

    Memory is that of a few parts of 32,768 rows or 16 MB of text. Finished parts lie in
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
    router.load()
    if budget is not None:
        budget = as_number("budget", budget, 0)
    threads = checked_threads(threads)
    source = find_log(os.fspath(log), log_format)
    if budget is not None and not source.resumable:
        raise InvalidArgumentError(
            "budget: takes two passes over the log; expected a file or folder, not standard input"
        )
    target = Target(os.fspath(out), source)
    if isinstance(pool, (str, os.PathLike)) and target.is_at(Path(pool)):
        raise InvalidArgumentError(f"out: {target.out!r} is the pool; expected another file")

    def opened(file: LogFile) -> _FileJob:
        return _FileJob(file, target, out_format, compression, router)

    # All are opened before anything is written, so that what does not fit is refused at once, and
    # again for their turn: there may be too many to keep them open.
    names = _distinct([opened(file).name for file in source.files])
    identity = {
        "pool": router.digest(),
        "log": [file.identity() for file in source.files],
        "router": [text_column, messages_column, prefix],
        "weight": [cost_weight, budget],
        "form": [log_format, out_format, compression, BLOCK_ROWS, PART_ROWS, PART_BYTES],
        "versions": _versions(),
    }
    with Staging(target, identity, names, source.resumable) as staging:
        if budget is not None:
            if staging.cost_weight is None:
                meter = Meter("price", source.files, progress)
                staging.keep(_cost_weight(router, source.files, budget, threads, meter))
            router.cost_weight = staging.cost_weight or 0.0
        summary = Summary(os.fspath(out), router.cost_weight)
        meter = Meter("route", source.files, progress)
        for file in source.files:
            _route_file(opened(file), router, staging, summary, threads, meter)
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


def _distinct(names: list[str]) -> list[str]:
    """Return the names of outputs, none of which may be there twice."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InvalidArgumentError(
            f"out: {count} files of the log would become {name!r}; expected names that differ"
        )
    return names


def _route_file(
    job: _FileJob,
    router: BatchRouter,
    staging: Staging,
    summary: Summary,
    threads: int,
    meter: Meter,
) -> None:
    """Route a file into the staging folder, from where an earlier run came to."""

    def work(part: Part) -> tuple[Encoded, int, Totals]:
        with reading(job.file.path, "cannot be routed"):
            columns = router.decide(part.prompts(router))
            encoded = job.writer.encode(part, columns)
        return encoded, zlib.crc32(encoded.data), Totals.of(columns)

    place = staging.place(job.name)
    partial = PartialFile(staging.folder, place.stem, place.whole, job.writer.begin())
    with contextlib.closing(partial):
        for part in partial.parts:
            summary.totals.add(part.totals)
            summary.resumed_rows += part.totals.rows
        if partial.finished:
            meter.end(job.file, partial.position.rows)
            return
        parts = job.reader.parts(partial.position)
        with contextlib.closing(ordered(parts, work, threads)) as results:
            for (encoded, crc, totals), at in results:
                partial.append(encoded, crc, at, totals)
                summary.totals.add(totals)
                meter.at(job.file, job.reader, at, summary.totals.cost)
        if job.file.has_changed():
            raise DatasetError(f"{job.file.path}: changed while it was routed; expected it to stay")
        partial.finish(job.writer.end((part.note, part.start) for part in partial.parts))
    meter.end(job.file, partial.position.rows)


def _cost_weight(
    router: BatchRouter, files: list[LogFile], budget: float, threads: int, meter: Meter
) -> float:
    """Return the least cost weight with which the whole log keeps to the budget."""
    spending = Spending(router)

    def work(_: Part, prompts: Prompts) -> Steps:
        return spending.of(prompts.texts)

    for steps in scan(files, router, work, threads, meter):
        spending.add(steps)
    return spending.cost_weight(budget)


def _versions() -> list[str]:
    """Return the versions that the output's bytes depend on."""
    return [_native.__version__, pyarrow().__version__]
