"""Logs that claim more than they hold, and messages that quote them."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniroute_fast import datasets, errors
from uniroute_fast._native import legible
from uniroute_fast.batch import parquet_footer, parquet_rows, readers, route_log, what_if
from uniroute_fast.batch.text_bytes import text_bytes, written_bytes
from uniroute_fast.cli import main
from uniroute_fast.errors import UniRouteError

FUZZ = Path(__file__).parent.parent.parent / "fuzz" / "batch_readers.py"
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the test is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- messages ---

BAD = "\x1b[31m\x07\x9b\u202e\u2066\x00"


@pytest.mark.parametrize("text", [BAD, BAD * 1000, "a" * 3_000_000, "\u4e2d" * 5000, "\udce9", ""])
def test_messages_are_short_and_print(text):
    shown = legible(text)
    assert len(shown.encode()) <= 2000
    assert not UNPRINTABLE.search(shown)
    assert legible(shown) == shown
    if len(text) > 2000:
        assert "bytes left out" in shown
    assert legible(text, 1 << 40).isprintable()


def test_every_error_has_a_short_message_and_can_be_pickled():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) > 10
    for kind in classes:
        error = kind("column '" + BAD * 100_000 + "'; expected another")
        assert len(str(error).encode()) <= 2000
        assert str(error).endswith("expected another")
        assert not UNPRINTABLE.search(str(error))
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args) == (kind, error.args)


@pytest.mark.parametrize(
    "argv",
    [
        ["route", "{pool}", BAD.replace("\0", ""), "--out", "out.jsonl"],
        ["route", "{pool}", "log.parquet", "--out", "out.parquet", "--text-column", BAD],
        ["route", "{pool}", "log.parquet", "--out", BAD.replace("\0", "") + "/out.parquet"],
        ["route", BAD.replace("\0", ""), "log.parquet", "--out", "out.parquet"],
        ["evaluate", BAD.replace("\0", "")],
        ["bench", BAD],
        [BAD],
        ["import", "sprout", "log.parquet", "--out", "new", "--prices", BAD.replace("\0", "")],
    ],
)
def test_what_the_command_line_says_prints(argv, pool, there, capsys):
    names = ["col" + BAD + "x" * 1_000_000, "b"]
    pq.write_table(pa.table([["a"], ["b"]], names=names), "log.parquet")
    try:
        status = main([word.format(pool=pool) for word in argv])
    except SystemExit as end:
        status = end.code
    assert status == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said.encode()) < 2048
    assert not UNPRINTABLE.search(said[:-1])


def test_paths_that_do_not_print_are_shown_escaped(pool, there, capsys):
    Path("log.jsonl").write_text('{"text": "add 2"}\n')
    assert main(["route", str(pool), "log.jsonl", "--out", "\x1b[31m.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "\\u{1b}[31m.jsonl: 1 rows" in said
    assert Path("\x1b[31m.jsonl").exists()


# --- sizes ---


def repeated(kind: str) -> pa.Array:
    """3,000 rows of the same 10,000 bytes."""
    if kind == "dictionary":
        return pa.DictionaryArray.from_arrays(np.zeros(3000, np.int8), ["add 2 " * 1667])
    views = pa.array(["add 2 " * 1667], pa.string_view())
    _, one, data = views.buffers()
    many = pa.py_buffer(one.to_pybytes()[:16] * 3000)
    return pa.Array.from_buffers(pa.string_view(), 3000, [None, many, data])


@pytest.mark.parametrize("kind", ["dictionary", "view"])
@pytest.mark.parametrize("column", ["text", "other"])
def test_a_value_for_many_rows_counts_for_each(kind, column, pool, there, monkeypatch):
    """Parts end where their rows hold so much, whatever that takes in the file."""
    table = pa.table({"text": ["add 2"] * 3000, column: repeated(kind)})
    assert written_bytes(repeated(kind)) == 3000 * 10_002
    with pa.ipc.new_file("log.arrow", table.schema) as file:
        file.write_table(table)
    route_log(pool, "log.arrow", "whole.jsonl")
    monkeypatch.setattr(readers, "HELD", 1 << 20)
    reader = readers.open_log(pa.fs.LocalFileSystem(), "log.arrow", readers.Format("arrow", None),
                              _Anything())  # fmt: skip
    parts = list(reader.parts(readers.Position()))
    assert max(len(part.rows) for part, _ in parts) == (1 << 20) // (
        10_002 + 5 * (column != "text")
    )
    # From any part on the cuts are the same.
    again = [at for _, at in reader.parts(parts[3][1])]
    assert again == [at for _, at in parts[4:]]
    route_log(pool, "log.arrow", "out.jsonl")
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


class _Anything:
    """A router that takes any schema."""

    text_column, messages_column, names = "text", None, ()

    def check_schema(self, _: object) -> None:
        """Take it."""


def test_a_row_that_holds_too_much_is_refused(pool, there, monkeypatch):
    monkeypatch.setattr(readers, "HELD", 1 << 16)
    table = pa.table({"text": ["add 2", "a" * (1 << 16), "b" * (1 << 17)]})
    pq.write_table(table, "log.parquet")
    with pytest.raises(errors.DatasetError, match=r"log\.parquet: row 2 holds more than 65,536"):
        route_log(pool, "log.parquet", "out.jsonl")


def test_bytes_once_each_row_has_its_own():
    texts = pa.array(["abc", None, "d", "abc"])
    runs = pa.RunEndEncodedArray.from_arrays([3, 5, 9], ["ab", None, "cde"])
    maps = pa.array([[("a", "bcd")], None, [("ef", "g")]], pa.map_(pa.string(), pa.string()))
    nested = pa.array([[{"a": "xyz"}], None, []])
    for column, expected in (
        (texts, 7),
        (texts.cast(pa.string_view()), 7),
        (texts.cast(pa.string_view()).slice(1, 2), 1),
        (texts.dictionary_encode(), 7),
        (texts.dictionary_encode().slice(2), 4),
        (runs, 18),
        (runs.slice(2, 4), 5),
        (maps, 7),
        (maps.slice(1), 3),
        (nested, 3),
        (
            pa.DictionaryArray.from_arrays(
                pa.array([0, 1, 0, None]), pa.array([["abc"], ["d", "e"]])
            ),
            8,
        ),
        (pa.array([["a", "b"], ["c", None]], pa.list_(pa.string(), 2)), 3),
        (pa.array([1, 2]), 0),
        (pa.nulls(3), 0),
    ):
        assert written_bytes(column) == expected, column.type
    assert text_bytes(texts) == text_bytes(texts.cast(pa.large_binary())) == 7


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": True},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
        {"use_dictionary": True, "row_group_size": 500, "data_page_version": "2.0"},
    ],
)
def test_parquet_is_read_by_the_bytes_that_rows_may_hold(options, pool, there, monkeypatch):
    value = "add 2 " * 1000
    pq.write_table(pa.table({"text": [value] * 3000}), "log.parquet", **options)
    assert Path("log.parquet").stat().st_size < 100_000
    source = pa.fs.LocalFileSystem().open_input_file("log.parquet")
    file = pq.ParquetFile(source)
    groups = range(file.metadata.num_row_groups)

    def most_rows() -> int:
        batches = list(parquet_rows.row_batches(file, source, True, groups, 1024))
        assert sum(map(len, batches)) == 3000
        return max(map(len, batches))

    assert most_rows() == 1024
    monkeypatch.setattr(parquet_rows, "EXPANDED", 1 << 20)
    assert most_rows() <= (1 << 20) // len(value)


def test_headers_of_pages_that_are_none():
    for data in (
        b"",
        b"\x15",
        b"\x00",
        b"\x15\x04\x15\x01\x15\x02\x00",
        b"\x1c" * 1000,
        b"\xff" * 50,
    ):
        with pytest.raises(UniRouteError, match="parquet"):
            parquet_footer.read_page(data)
    for footer in (
        b"\x19\xfc\xff\xff\xff\xff\x0f",
        b"\x18\xff\xff\xff\x7f",
        b"\x19\x19" * 9,
        b"\x1c" * 99,
    ):
        with pytest.raises(UniRouteError, match="parquet"):
            parquet_footer.join_footers([(footer, 4)])


def test_footers_that_count_rows_that_are_not_there():
    class Group:
        def __init__(self, rows: int) -> None:
            self.num_rows = rows

    class Metadata:
        def __init__(self, total: int, *rows: int) -> None:
            self.num_rows, self.num_row_groups, self._rows = total, len(rows), rows

        def row_group(self, i: int) -> Group:
            return Group(self._rows[i])

    parquet_rows.check_counts(Metadata(3, 1, 2))
    for lie in (Metadata(1, -1, 2), Metadata(1 << 60, 1, 2), Metadata(-1)):
        with pytest.raises(UniRouteError, match="a footer of"):
            parquet_rows.check_counts(lie)


def test_headers_of_csv_are_bounded_and_short_rows_are_filled_up_in_parts(pool, there, monkeypatch):
    Path("log.csv").write_text("text" + ",x" * 10_000 + "\na\n")
    with pytest.raises(errors.DatasetError, match="a header of 10,001 columns; expected at most"):
        route_log(pool, "log.csv", "out.csv")
    Path("log.csv").write_text("text" + "," * (1 << 24) + "\na\n")
    with pytest.raises(errors.DatasetError, match="a line of more than 16,777,216 bytes"):
        route_log(pool, "log.csv", "out.csv")
    Path("log.csv").write_text("text" + ",x" * 99 + "\n" + "add\n" * 5000)
    monkeypatch.setattr(readers, "PART_BYTES", 100_000)
    seen = []
    route_log(pool, "log.csv", "out.parquet", threads=1, progress=lambda p: seen.append(p.rows))
    assert seen == [1000, 2000, 3000, 4000, 5000]


def test_no_memory_is_an_error_that_names_the_file(pool, there, monkeypatch):
    Path("log.jsonl").write_text('{"text": "add 2"}\n')
    monkeypatch.setattr(readers._Lines, "_line_parts", lambda *_: iter(_NoMemory()))
    for job in (
        lambda: route_log(pool, "log.jsonl", "out.jsonl"),
        lambda: what_if(pool, "log.jsonl"),
    ):
        with pytest.raises(errors.DatasetError, match=r"log\.jsonl: cannot be read: MemoryError"):
            job()


class _NoMemory:
    def __iter__(self) -> _NoMemory:
        return self

    def __next__(self) -> None:
        raise MemoryError


def test_columns_that_parquet_cannot_hold(pool, there):
    runs = pa.RunEndEncodedArray.from_arrays([2], ["a"])
    table = pa.table({"text": ["a", "b"], "runs": runs})
    with pa.ipc.new_file("log.arrow", table.schema) as file:
        file.write_table(table)
    with pytest.raises(errors.InvalidArgumentError, match="out: Parquet cannot hold the columns"):
        route_log(pool, "log.arrow", "out.parquet")


# --- data sets ---


def test_samples_that_are_deep_or_long(there, monkeypatch):
    Path("runs").mkdir()
    date = "2026-01-01T00-00-00"
    Path(f"runs/results_{date}.json").write_text("{}")
    log = Path(f"runs/samples_task_{date}.jsonl")
    log.write_text('{"doc_id": ' + "[" * 100_000)
    with pytest.raises(errors.DatasetError, match="line 1: not JSON"):
        datasets.from_lm_eval("runs")
    log.write_text(json.dumps({"doc_id": 1, "arguments": [[["[" * 100_000]]]}))
    with pytest.raises(errors.DatasetError, match="not a list of messages"):
        datasets.from_lm_eval("runs")
    Path(f"runs/results_{date}.json").write_text("[" * 100_000)
    with pytest.raises(errors.DatasetError, match="not the results of lm_eval"):
        datasets.from_lm_eval("runs")
    Path(f"runs/results_{date}.json").write_text("{}")
    monkeypatch.setattr(datasets.lm_eval, "LONGEST", 1000)
    log.write_text("a" * 2000)
    with pytest.raises(errors.DatasetError, match="line 1: more than 1,000 bytes"):
        datasets.from_lm_eval("runs")


def test_archives_that_are_damaged_or_claim_too_much(there):
    with tarfile.open("bench-release.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("run.json")
        archive.addfile(member, io.BytesIO())
        deep = tarfile.TarInfo("deep.json")
        deep.size = 100_000
        archive.addfile(deep, io.BytesIO(b"[" * 100_000))
    with pytest.raises(errors.DatasetError, match="not JSON"):
        datasets.from_llmrouterbench("bench-release.tar.gz")
    data = Path("bench-release.tar.gz").read_bytes()
    for damage in (data[:40], data[:20] + b"\0" * 20 + data[40:], b""):
        Path("bench-release.tar.gz").write_bytes(damage)
        with pytest.raises(errors.DatasetError, match=r"bench-release\.tar\.gz"):
            datasets.from_llmrouterbench("bench-release.tar.gz")
    claims = tarfile.TarInfo("run.json")
    claims.size = 1 << 40
    Path("bench-release.tar.gz").write_bytes(claims.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    with pytest.raises(errors.DatasetError, match=r"1,099,511,627,776 bytes; expected at most"):
        datasets.from_llmrouterbench("bench-release.tar.gz")


# --- fuzzing ---


def fuzz(*argv: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, FUZZ, *argv], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_damaged_logs_give_rows_or_an_error(tmp_path):
    fuzz("--cases", "100", "--seconds", "250", "--seed", "0", "--keep", str(tmp_path / "found"))


def test_what_fuzzing_found():
    found = sorted((Path(__file__).parent.parent / "data" / "damaged_logs").iterdir())
    assert found
    fuzz("--read", *map(str, found))
