"""Sample logs of lm-evaluation-harness (``lm_eval ... --output_path DIR --log_samples``).

The harness writes a folder for each model, with ``results_DATE.json`` and, for each task,
``samples_TASK_DATE.jsonl``: one line for each question and filter, with the prompt that was sent in
``arguments`` and the question's own score under each name of ``metrics``.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast.datasets.collect import Collector
from uniroute_fast.datasets.prices import Costs, read_costs
from uniroute_fast.embedding.chat import chat_text
from uniroute_fast.errors import DatasetError, UniRouteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uniroute_fast.datasets.dataset import Dataset

_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)")

#: Bytes of a sample.
LONGEST = 1 << 28

#: Unit of the costs where none are given: the sizes that the harness logs of local models.
SIZES = "billions of parameters"


def from_lm_eval(
    path: str | os.PathLike[str],
    *,
    costs: Costs | None = None,
    metric: str | None = None,
    filter_name: str | None = None,
    field: str | None = None,
) -> Dataset:
    """Load the sample logs of lm-evaluation-harness.

    Parameters
    ----------
    path : str or path-like
        The ``--output_path`` of one or more runs: folders of models, at any depth. Where a model
        was run on a task more than once, the last run counts.
    costs : path or mapping, optional
        Cost of each model: a CSV file with the columns model and cost, or a dict. Default: its
        billions of parameters, where the results of every model say how many it has.
    metric : str, optional
        The metric that is the score, in [0, 1], higher is better. Default: the first that the
        task reports.
    filter_name : str, optional
        The filter whose scores count, such as ``flexible-extract``. Default: the first of each
        file.
    field : str, optional
        Field of the document that is the prompt, such as ``question``. Default: the whole prompt
        that was sent, few-shot examples and all; of chat messages, what the user wrote.

    Returns
    -------
    Dataset
        Prompts are called ``task/doc_id``.

    Raises
    ------
    DatasetError
        No logs, a line that cannot be used (the message names file and line), a metric that is
        not there or where lower is better, models that were asked other questions, or one without
        a cost.
    """
    logs = _find(Path(path))
    collector = Collector(Path(path).name)
    hashes: dict[str, Any] = {}
    for log in logs:
        wanted = filter_name
        for where, sample in _samples(log.file):
            wanted = sample.get("filter") if wanted is None else wanted
            if sample.get("filter") != wanted:
                continue
            name = f"{log.task}/{sample.get('doc_id')}"
            if hashes.setdefault(name, sample.get("doc_hash")) != sample.get("doc_hash"):
                raise DatasetError(
                    f"{where}: {log.model!r} was asked another question under {name!r} than "
                    "the models before it"
                )
            collector.prompt(name, log.task, _prompt(sample, field, where), where)
            score = sample[_metric(log, sample, metric, where)]
            collector.outcome(name, log.model, score, where)
    if costs is None:
        sizes = {log.model: log.parameters / 1e9 for log in logs if log.parameters}
        return collector.dataset(sizes, SIZES)
    return collector.dataset(*read_costs(costs))


@dataclass(frozen=True)
class _Log:
    """One file of samples, and what the results beside it say."""

    file: Path
    model: str
    task: str
    lower_is_better: frozenset[str]
    parameters: float


def _find(folder: Path) -> list[_Log]:
    """Return the last log of each model and task, by model and task."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: not a folder")
    dated: dict[tuple[str, str], tuple[str, _Log]] = {}
    for file in sorted(folder.rglob("samples_*.jsonl")):
        match = _SAMPLES.fullmatch(file.stem)
        if not match:
            raise DatasetError(f"{file}: not a name samples_TASK_DATE.jsonl")
        task, date = match["task"], match["date"]
        log = _log(file, task, file.with_name(f"results_{date}.json"))
        key = log.model, task
        if key not in dated or dated[key][0] < date:
            dated[key] = date, log
    if not dated:
        raise DatasetError(
            f"{folder}: no samples_TASK_DATE.jsonl in it; lm_eval writes them with --log_samples"
        )
    return [dated[key][1] for key in sorted(dated)]


def _log(file: Path, task: str, results: Path) -> _Log:
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
        higher = found.get("higher_is_better", {}).get(task) or {}
        return _Log(
            file,
            found.get("model_name") or file.parent.name,
            task,
            frozenset(metric for metric, better in higher.items() if better is False),
            float(found.get("config", {}).get("model_num_parameters") or 0),
        )
    except FileNotFoundError:
        raise DatasetError(f"{results}: no such file; {file.name} belongs to it") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{results}: not the results of lm_eval: {error}") from error


def _samples(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each sample is and the sample."""
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(LONGEST + 1), b""), 1):
            where = f"{file}, line {number}"
            if len(line) > LONGEST:
                raise DatasetError(f"{where}: more than {LONGEST:,} bytes")
            try:
                sample = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{where}: not JSON: {error}") from error
            if not isinstance(sample, dict) or "doc_id" not in sample:
                raise DatasetError(f"{where}: not a sample: no 'doc_id'")
            yield where, sample


def _metric(log: _Log, sample: dict[str, Any], wanted: str | None, where: str) -> str:
    reported = sample.get("metrics") or []
    metric = wanted if wanted is not None else next(iter(reported), None)
    if metric is None or metric not in sample:
        raise DatasetError(f"{where}: no metric {metric!r} of {log.task!r}; it has {reported}")
    if metric in log.lower_is_better:
        raise DatasetError(
            f"{where}: of {metric!r} lower is better; expected another metric of {reported}"
        )
    return str(metric)


def _prompt(sample: dict[str, Any], field: str | None, where: str) -> Any:
    if field is not None:
        document = sample.get("doc")
        if not isinstance(document, dict) or field not in document:
            raise DatasetError(f"{where}: its 'doc' has no field {field!r}")
        return document[field]
    arguments = sample.get("arguments")
    try:
        # Lists of lists before version 0.4.3.
        sent = arguments[0][0] if isinstance(arguments, list) else arguments["gen_args_0"]["arg_0"]  # type: ignore[index]
    except (KeyError, IndexError, TypeError) as error:
        raise DatasetError(f"{where}: no prompt in its 'arguments'") from error
    # Chat messages are logged as their JSON, alone in a list.
    chat = sent[0] if isinstance(sent, list) and len(sent) == 1 else None
    if not isinstance(chat, str):
        return sent
    try:
        return chat_text(json.loads(chat))
    except (ValueError, RecursionError, UniRouteError) as error:
        raise DatasetError(f"{where}: its prompt is not a list of messages: {error}") from error
