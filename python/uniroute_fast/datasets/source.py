"""Published data sets: a local copy, or a name on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from uniroute_fast._checks.extras import imported
from uniroute_fast.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence


def local_copy(source: str | os.PathLike[str], patterns: Sequence[str]) -> Path:
    """Return the path of a data set, after downloading it where it is a name on the hub.

    Parameters
    ----------
    source : str or path-like
        A file or folder, or ``owner/name`` of a data set on the Hugging Face hub.
    patterns : sequence of str
        Files of it that are wanted.

    Raises
    ------
    DatasetError
        No such file, or a download that fails.
    MissingExtraError
        A name on the hub, and huggingface_hub is not installed (extra ``datasets``).
    """
    path = Path(source)
    if path.exists():
        return path
    name = os.fspath(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        raise DatasetError(f"{name}: no such file or folder, nor a name owner/name on the hub")
    hub = imported("huggingface_hub", "datasets", f"{name}, which is no file here")
    try:
        return Path(hub.snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns)))
    except Exception as error:
        raise DatasetError(f"{name}: cannot be downloaded from the hub: {error}") from error


def files_in(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Return a path that is a file, or the files in it that match, by pattern and then by name.

    Raises
    ------
    DatasetError
        None does.
    """
    if path.is_file():
        return [path]
    found = [file for pattern in patterns for file in sorted(path.rglob(pattern))]
    if not found:
        raise DatasetError(f"{path}: no file {' or '.join(patterns)} in it")
    return found
