"""The feature definition, version 1, slow and obvious; what the Rust code is held against.

    python tests/lexical_reference.py > tests/conformance/lexical_v1.json

writes the conformance file. Needs a Python that knows Unicode 14.0.0 (3.11).
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from functools import cache

M64 = (1 << 64) - 1
SEED, SECOND, THIRD = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3

UNSPACED = [
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1100, 0x11FF),
    (0x1780, 0x17FF),
    (0x1950, 0x19FF),
    (0x1A20, 0x1AAF),
    (0x2E80, 0x31FF),
    (0x3400, 0xA4CF),
    (0xA960, 0xA97F),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFFDC),
    (0x16FE0, 0x1B2FF),
    (0x20000, 0x3FFFF),
]
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


def compose_jamo(text: str) -> str:
    syllables = "[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|[\uac00-\ud7a3][\u11a8-\u11c2]"
    return re.sub(syllables, lambda m: unicodedata.normalize("NFC", m[0]), text)


def simple_fold(char: str) -> str:
    if len(char.casefold()) == 1:
        return char.casefold()
    return char.lower() if len(char.lower()) == 1 else char


@cache
def normalise(char: str) -> str:
    """Decompose, drop accents, fold case; again until nothing changes."""
    if "\uac00" <= char <= "\ud7a3":
        return char
    while True:
        decomposed = unicodedata.normalize("NFD", char)
        bare = [c for c in decomposed if unicodedata.combining(c) < 10]
        folded = "".join(map(simple_fold, bare))
        if folded == char:
            return folded
        char = folded


def inside(char: str, ranges: list[tuple[int, int]]) -> bool:
    return any(low <= ord(char) <= high for low, high in ranges)


@cache
def kind(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Zs", "Zl", "Zp", "Cc"):
        return "space"
    if category in ("Cf", "Me") or inside(char, INVISIBLE):
        return "invisible"
    if category[0] in "LM" and not inside(char, UNSPACED):
        return "letter"
    return "alone"


def tokens(text: str) -> list[str]:
    found, word = [], ""
    for char in "".join(map(normalise, compose_jamo(text))):
        what = kind(char)
        if what == "letter":
            word += char
        elif what != "invisible":
            found.append(word)
            word = ""
            if what == "alone":
                digit = unicodedata.decimal(char, None)
                found.append(char if digit is None else str(digit))
    return [token for token in [*found, word] if token]


def mix(a: int, b: int) -> int:
    product = a * b
    return product & M64 ^ product >> 64


@cache
def token_hash(token: str) -> int:
    data, h = token.encode(), SEED
    for start in range(0, len(data), 16):
        piece = data[start : start + 16].ljust(16, b"\0")
        low, high = int.from_bytes(piece[:8], "little"), int.from_bytes(piece[8:], "little")
        h = mix(low ^ h, high ^ SECOND)
    return h


def feature_ids(text: str, ngrams: int = 2) -> list[int]:
    """Ids of all features, sorted, repeats included."""
    hashes = [token_hash(token) for token in tokens(text)]
    ids, shorter = [h >> 32 for h in hashes], hashes
    for _ in range(1, ngrams):
        longer = []
        for before, h in zip([SEED, *shorter], hashes, strict=False):
            rotated = (before << 23 | before >> 41) & M64
            longer.append((rotated ^ h) * THIRD & M64)
        ids += [h >> 32 for h in longer]
        shorter = longer
    return sorted(ids)


CASES = [
    "",
    " \t\r\n",
    "\0\x1f\x7f",
    "a",
    "Hello, World!",
    "What is 12 x 34.5?  (a) 408  (b) 417.3",
    "snake_case camelCase kebab-case don't it's",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 2; }  // sum",
    '{"name": "get_weather", "arguments": {"city": "Z\u00fcrich"}}',
    "exactly8 exactlysixteenok exactlysixteenoks " + "supercalifragilisticexpialidocious",
    "x" * 63 + " " + "y" * 64 + " " + "z" * 65 + "." + "w" * 200,
    "the the the the cat cat",
    "R\u00e9sum\u00e9 na\u00efve co\u00f6perate \u00c5ngstr\u00f6m Stra\u00dfe \u1e9e",
    "Re\u0301sume\u0301 A\u030angstro\u0308m",
    "\u0130stanbul \u0131s\u0131 I\u0307",
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u1f88\u03b4\u03b7\u03c2 \u0390",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0439 \u0438\u0306",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u8acb\u554fABC\u662f\u4ec0\u9ebc\uff1f \uf900",
    "\u30d5\u30e9\u30f3\u30b9\u306e\u9996\u90fd\u306f\u3069\u3053\u3067\u3059\u304b\uff1f",
    "\u304b\u3099\u304c \uff76\uff9e",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165 \uac00\u11a8",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u093c \u0958 \u09cb \u09c7\u09be",
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u0661\u0662\u0663 \u06f4",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u200f\u05e2\u05d5\u05dc\u05dd\u200e",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd "
    "\U0001f1eb\U0001f1f7 1\ufe0f\u20e3 \u2764\ufe0f",
    "\u2260 = \u0338 =\u0338 \u2208 \u2209 \u212b \u2126 \u00bd \u2460 \u2167",
    "zero\u200bwidth soft\u00adhyphen joiner\u200dhere \ufeffbom",
    "\uff21\uff22\uff23\uff11\uff12\uff13 \U0001d400\U0001d7d9",
    "a\u0300\u0301\u0302\u0303b \u0301 \u0301c",
    "line\u2028separator\u2029paragraph\u3000wide\u00a0nbsp\u0085next",
    "\U00010400\U00010428 \U0001e900\U0001e922 \u13a0\uab70",
    "\ue000\U000f0000\uffff\U0010ffff",
    "The quick brown fox jumps over the lazy dog. " * 12,
]


def conformance() -> dict[str, object]:
    cases = [
        {
            "text": text,
            "tokens": tokens(text),
            "ids": {str(n): feature_ids(text, n) for n in (1, 2, 3)},
        }
        for text in CASES
    ]
    return {"version": 1, "unicode": "14.0.0", "cases": cases}


if __name__ == "__main__":
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}")
    json.dump(conformance(), sys.stdout, ensure_ascii=True, indent=1)
    print()
