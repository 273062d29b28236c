"""Chat messages to the text that is routed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uniroute_fast import _native

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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
    roles : str or iterable of str
        The roles that count; contents of others are not looked at.
    last_only : bool
        Take only the last message of those roles, not all of them.

    Returns
    -------
    str
        The contents, in order, one on each line. Empty if there are none: such a row gets the
        status ``"empty"`` when it is routed. The decision service takes the same from a chat.

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
    return _native.chat_text(messages, roles, last_only)
