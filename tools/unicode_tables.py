"""Write rust/core/src/text/unicode.rs: what the feature definition needs to know of Unicode.

    python tools/unicode_tables.py > rust/core/src/text/unicode.rs

The table belongs to the feature definition: another table means other features, so it is written
once for each version of the definition and kept, whatever Unicode version the compiler or Python
of the day knows. Needs Python 3.11, whose Unicode is 14.0.
"""

from __future__ import annotations

import sys
import unicodedata as ucd

SPACE, IGNORE, WORD, ALONE, EXPAND = range(5)
BLOCK = 128

# Scripts written without spaces between words, and Hangul, whose words carry particles: there a
# character is a token, and a bigram of characters stands for a word.
UNSPACED = [
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul jamo
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x31FF),  # CJK radicals and punctuation, kana, Bopomofo, Hangul compatibility jamo
    (0x3400, 0xA4CF),  # Han, Yi
    (0xA960, 0xA97F),  # Hangul jamo
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xAC00, 0xD7FF),  # Hangul syllables and jamo
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFFDC),  # half-width kana and jamo
    (0x16FE0, 0x1B2FF),  # Tangut, Khitan, kana
    (0x20000, 0x3FFFF),  # Han
]

# Invisible, though their category says otherwise: variation selectors, joiners, fillers.
INVISIBLE = [
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),
]


def within(code: int, ranges: list[tuple[int, int]]) -> bool:
    """Whether a code point lies in one of the ranges."""
    return any(first <= code <= last for first, last in ranges)


def fold(char: str) -> str:
    """Case-fold one character to one character."""
    for folded in (char.casefold(), char.lower()):
        if len(folded) == 1:
            return folded
    return char


def fold_and_decompose(char: str) -> str:
    """Canonical decomposition without accents, case-folded, until nothing changes."""
    while True:
        kept = [c for c in ucd.normalize("NFD", char) if ucd.combining(c) < 10]
        folded = "".join(fold(c) for c in kept)
        if folded == char:
            return folded
        char = folded


def classify(char: str) -> tuple[int, str]:
    """Class of one folded character, and what stands for it."""
    category, code = ucd.category(char), ord(char)
    if category in ("Zs", "Zl", "Zp", "Cc"):
        return SPACE, char
    if category in ("Cf", "Me", "Cs") or within(code, INVISIBLE):
        return IGNORE, char
    if category == "Nd":
        return ALONE, str(ucd.decimal(char))
    if category[0] in "LM" and not within(code, UNSPACED):
        return WORD, char
    return ALONE, char


def entry(code: int) -> tuple[int, str]:
    """Class of one code point, and the characters that stand for it."""
    char = chr(code)
    if 0xAC00 <= code <= 0xD7A3:  # Hangul syllables stay composed; the tokeniser composes jamo.
        return ALONE, char
    mapped = fold_and_decompose(char)
    if len(mapped) == 0:
        return IGNORE, char
    if len(mapped) == 1:
        return classify(mapped)
    return EXPAND, mapped


def rust(values: list[int], per_line: int = 20) -> str:
    """Lines of a Rust array."""
    lines = [values[i : i + per_line] for i in range(0, len(values), per_line)]
    return "\n".join("    " + ", ".join(map(str, line)) + "," for line in lines)


def main() -> None:
    """Print the Rust file."""
    if ucd.unidata_version != "14.0.0":
        sys.exit(f"this Python knows Unicode {ucd.unidata_version}; version 1 is of Unicode 14.0.0")
    entries = [entry(code) for code in range(0x110000)]
    for code, (kind, mapped) in enumerate(entries):
        assert (
            kind == EXPAND or kind in (SPACE, IGNORE) or entries[ord(mapped)] == (kind, mapped)
        ), hex(code)
        assert kind != EXPAND or all(entries[ord(c)][0] != EXPAND for c in mapped), hex(code)

    expansions = sorted({mapped for kind, mapped in entries if kind == EXPAND})
    actions: dict[tuple[int, int], int] = {}
    stage2: dict[tuple[int, ...], int] = {}
    stage1 = []
    for start in range(0, 0x110000, BLOCK):
        block = []
        for code in range(start, start + BLOCK):
            kind, mapped = entries[code]
            if kind == EXPAND:
                value = expansions.index(mapped)
            elif kind in (SPACE, IGNORE):
                value = 0
            else:
                value = ord(mapped) - code
            block.append(actions.setdefault((kind, value), len(actions)))
        stage1.append(stage2.setdefault(tuple(block), len(stage2)))
    assert max(len(stage2), len(actions)) < 1 << 16

    print(f"""//! What the feature definition, version 1, knows of Unicode {ucd.unidata_version}.
//!
//! Written by `tools/unicode_tables.py`, which holds the rules; do not edit. Frozen with the
//! version of the definition: another table means other features.

#![allow(clippy::unreadable_literal)]

/// Code points in one block of [`BLOCK_OF`].
pub const BLOCK: usize = {BLOCK};

/// Which row of [`ACTION_OF`] a block of code points has.
#[rustfmt::skip]
pub static BLOCK_OF: [u16; {len(stage1)}] = [
{rust(stage1)}
];

/// Which of [`ACTIONS`] a code point has.
#[rustfmt::skip]
pub static ACTION_OF: [[u16; BLOCK]; {len(stage2)}] = [""")
    for block in stage2:
        print("    [\n" + rust(list(block)) + "\n    ],")
    print(f"""];

/// Class of a code point (0 space, 1 ignored, 2 part of a word, 3 a token alone, 4 stands for
/// several others) and what to add to it (or, for class 4, the index in [`EXPANSIONS`]).
#[rustfmt::skip]
pub static ACTIONS: [(u8, i32); {len(actions)}] = [""")
    items = list(actions)
    for i in range(0, len(items), 10):
        print("    " + " ".join(f"({k}, {v})," for k, v in items[i : i + 10]))
    print(f"""];

/// Code points that stand for several others.
#[rustfmt::skip]
pub static EXPANSIONS: [&str; {len(expansions)}] = [""")
    for mapped in expansions:
        print('    "' + "".join(f"\\u{{{ord(c):x}}}" for c in mapped) + '",')
    print("];")


if __name__ == "__main__":
    main()
