"""How many bytes of text there are in columns of Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.batch.arrow import pyarrow

if TYPE_CHECKING:
    from numpy.typing import NDArray


def text_bytes(column: Any) -> int:
    """Return the bytes of all strings in a column, at any depth.

    Those of encodings that let a value lie there once for many rows do not count.
    """
    pa = pyarrow()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return text_bytes(column.flatten())
    if pa.types.is_struct(kind):
        return sum(map(text_bytes, column.flatten()))
    return _total(column) if _is_text(kind) else 0


def written_bytes(column: Any) -> int:
    """Return the bytes of all strings in a column once each row has its own, at any depth.

    Examples
    --------
    >>> import pyarrow as pa
    >>> column = pa.array(["abc", None, "abc", "d"]).dictionary_encode()
    >>> text_bytes(column), written_bytes(column)
    (0, 7)
    """
    pa = pyarrow()
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return written_bytes(column.storage)
    if pa.types.is_dictionary(kind):
        return _repeated(column.dictionary, column.indices.drop_null().to_numpy())
    if pa.types.is_run_end_encoded(kind):
        ends = np.clip(np.asarray(column.run_ends) - column.offset, 0, len(column))
        times = np.diff(ends, prepend=0)
        return _repeated(column.values, np.flatnonzero(times), times[times > 0])
    if pa.types.is_map(kind):
        offsets = column.offsets
        start, end = (offsets[at].as_py() for at in (0, -1))
        return sum(written_bytes(c.slice(start, end - start)) for c in (column.keys, column.items))
    if hasattr(column, "flatten"):
        children = column.flatten()
        return sum(map(written_bytes, children if isinstance(children, list) else [children]))
    views = (pa.string_view(), pa.binary_view())
    return _total(column) if _is_text(kind) or kind in views else 0


def _repeated(values: Any, which: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> int:
    """Return the bytes of some values, each as often as it is named or so many times."""
    pa = pyarrow()
    if _is_text(values.type) or values.type in (pa.string_view(), pa.binary_view()):
        each = _lengths(values)[which]
        return int(each.sum() if times is None else each @ times)
    found, count = np.unique(which, return_counts=True) if times is None else (which, times)
    pairs = zip(found.tolist(), count.tolist(), strict=True)
    return sum(written_bytes(values.slice(i, 1)) * n for i, n in pairs)


def _total(column: Any) -> int:
    """Return the bytes of all strings of a column; O(1) without nulls, whose bytes do not count."""
    pa = pyarrow()
    if not _is_text(column.type) or column.null_count or not len(column):
        return int(_lengths(column).sum())
    long = column.type in (pa.large_string(), pa.large_binary())
    offsets = np.frombuffer(column.buffers()[1], np.int64 if long else np.int32)
    return int(offsets[column.offset + len(column)]) - int(offsets[column.offset])


def _is_text(kind: Any) -> bool:
    pa = pyarrow()
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _lengths(column: Any) -> NDArray[np.int64]:
    """Return the bytes of each string, 0 of a null."""
    import pyarrow.compute as pc

    if _is_text(column.type):
        lengths = pc.fill_null(pc.binary_length(column), 0)
        return np.asarray(lengths, np.int64)
    # A view is 16 bytes, the first four of which are its length.
    views = np.frombuffer(column.buffers()[1], np.int32)[::4]
    there = np.asarray(column.is_valid())
    return np.where(there, views[column.offset :][: len(column)], 0).astype(np.int64)
