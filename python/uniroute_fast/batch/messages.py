"""Chat messages: which text of a conversation is routed."""

from __future__ import annotations

from typing import Any

import numpy as np

from uniroute_fast.batch.arrow import pyarrow


def last_user_text(messages: Any) -> str | None:
    """Return the last content of role "user" in a list of messages; None where there is none.

    Content may be a string or, as chat APIs have it, a list of parts, of which those with a
    ``text`` are joined by newlines.

    Examples
    --------
    >>> last_user_text([{"role": "system", "content": "Be brief."},
    ...                 {"role": "user", "content": "Hello"}])
    'Hello'
    """
    if not isinstance(messages, list):
        return None
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return _content_text(message.get("content"))
    return None


def last_user_content(column: Any) -> Any:
    """Return `last_user_text` of every row of an Arrow column of lists of structs."""
    pa = pyarrow()
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type.value_type
    fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    if "role" not in fields or "content" not in fields:
        return pa.nulls(len(column), pa.string())
    if not (pa.types.is_string(fields["content"]) and pa.types.is_string(fields["role"])):
        return pa.array([last_user_text(row) for row in column.to_pylist()], pa.string())
    messages = column.flatten()
    rows = pc.list_parent_indices(column).to_numpy()
    from_user = np.flatnonzero(
        pc.fill_null(pc.equal(messages.field("role"), "user"), False).to_numpy(zero_copy_only=False)
    )
    # Messages lie in order, so a row's last one overwrites those before it.
    last = np.full(len(column), -1)
    last[rows[from_user]] = from_user
    return messages.field("content").take(pa.array(last, pa.int64(), mask=last < 0))


def _content_text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    texts = [text for text in parts if isinstance(text, str)]
    return "\n".join(texts) if texts else None
