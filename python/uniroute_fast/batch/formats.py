"""Which format a file has: by its suffix, or by a name given."""

from __future__ import annotations

from typing import NamedTuple

from uniroute_fast.errors import InvalidArgumentError

SUFFIXES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".txt": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
#: Of these each part may be compressed on its own: readers take them as one.
BY_LINE = ("jsonl", "csv", "text")


class Format(NamedTuple):
    """A format and how its files are compressed."""

    kind: str
    compression: str | None


def format_of(argument: str, path: str, named: str | None = None) -> Format:
    """Return the format of a path.

    Parameters
    ----------
    argument : str
        For the message.
    path : str
        ``log.parquet``, ``log.jsonl.gz``, ...
    named : str, optional
        In place of what the suffix says, which may then be anything.

    Raises
    ------
    InvalidArgumentError
    """
    stem = path.rstrip("/").lower()
    compression = next((c for suffix, c in COMPRESSIONS.items() if stem.endswith(suffix)), None)
    if compression:
        stem = stem.rpartition(".")[0]
    kind = named or next((k for suffix, k in SUFFIXES.items() if stem.endswith(suffix)), None)
    if kind is None or kind not in SUFFIXES.values():
        known = f"{', '.join(SUFFIXES)}, those of lines also with {', '.join(COMPRESSIONS)}"
        raise InvalidArgumentError(f"{argument}: {path!r}: unknown format; expected {known}")
    if compression and kind not in BY_LINE:
        raise InvalidArgumentError(
            f"{argument}: {path!r}: {kind} compressed as a whole; expected it plain, as it "
            "compresses within"
        )
    return Format(kind, compression)
