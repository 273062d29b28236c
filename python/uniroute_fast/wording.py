"""Text from outside, as messages show it: short, and without what a terminal would obey."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Most bytes of a message, as UTF-8; of one that is longer, those of its start and of its end.
MOST, START, END = 2000, 1300, 600


def printable(text: str) -> str:
    r"""Return a text with the characters escaped that do not print; line ends and tabs stay.

    Those are what Python's ``repr`` escapes: control characters, those that turn the direction of
    writing, lone surrogates.

    Examples
    --------
    >>> printable("red \x1b[31m\u202e")
    'red \\x1b[31m\\u202e'
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def bounded(text: str) -> str:
    r"""Return a message as `printable` text of 2,000 bytes at most: the middle is left out.

    A message that was bounded stays as it is.

    Examples
    --------
    >>> bounded("column 'a\x07': no number"), len(bounded("a" * 3_000_000))
    ("column 'a\\x07': no number", 1941)
    >>> bounded("a" * 3_000_000)[1295:1350]
    'aaaaa ... (2,998,100 characters left out) ... aaaaaaaaa'
    """
    if len(text) <= MOST:
        whole = printable(text)
        if len(whole.encode()) <= MOST:
            return whole
    start, end = _fitting(text, START), _fitting(reversed(text), END)[::-1]
    left_out = len(text) - len(start) - len(end)
    return f"{''.join(start)} ... ({left_out:,} characters left out) ... {''.join(end)}"


def _fitting(characters: Iterable[str], most: int) -> list[str]:
    """Return as many of the first characters, escaped, as fit into so many bytes."""
    fitting = []
    for character in map(_escaped, characters):
        most -= len(character.encode())
        if most < 0:
            break
        fitting.append(character)
    return fitting


def _escaped(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character.encode("unicode_escape").decode()
