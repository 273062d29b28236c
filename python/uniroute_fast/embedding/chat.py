"""Chat messages to the text that is routed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError


def chat_text(
    messages: Sequence[Mapping[str, Any]],
    *,
    roles: Iterable[str] = ("user",),
    last_only: bool = False,
) -> str:
    r"""Render chat messages as one text: by default what the user wrote, and nothing else.

    System prompts, tool schemas and tool results are the same for every request of a harness, or
    follow from the route taken; routed on, they drown the question. Name their roles to keep them.

    Parameters
    ----------
    messages : sequence of dict
        With ``role`` and ``content``, as chat APIs take them. ``content`` is a str, None, or a list
        of parts, of which those of type ``"text"`` and ``"input_text"`` count.
    roles : iterable of str
        The roles that count.
    last_only : bool
        Take only the last message of those roles, not all of them.

    Returns
    -------
    str
        The contents, in order, one on each line. Empty if there are none: such a row gets the
        status ``"empty"`` when it is routed.

    Raises
    ------
    ArgumentTypeError
        Messages, contents or parts of another type.
    InvalidArgumentError
        A message without a role, a text part without text.

    Examples
    --------
    >>> from uniroute_fast import chat_text
    >>> chat_text([
    ...     {"role": "system", "content": "You are a helpful assistant."},
    ...     {"role": "user", "content": "What is the capital of France?"},
    ... ])
    'What is the capital of France?'
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise ArgumentTypeError(
            f"messages: a {type(messages).__name__}; expected a list of role/content dicts"
        )
    wanted = {roles} if isinstance(roles, str) else set(roles)
    contents = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise ArgumentTypeError(
                f"{where}: a {type(message).__name__}; expected a role/content dict"
            )
        if not isinstance(message.get("role"), str):
            raise InvalidArgumentError(f"{where}: no role; expected one such as 'user'")
        if message["role"] in wanted:
            contents.append(_text_of(message.get("content"), where))
    contents = [content for content in contents if content]
    return "\n".join(contents[-1:] if last_only else contents)


def _text_of(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ArgumentTypeError(
            f"{where}: content is a {type(content).__name__}; expected str, a list of parts or None"
        )
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, Mapping):
            raise ArgumentTypeError(
                f"{where}: a part is a {type(part).__name__}; expected a dict with a type"
            )
        elif part.get("type") in ("text", "input_text"):
            if not isinstance(part.get("text"), str):
                raise InvalidArgumentError(f"{where}: a text part without text; expected a str")
            texts.append(part["text"])
    return "\n".join(texts)
