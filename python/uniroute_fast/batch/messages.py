"""Columns of chat messages to the texts that are routed on: `chat_text`, for many at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.embedding.chat import chat_text
from uniroute_fast.errors import UniRouteError


def text_of(messages: Any) -> tuple[str | None, str | None]:
    """Return `chat_text` of one conversation, or None and the status that says why not.

    Examples
    --------
    >>> text_of([{"role": "user", "content": "Hello"}]), text_of([{"content": "Hello"}])
    (('Hello', None), (None, 'not text'))
    """
    if messages is None:
        return None, None
    try:
        return chat_text(messages), None
    except UniRouteError:
        return None, "not text"


def texts_of(column: Any) -> tuple[Any, dict[int, str]]:
    """Return the texts of an Arrow column of lists of structs, and the status of rows without."""
    pa = pyarrow()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.string()), {}
    if _is_plain(column):
        return _joined(column), {}
    texts, statuses = [], {}
    for row in range(len(column)):
        try:
            text, status = text_of(column[row].as_py())
        except UnicodeDecodeError:
            text, status = None, "invalid"
        texts.append(text)
        if status:
            statuses[row] = status
    return pa.array(texts, pa.string()), statuses


def _is_plain(column: Any) -> bool:
    """Tell whether all messages have a role, and contents that are strings or null."""
    pa = pyarrow()
    kind = column.type.value_type
    names = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    if names.get("role") != pa.string() or names.get("content") != pa.string():
        return False
    messages = column.flatten()
    return bool(messages.null_count == 0 and messages.field("role").null_count == 0)


def _joined(column: Any) -> Any:
    """Join the contents of role "user" of each row, without a Python object for each."""
    pa = pyarrow()
    import pyarrow.compute as pc

    messages = column.flatten()
    contents = messages.field("content")
    wanted = pc.and_(
        pc.equal(messages.field("role"), "user"), pc.not_equal(pc.fill_null(contents, ""), "")
    )
    chosen = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
    rows = pc.list_parent_indices(column).to_numpy()[chosen]
    ends = np.cumsum(np.bincount(rows, minlength=len(column)))
    lists = pa.ListArray.from_arrays(
        pa.array(np.append(0, ends), pa.int32()), contents.take(pa.array(chosen))
    )
    texts = pc.binary_join(lists, "\n")
    return pc.if_else(pc.is_null(column), pa.scalar(None, pa.string()), texts)
