"""Logs and places that no one should give: a status for a row, one clear line for a job."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import uniroute_fast as uf
from made_up import DATA
from uniroute_fast import errors
from uniroute_fast.batch import COLUMNS, readers, route_log
from uniroute_fast.cli import main

LINE = b'{"text": "What is 2 times 3?"}'


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good log, and where the test is."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"text": list(DATA.texts)}), "log.parquet")
    return tmp_path


def refused(pool: Path, log: str, out: str, *argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that the command says of what it refuses."""

    def files() -> list[Path]:
        return sorted(p for p in Path().rglob("*") if ".partial" not in str(p))

    before = files()
    assert main(["route", str(pool), log, "--out", out, *argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert files() == before
    return said


def lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


# --- rows ---


def test_json_lines_in_other_encodings(pool, there):
    mark = b"\xef\xbb\xbf"
    Path("mark.jsonl").write_bytes(mark + LINE + b"\r\n" + LINE)
    route_log(pool, "mark.jsonl", "mark.out.jsonl")
    assert [row["status"] for row in lines("mark.out.jsonl")] == ["ok", "ok"]
    Path("void.jsonl").write_bytes(mark + b"{}\n")
    route_log(pool, "void.jsonl", "void.out.jsonl")
    assert lines("void.out.jsonl")[0]["status"] == "null"
    # An encoding is not guessed line by line: bytes that read as UTF-16 are no JSON here.
    text = b"\n".join([LINE] * 3).decode()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        Path("wide.jsonl").write_bytes(text.encode(encoding))
        totals = route_log(pool, "wide.jsonl", "wide.out.jsonl").totals
        assert totals.statuses == {"malformed": totals.rows}
        assert all(row["model"] is None for row in lines("wide.out.jsonl"))


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(pool, there):
    Path("log.txt").write_bytes(b"\xef\xbb\xbfWhat is 2 times 3?\nWhat is 2 times 3?\n")
    route_log(pool, "log.txt", "out.jsonl")
    one, two = lines("out.jsonl")
    assert one == two


def test_rows_of_csv_that_are_none_do_not_stop_the_job(pool, there):
    Path("log.csv").write_bytes(b'text,id\nWhat\ris,1\nadd 2,2\n"open,3\nadd 3,4\n')
    route_log(pool, "log.csv", "out.csv")
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[-1] for row in rows] == ["malformed", "ok", "malformed"]
    assert rows[0][0] == "What\ris,1"
    # What was malformed in CSV has its cells in other formats too.
    route_log(pool, "log.csv", "out.jsonl")
    assert [row["status"] for row in lines("out.jsonl")] == [row[-1] for row in rows]
    assert lines("out.jsonl")[0]["text"] == "What\ris,1"


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.txt"])
def test_lines_without_end_are_refused(name, pool, there, monkeypatch, capsys):
    monkeypatch.setattr(readers, "LONGEST", 10_000)
    monkeypatch.setattr(readers, "PART_BYTES", 1000)
    Path(name).write_bytes(b'text\n"' + b"a" * 30_000)
    said = refused(pool, name, "out" + name[3:].replace("txt", "jsonl"), capsys=capsys)
    assert "has a line of more than 10,000 bytes" in said


def test_a_quote_that_is_not_closed_does_not_take_all_memory(pool, there, monkeypatch, capsys):
    monkeypatch.setattr(readers, "LONGEST", 10_000)
    Path("log.csv").write_bytes(b'text\nadd 2\n"add 3\n' + b"add 4\n" * 5000)
    assert "is a quote not closed?" in refused(pool, "log.csv", "out.csv", capsys=capsys)


def test_values_that_json_does_not_know(pool, there):
    invalid = pa.array([b"add 2", b"caf\xe9", None], pa.binary())
    table = pa.table(
        {
            "text": pa.Array.from_buffers(pa.string(), 3, invalid.buffers(), 1),
            "raw": invalid,
            "number": [1.5, float("nan"), float("inf")],
            "nested": [{"x": [float("nan")]}, None, {"x": None}],
            "day": pa.array([0, 1, None], pa.date32()),
        }
    )
    pq.write_table(table, "log.parquet")
    route_log(pool, "log.parquet", "out.jsonl")
    rows = lines("out.jsonl")
    assert [row["status"] for row in rows] == ["ok", "invalid", "null"]
    assert [row["text"] for row in rows] == ["add 2", "caf\ufffd", None]
    assert [row["raw"] for row in rows] == ["add 2", "caf\ufffd", None]
    assert [row["number"] for row in rows] == [1.5, None, None]
    assert [row["nested"] for row in rows] == [{"x": [None]}, None, {"x": None}]
    assert rows[1]["day"] == "1970-01-02"
    assert "NaN" not in Path("out.jsonl").read_text()


# --- files ---


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_compressed_files_that_are_cut_or_are_none(kind, suffix, pool, there, capsys):
    rng = np.random.default_rng(0)
    rows = [LINE if kind == "jsonl" else b"add 2"] + [
        b'{"text": "%d"}' % n if kind == "jsonl" else b"%d" % n
        for n in rng.integers(1 << 60, size=50_000)
    ]
    head = [b"text"] if kind == "csv" else []
    name, out = f"log.{kind}.{suffix}", f"out.{kind}"
    with pa.output_stream(name) as file:
        file.write(b"\n".join(head + rows))
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: len(data) // 2])
    said = refused(pool, name, out, capsys=capsys)
    assert f"{name}: cannot be read" in said
    Path(name).write_bytes(b"plain text, not compressed")
    said = refused(pool, name, out, capsys=capsys)
    assert f"{name}: cannot be read" in said


def test_headers_that_are_none(pool, there, capsys):
    for data, expected in (
        (b"text,id\ra,1\r", "log.csv: cannot be read as csv: new-line character"),
        ("text,id\na,1\n".encode("utf-16"), "log.csv: cannot be read as csv: 'utf-8'"),
        (b"\n\ntext\n", "no header"),
        (b"text,text\na,b\n", "column 'text': the input has it twice"),
        (b"text;id\na;b\n", "column 'text': not in the input, which has ['text;id']"),
    ):
        Path("log.csv").write_bytes(data)
        assert expected in refused(pool, "log.csv", "out.csv", capsys=capsys)


def test_a_column_that_is_there_twice(pool, there, capsys):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, "twice.parquet")
    said = refused(pool, "twice.parquet", "out.parquet", capsys=capsys)
    assert "column 'text': the input has it twice" in said


def test_damaged_footers_and_buffers(pool, there, capsys):
    good = Path("log.parquet").read_bytes()
    Path("footer.parquet").write_bytes(good[:-60] + b"\x55" * 52 + good[-8:])
    said = refused(pool, "footer.parquet", "out.parquet", capsys=capsys)
    assert "footer.parquet: cannot be read as parquet" in said
    # Offsets that lead out of the buffer would be read past its end.
    table = pa.table({"text": list(DATA.texts)})
    for maker in (pa.ipc.new_file, pa.ipc.new_stream):
        with maker("log.arrow", table.schema) as file:
            file.write_table(table)
        data = bytearray(Path("log.arrow").read_bytes())
        offsets = table["text"].chunk(0).buffers()[1].to_pybytes()
        at = data.index(offsets)
        data[at + 40 : at + 44] = (1 << 30).to_bytes(4, "little")
        Path("log.arrow").write_bytes(data)
        said = refused(pool, "log.arrow", "out.arrow", capsys=capsys)
        assert "log.arrow: cannot be read after row 0" in said
        Path("log.arrow").write_bytes(data[: len(data) // 2])
        assert "log.arrow: cannot be read" in refused(pool, "log.arrow", "o.arrow", capsys=capsys)


def test_every_file_of_a_folder_is_looked_at_before_any_is_routed(pool, there, capsys):
    Path("logs").mkdir()
    Path("log.parquet").rename("logs/a.parquet")
    Path("logs/b.parquet").write_bytes(b"PAR1")
    said = refused(pool, "logs", "out", capsys=capsys)
    assert "b.parquet: cannot be read as parquet" in said
    assert not list(Path().glob(".*"))


def test_a_log_that_changes_while_it_is_routed_is_not_finished(pool, there, monkeypatch):
    monkeypatch.setattr(readers, "PART_BYTES", 1000)
    Path("log.jsonl").write_bytes(b"\n".join([LINE] * 200))

    def grow(_: object) -> None:
        with Path("log.jsonl").open("ab") as file:
            file.write(b"\n" + LINE)

    with pytest.raises(errors.DatasetError, match=r"log\.jsonl: changed while it was routed"):
        route_log(pool, "log.jsonl", "out.jsonl", progress=grow)
    assert not Path("out.jsonl").exists()
    summary = route_log(pool, "log.jsonl", "out.jsonl")
    assert summary.resumed_rows == 0
    assert summary.totals.rows == len(lines("out.jsonl")) > 200


# --- places ---


def test_an_output_does_not_take_the_place_of_the_log(pool, there):
    data = Path("log.parquet").read_bytes()
    Path("link.parquet").symlink_to("log.parquet")
    os.link("log.parquet", "hard.parquet")
    for out in ("log.parquet", "link.parquet", "hard.parquet", (there / "log.parquet").as_uri()):
        for log in ("log.parquet", (there / "log.parquet").as_uri()):
            with pytest.raises(errors.InvalidArgumentError, match="is the log"):
                route_log(pool, log, out)
    Path("logs/deep").mkdir(parents=True)
    Path("hard.parquet").rename("logs/a.parquet")
    Path("elsewhere").symlink_to("logs")
    for out in ("logs/out", "logs/deep", "logs/deep/out", "elsewhere/out"):
        with pytest.raises(errors.InvalidArgumentError, match="lies in the log"):
            route_log(pool, "logs", out)
    assert Path("log.parquet").read_bytes() == data


def test_links_are_followed_to_where_the_output_belongs(pool, there):
    Path("real").mkdir()
    Path("empty").mkdir()
    Path("out.parquet").symlink_to("real/routed.parquet")
    route_log(pool, "log.parquet", "out.parquet")
    assert Path("out.parquet").is_symlink()
    assert pq.read_metadata("real/routed.parquet").num_rows == 400
    Path("logs").mkdir()
    Path("log.parquet").rename("logs/a.parquet")
    Path("folder").symlink_to("empty")
    route_log(pool, "logs", "folder")
    assert pq.read_metadata("empty/a.parquet").num_rows == 400


def test_links_in_a_log_are_not_read_twice(pool, there):
    Path("logs/in").mkdir(parents=True)
    os.link("log.parquet", "logs/in/a.parquet")
    for link, to in (
        ("logs/again", "../logs"),
        ("logs/up", ".."),
        ("logs/in/b.parquet", "a.parquet"),
    ):
        Path(link).symlink_to(to)
        with pytest.raises(errors.InvalidArgumentError, match="is a link to what the folder holds"):
            route_log(pool, "logs", "out")
        Path(link).unlink()
    for to in ("nowhere.parquet", "gone.parquet"):
        Path("logs/gone.parquet").symlink_to(to)
        with pytest.raises(errors.DatasetError, match="is a link that leads nowhere"):
            route_log(pool, "logs", "out")
        Path("logs/gone.parquet").unlink()
    Path("logs/c.parquet").symlink_to(there / "log.parquet")
    assert route_log(pool, "logs", "out").totals.rows == 800


def test_places_that_cannot_be(pool, there, capsys):
    Path("file").touch()
    Path(".held.parquet.partial").touch()
    for log, out, expected in (
        ("log.parquet", "nowhere://x/out.parquet", "out: 'nowhere://x/out.parquet' cannot be"),
        ("nowhere://x/log.parquet", "out.parquet", "cannot be reached"),
        ("log.parquet", "file/out.parquet", "out: "),
        ("log.parquet", "held.parquet", ".held.parquet.partial"),
        ("/dev/null", "out.parquet", "is neither file nor folder"),
        ("log.parquet", "", "is a folder; expected a file"),
        ("", "out.parquet", "log: is empty"),
        ("log\udce9.parquet", "out.parquet", "expected a path that is valid UTF-8"),
        ("log.parquet", "out\udce9.parquet", "expected a path that is valid UTF-8"),
    ):
        assert expected in refused(pool, log, out, capsys=capsys)


def test_a_url_gets_what_a_path_gets(pool, there, monkeypatch):
    """A file system that is not this machine's: the output is made here and sent when whole."""
    from pyarrow import fs

    from uniroute_fast.batch import logs, staging

    Path("bucket").mkdir()
    far = fs.SubTreeFileSystem(str(there / "bucket"), fs.LocalFileSystem())

    def located(path: str) -> tuple[fs.FileSystem, str]:
        return (far, path[6:]) if path.startswith("far://") else logs.located(path)

    monkeypatch.setattr(staging, "located", located)
    route_log(pool, "log.parquet", "out.parquet", cost_weight=0.05)
    route_log(pool, "log.parquet", "far://out.parquet", cost_weight=0.05)
    assert Path("bucket/out.parquet").read_bytes() == Path("out.parquet").read_bytes()
    Path("logs").mkdir()
    Path("log.parquet").rename("logs/a.parquet")
    route_log(pool, "logs", "far://all", cost_weight=0.05)
    assert Path("bucket/all/a.parquet").read_bytes() == Path("out.parquet").read_bytes()
    with pytest.raises(errors.InvalidArgumentError, match="exists and is not empty"):
        route_log(pool, "logs", "far://all")
    assert not list(Path().glob(".*"))


# --- standard input, signals, another embedder ---


def test_standard_input_that_is_not_there(pool, there):
    command = [sys.executable, "-m", "uniroute_fast.cli", "route", str(pool), "-", "--out"]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command, "out.jsonl"], capture_output=True, text=True
    )
    assert closed.returncode == 2
    assert closed.stderr.count("\n") == 1
    assert "standard input: is closed" in closed.stderr
    for kind in ("parquet", "arrow", "csv"):
        done = subprocess.run(
            [*command, "out.parquet", "--log-format", kind],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"standard input: {kind} cannot be read from it" in done.stderr
    # A writer that ends midway: what it wrote is routed, the half line too.
    done = subprocess.run(
        [*command, "out.jsonl", "--log-format", "jsonl"],
        input=LINE + b"\n" + LINE[:9],
        capture_output=True,
        check=True,
    )
    assert [row["status"] for row in lines("out.jsonl")] == ["ok", "malformed"]


def test_a_job_needs_nobody_to_read_what_it_says(pool, there):
    command = [sys.executable, "-m", "uniroute_fast.cli", "route", str(pool), "log.parquet"]
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command, "--out", "out.parquet"]
    assert subprocess.run(closed).returncode == 0
    assert pq.read_metadata("out.parquet").num_rows == 400


def test_ctrl_c_leaves_what_the_next_call_goes_on_from(pool, there):
    texts = [" ".join(DATA.texts[:40]) + f" {i}" for i in range(60_000)]
    pq.write_table(pa.table({"text": texts}), "log.parquet")
    command = [sys.executable, "-m", "uniroute_fast.cli", "route", str(pool), "log.parquet"]
    command += ["--json", "--out"]
    whole = subprocess.run([*command, "whole.parquet"], check=True, capture_output=True)
    job = subprocess.Popen(
        [*command, "out.parquet"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    journal = Path(".out.parquet.partial/out.parquet.journal")
    while job.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert said == "uniroute: interrupted\n"
    assert not Path("out.parquet").exists()
    again = subprocess.run([*command, "out.parquet"], check=True, capture_output=True)
    assert json.loads(again.stdout)["resumed_rows"] > 0
    assert json.loads(whole.stdout)["rows"] == json.loads(again.stdout)["rows"] == 60_000
    assert Path("out.parquet").read_bytes() == Path("whole.parquet").read_bytes()


class Lengths:
    """An embedder of the caller's own."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def embed(self, texts: list[str]) -> np.ndarray:
        return self.scale * np.array([[len(t), t.count(" ")] for t in texts], np.float32)


def test_another_embedder_is_another_job(there, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK_ROWS", 50)
    monkeypatch.setattr(readers, "PART_ROWS", 50)
    router = uf.Router.fit(list(DATA.texts), embedder=Lengths(1.0), n_clusters=4)
    router.add_models(DATA.models, DATA.costs, list(DATA.texts), DATA.losses)
    router.save("own.uniroute")

    class KilledError(Exception):
        pass

    def kill(_: object) -> None:
        raise KilledError

    for scale, resumed in ((1.0, 50), (2.0, 0)):
        one, other = (uf.Router.load("own.uniroute", embedder=Lengths(s)) for s in (1.0, scale))
        with pytest.raises(KilledError):
            route_log(one, "log.parquet", "out.parquet", progress=kill)
        assert route_log(other, "log.parquet", "out.parquet").resumed_rows == resumed
    assert pq.read_schema("out.parquet").names == ["text", *COLUMNS]
