"""LLMRouterBench: answers of 33 LLMs with scores and what each call cost (arXiv 2601.07206)."""

from __future__ import annotations

import json
import lzma
import os
import re
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from uniroute_fast.datasets.collect import Collector, as_number
from uniroute_fast.datasets.prices import Costs, read_costs
from uniroute_fast.datasets.source import files_in, local_copy
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uniroute_fast.datasets.dataset import Dataset

ARCHIVE = "bench-release.tar.gz"

#: Bytes of a run in the archive, once decompressed.
LONGEST = 1 << 30


def from_llmrouterbench(
    source: str | os.PathLike[str] = "NPULH/LLMRouterBench", *, costs: Costs | None = None
) -> Dataset:
    """Load LLMRouterBench.

    Parameters
    ----------
    source : str or path-like
        ``bench-release.tar.gz``, the folder that it unpacks to, or its name on the Hugging Face
        hub. Each JSON file is one run of one LLM on one data set: ``dataset_name``, ``split``,
        ``model_name``, and ``records`` with ``index``, ``origin_query``, ``score`` and ``cost``.
        Of several runs the last counts; those marked ``demo`` do not.
    costs : path or mapping, optional
        Cost of each LLM: a CSV file with the columns model and cost, or a dict. Default: the mean
        USD of its calls, as recorded. Runs of local LLMs record 0: give costs for those.

    Returns
    -------
    Dataset
        Prompts are called ``dataset/split/index``.

    Raises
    ------
    DatasetError
        Files that cannot be used; the message names file and record.
    MissingExtraError
        A download, and the extra ``datasets`` is not installed.
    """
    last: dict[tuple[str, str, str], _Run] = {}
    for name, content in _runs(local_copy(source, [ARCHIVE])):
        if content.get("demo"):
            continue
        run = _Run.of(name, content)
        if run.key not in last or last[run.key].date <= run.date:
            last[run.key] = run
    collector = Collector("LLMRouterBench")
    for dataset, split, model in sorted(last):
        run = last[dataset, split, model]
        for i, (index, query, score, cost) in enumerate(run.outcomes):
            where, prompt = f"{run.name}, record {i}", f"{dataset}/{split}/{index}"
            collector.prompt(prompt, dataset, query, where)
            collector.outcome(prompt, model, score, where, as_number(cost, where, "the cost"))
    if costs is None:
        return collector.dataset(collector.mean_costs(), "USD a prompt")
    return collector.dataset(*read_costs(costs))


@dataclass(frozen=True)
class _Run:
    """What is needed of a run: the answers themselves, most of its size, are let go."""

    name: str
    date: str
    key: tuple[str, str, str]
    outcomes: list[tuple[Any, Any, Any, Any]]

    @classmethod
    def of(cls, name: str, content: dict[str, Any]) -> _Run:
        try:
            key = tuple(str(content[part]) for part in ("dataset_name", "split", "model_name"))
            records = list(content["records"])
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{name}: not a run of LLMRouterBench: no {error}") from error
        outcomes = []
        for i, record in enumerate(records):
            try:
                query = record["origin_query"]
                # All LLMs are asked the same: one copy of each text.
                query = sys.intern(query) if type(query) is str else query
                outcomes.append((record["index"], query, record["score"], record["cost"]))
            except (KeyError, TypeError) as error:
                raise DatasetError(f"{name}, record {i}: no {error}") from error
        return cls(name, _date(name), (key[0], key[1], key[2]), outcomes)


def _runs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and content of each run."""
    if path.is_dir():
        archive = next(path.rglob(ARCHIVE), None)
        if archive is None:
            for file in files_in(path, ["*.json"]):
                yield str(file), _parsed(str(file), file.read_bytes)
            return
        path = archive
    try:
        with tarfile.open(path) as members:
            # Read from the archive, never unpacked: its names reach no file system.
            for member in members:
                content = members.extractfile(member) if member.name.endswith(".json") else None
                if content is not None and member.size > LONGEST:
                    raise DatasetError(
                        f"{path}: {member.name}: {member.size:,} bytes; expected at most "
                        f"{LONGEST:,}"
                    )
                if content is not None:
                    yield member.name, _parsed(f"{path}: {member.name}", content.read)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{path}: not an archive that can be read: {error}") from error


def _parsed(name: str, read: Callable[[], bytes]) -> dict[str, Any]:
    try:
        run = json.loads(read())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{name}: not JSON: {error}") from error
    if not isinstance(run, dict):
        raise DatasetError(f"{name}: not a run of LLMRouterBench")
    return run


def _date(name: str) -> str:
    """Return the date in a file's name, ``YYYYMMDD_HHMMSS``, or nothing: before all dates."""
    match = re.search(r"\d{8}_\d{6}$", PurePath(name).stem)
    return match[0] if match else ""
