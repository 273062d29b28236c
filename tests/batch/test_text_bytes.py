"""Bytes of text in columns: counted by offsets or by rows, the same."""

import random

import pyarrow as pa
import pytest

from uniroute_fast.batch.text_bytes import text_bytes, written_bytes


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_slices_with_and_without_nulls_are_counted(kind):
    rng = random.Random(0)
    for _ in range(300):
        nulls = rng.choice([0.0, 0.3])
        values = [
            None if rng.random() < nulls else ("é" * rng.randrange(9)).encode()
            for _ in range(rng.randrange(30))
        ]
        start = rng.randrange(len(values) + 1)
        length = rng.randrange(len(values) - start + 1)
        column = pa.array(values, pa.binary()).cast(kind).slice(start, length)
        expected = sum(len(value or b"") for value in values[start : start + length])
        assert text_bytes(column) == written_bytes(column) == expected
