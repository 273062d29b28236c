"""Predictable places: no link there is followed, and nothing that no job wrote is touched."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from made_up import DATA
from uniroute_fast import datasets, errors
from uniroute_fast._checks.files import whole_file
from uniroute_fast.batch import readers, route_log
from uniroute_fast.cli import main
from uniroute_fast.report import save_page

STAGING = Path(".out.jsonl.partial")


class KilledError(Exception):
    """A job that dies."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a log, and a folder of someone's own."""
    monkeypatch.chdir(tmp_path)
    Path("log.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in DATA.texts))
    Path("home").mkdir()
    Path("home/thesis.txt").write_text("thesis")
    return tmp_path


def tree(folder: Path) -> dict[str, str]:
    """What a folder holds: where links lead, and what files say."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes().hex()
        if path.is_file()
        else "not a file"
        for path in sorted(folder.rglob("*"))
    }


def kill(pool: Path, log: str, out: str) -> None:
    """Leave what a job leaves that is killed after its first part."""

    def die(_: object) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PART_BYTES", 4000)
        with pytest.raises(KilledError):
            route_log(pool, log, out, progress=die)


def refused(pool: Path, there: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the command says that changes nothing."""
    before = tree(there)
    assert main(["route", str(pool), "log.jsonl", "--out", "out.jsonl"]) == 2
    assert tree(there) == before
    return capsys.readouterr().err


@pytest.mark.parametrize("to", ["home", "home/thesis.txt", "nowhere"])
def test_a_link_in_place_of_the_staging_folder(to, pool, there, capsys):
    STAGING.symlink_to(to)
    assert "is a link or no folder" in refused(pool, there, capsys)


@pytest.mark.parametrize("name", ["thesis.txt", "out.jsonl.part", "sub/out.jsonl.part", "_whole/x"])
def test_a_staging_folder_that_no_job_made(name, pool, there, capsys):
    (STAGING / name).parent.mkdir(parents=True)
    (STAGING / name).write_text("not of a job")
    assert "was not written by a job" in refused(pool, there, capsys)


@pytest.mark.parametrize("how", ["link", "hard link", "pipe", "folder"])
@pytest.mark.parametrize(
    "name", ["_lock", "_uniroute.json", "_uniroute.json.new", "out.jsonl.part", "out.jsonl.journal"]
)
def test_what_is_put_in_place_of_a_file_of_the_job(how, name, pool, there, capsys):
    kill(pool, "log.jsonl", "out.jsonl")
    (STAGING / name).unlink(missing_ok=True)
    if how == "link":
        (STAGING / name).symlink_to(there / "home/thesis.txt")
    elif how == "hard link":
        (STAGING / name).hardlink_to("home/thesis.txt")
    elif how == "pipe":
        os.mkfifo(STAGING / name)
    else:
        (STAGING / name).mkdir()
    assert str(STAGING / name) in refused(pool, there, capsys)


def test_a_list_of_names_in_the_folder_leads_nowhere_else(pool, there, capsys):
    STAGING.mkdir()
    names = ["../home/thesis.txt", str(there / "home/thesis.txt"), "out.jsonl"]
    state = {"identity": {}, "cost_weight": None, "names": names, "is_folder": False}
    (STAGING / "_uniroute.json").write_text(json.dumps(state))
    route_log(pool, "log.jsonl", "out.jsonl")
    assert Path("home/thesis.txt").read_text() == "thesis"
    assert not STAGING.exists()


@pytest.mark.parametrize("state", ["[" * 100_000, "7", '{"names": [7]}', "{"])
def test_a_job_that_says_nothing_of_use(state, pool, there):
    STAGING.mkdir()
    (STAGING / "_uniroute.json").write_text(state)
    assert route_log(pool, "log.jsonl", "out.jsonl").resumed_rows == 0


@pytest.mark.parametrize(
    "line",
    [
        b'[0, -5, 0, "", 1, 1, {}]\n',
        b'[0, 1e300, 0, "", 1, 1, {}]\n',
        b'[0, 4611686018427387904, 0, "", 1, 1, {"models": {}, "statuses": {}}]\n',
        b'[0, 0, 0, "", 1, 1, {"models": 7, "statuses": []}]\n',
        b'[0, 0, 0, "", 1, 1, {"models": {}, "statuses": {}, "more": 1}]\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_journal_that_lies_is_begun_anew(line, pool, there):
    kill(pool, "log.jsonl", "out.jsonl")
    (STAGING / "out.jsonl.journal").write_bytes(line)
    assert route_log(pool, "log.jsonl", "out.jsonl").resumed_rows == 0
    assert len(Path("out.jsonl").read_bytes().splitlines()) == len(DATA.texts)


def test_nobody_else_enters_the_staging_folder_and_all_may_read_what_comes_out(pool, there):
    Path("logs").mkdir()
    Path("log.jsonl").rename("logs/a.jsonl")
    umask = os.umask(0o022)
    try:
        kill(pool, "logs", "out")
        assert stat.S_IMODE(Path(".out.partial").stat().st_mode) == 0o700
        assert route_log(pool, "logs", "out").resumed_rows > 0
    finally:
        os.umask(umask)
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o755
    assert stat.S_IMODE(Path("out/a.jsonl").stat().st_mode) == 0o644
    assert list(tree(there / "out")) == ["a.jsonl"]


def test_a_staging_folder_of_another_user(pool, there, monkeypatch):
    STAGING.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(errors.InvalidArgumentError, match="belongs to another user"):
        route_log(pool, "log.jsonl", "out.jsonl")


def test_outputs_that_are_read(pool, there, capsys):
    Path("pool").write_bytes(pool.read_bytes())
    with pytest.raises(errors.InvalidArgumentError, match="is the pool"):
        route_log("pool", "log.jsonl", "pool", out_format="jsonl")
    before = tree(there)
    for command in (
        ["what-if", "pool", "log.jsonl", "--report", "log.jsonl"],
        ["what-if", "pool", "log.jsonl", "--report", "pool"],
        ["what-if", "pool", "home", "--report", "home/thesis.txt"],
        ["evaluate", "home", "--report", "home/thesis.txt"],
        ["add", "pool", "--models", "log.jsonl", "--prompts", "p", "--scores", "s", "--out",
         "log.jsonl"],
        ["probes", "pool", "log.jsonl", "--out", "log.jsonl"],
    ):  # fmt: skip
        assert main(command) == 2
        assert "is also read" in capsys.readouterr().err
    assert tree(there) == before


def test_two_files_of_a_log_that_would_become_one(pool, there):
    Path("logs").mkdir()
    Path("logs/a.csv").write_text("text\nadd 2\n")
    Path("logs/a.csv.jsonl").write_text('{"text": "add 2"}\n')
    with pytest.raises(errors.InvalidArgumentError, match="2 files of the log would become"):
        route_log(pool, "logs", "out", out_format="jsonl")


def test_a_device_stays_one(pool, there, capsys):
    os.mkfifo("pipe")
    for command in (
        ["route", str(pool), "log.jsonl", "--out", "pipe", "--out-format", "jsonl"],
        ["what-if", str(pool), "log.jsonl", "--report", "pipe"],
    ):
        assert main(command) == 2
        assert "pipe" in capsys.readouterr().err
    with pytest.raises(errors.InvalidArgumentError, match="is no file"), whole_file("pipe"):
        pass
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert not list(Path().glob(".*"))


def test_pages_replace_links_and_keep_permissions(there):
    Path("page.html").symlink_to("home/thesis.txt")
    save_page("page", "page.html")
    assert Path("home/thesis.txt").read_text() == "thesis"
    assert Path("page.html").read_text() == "page"
    Path("page.html").chmod(0o600)
    save_page("another", "page.html")
    assert stat.S_IMODE(Path("page.html").stat().st_mode) == 0o600
    with contextlib.suppress(KilledError), whole_file("page.html") as file:
        file.write(b"half")
        raise KilledError
    assert Path("page.html").read_text() == "another"
    assert not list(Path().glob(".*"))


def test_a_data_set_is_written_over_nothing(there, monkeypatch):
    data = datasets.Dataset("two", ["a", "b"], ["", ""], ["x", "y"], [[1], [0]], ["m"], [1])
    write = pq.write_table

    def late(table: pa.Table, file: object) -> None:
        """Write a table, and then put a link where the next file belongs."""
        write(table, file)
        if not Path("set/scores.parquet").exists():
            Path("set/scores.parquet").symlink_to(there / "home/thesis.txt")

    monkeypatch.setattr(pq, "write_table", late)
    with pytest.raises(FileExistsError):
        datasets.save(data, "set")
    assert Path("home/thesis.txt").read_text() == "thesis"
    assert list(tree(there / "set")) == ["scores.parquet"]
    Path("file").touch()
    with pytest.raises(errors.DatasetError, match="is no folder"):
        datasets.save(data, "file")
