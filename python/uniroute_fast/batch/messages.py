"""Columns of chat messages to the texts that are routed on: `chat_text`, for many at once."""

from __future__ import annotations

from typing import Any

from uniroute_fast import _native
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
        texts, invalid = _native.chat_texts(column)
        return texts, dict.fromkeys(invalid, "invalid")
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
    if not pa.types.is_list(column.type):
        return False
    kind = column.type.value_type
    names = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    if names.get("role") != pa.string() or names.get("content") != pa.string():
        return False
    messages = column.flatten()
    return bool(messages.null_count == 0 and messages.field("role").null_count == 0)
