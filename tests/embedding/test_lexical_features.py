"""The feature definition: Rust against a slow, obvious Python, and against the conformance file."""

import itertools
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import lexical_reference as reference
from uniroute_fast import _native

CONFORMANCE = json.loads(
    (Path(__file__).parent.parent / "conformance" / "lexical_v1.json").read_text("utf-8")
)

needs_same_unicode = pytest.mark.skipif(
    unicodedata.unidata_version != CONFORMANCE["unicode"],
    reason=f"this Python knows Unicode {unicodedata.unidata_version}; the definition is of "
    f"{CONFORMANCE['unicode']}, that of Python 3.11",
)


def native_ids(text, ngrams=2):
    return sorted(_native.feature_ids(text, ngrams).tolist())


def test_version():
    assert CONFORMANCE["version"] == _native.FEATURE_VERSION


@pytest.mark.parametrize("case", CONFORMANCE["cases"], ids=lambda case: ascii(case["text"][:20]))
def test_conformance(case):
    for ngrams in (1, 2, 3):
        assert native_ids(case["text"], ngrams) == case["ids"][str(ngrams)]


@needs_same_unicode
def test_conformance_file_is_what_the_reference_says():
    assert reference.conformance() == CONFORMANCE


@needs_same_unicode
@pytest.mark.parametrize("plane", [0, 1, 2, 3, 14, 15, 16])
def test_every_code_point(plane):
    codes = range(plane << 16, (plane + 1) << 16)
    chars = [chr(c) for c in codes if not 0xD800 <= c <= 0xDFFF]
    if plane > 0:  # Long runs of the same kind, or unassigned.
        chars = chars[:: 7 if plane == 1 else 97] + chars[-2:]
    for start in range(0, len(chars), 64):
        # Between letters, and after a digit.
        text = "".join(f"x{c}y 1{c} " for c in chars[start : start + 64])
        assert native_ids(text) == reference.feature_ids(text), hex(ord(chars[start]))


# Where interesting things happen: jamo, kana with voicing marks, Indic vowels, Greek, symbols.
TRICKY = (
    "aZ09 .,_'\n\0\t\u00e9e\u0301\u0300\u0308\u0338=\u2260\u03a3\u03c2\u03c3\u0130\u0131\u1e9e"
    "\u00df\u1100\u1161\u11a8\u1112\u1175\u11c2\uac00\uac01\u304b\u3099\u304c\u09c7\u09be\u09cb\u0915\u093c"
    "\u0958\u094d\u4e2d\u6587\u0e01\u0e31\u200d\ufe0f\U0001f469\U0001f3fd\u0661\u2028\u3000\uff21"
)
any_text = st.lists(
    st.one_of(
        st.text(st.sampled_from(TRICKY), max_size=12),
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.text(st.characters(codec="ascii"), max_size=80),
        st.sampled_from(["x" * 15, "x" * 16, "x" * 17, "w" * 63, "w" * 64, "w" * 70, " " * 64]),
    ),
    max_size=12,
).map("".join)


@needs_same_unicode
@settings(max_examples=500, deadline=None)
@given(any_text, st.integers(1, 3))
@example("x" * 64, 2)
@example("x" * 63 + "\u00e9", 2)
@example("\u1112\u1161\u11a8" * 90, 3)
def test_any_text(text, ngrams):
    assert native_ids(text, ngrams) == reference.feature_ids(text, ngrams)


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_canonically_equivalent_texts_have_the_same_features(text):
    forms = {form: unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    # Marks that are kept stay in the order of the text: a nukta and a kana voicing mark on one
    # letter, which no language writes, may come in either.
    classes = [unicodedata.combining(c) for c in forms["NFD"]]
    classes = [c for c in classes if c < 10]
    assume(not any(a and b and a != b for a, b in itertools.pairwise(classes)))
    assert native_ids(forms["NFC"]) == native_ids(forms["NFD"])


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_case_does_not_count(text):
    assert native_ids(text.upper()) == native_ids(text.lower())


def test_ten_megabytes():
    word = "lorem ipsum 42; "
    text = word * (10_000_000 // len(word))
    n = text.count("lorem") * 5
    ids, counts = np.unique(_native.feature_ids(text), return_counts=True)
    assert counts.sum() == 2 * n
    assert len(ids) == 11  # five tokens, five pairs of neighbours, and the start of the text


def test_one_word_of_ten_megabytes():
    assert native_ids("x" * 10_000_000, 1) == reference.feature_ids("x" * 10_000_000, 1)


def test_ngrams_out_of_range():
    for ngrams in (0, 4):
        with pytest.raises(ValueError, match=r"ngrams: .*; expected 1 to 3"):
            _native.feature_ids("a", ngrams)


def test_lone_surrogates_are_refused():
    with pytest.raises(UnicodeEncodeError):
        _native.feature_ids("\ud800")
