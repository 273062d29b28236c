"""Every command, as a user would call it, and what a user may do wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

import uniroute_fast as uf
from uniroute_fast.cli import COMMANDS, main
from uniroute_fast.cli.made_up import make_dataset
from uniroute_fast.datasets import load, save

SCRIPT = [sys.executable, "-m", "uniroute_fast.cli"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of 300 prompts and 6 LLMs."""
    folder = tmp_path_factory.mktemp("data") / "made-up"
    save(make_dataset(300, 6), folder)
    return folder


@pytest.fixture(scope="module")
def pool(folder: Path) -> Path:
    """A pool of those LLMs, made on the command line."""
    out = folder.parent / "pool.uniroute"
    prompts, scores = f"{folder}/prompts.parquet", f"{folder}/scores.parquet"
    assert main(["fit", prompts, "--out", str(out), "--clusters", "8"]) == 0
    models = f"{folder}/models.csv"
    add = ["add", str(out), "--models", models, "--prompts", prompts, "--scores", scores]
    assert main(add) == 0
    return out


def fails(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """Run a command that must fail and return its one line of complaint."""
    capsys.readouterr()
    try:
        status = main([str(arg) for arg in argv])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.startswith("uniroute")
    assert captured.err.count("\n") == 1
    return captured.err


def figures(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> dict:
    """Run a command with --json and return what it prints."""
    capsys.readouterr()
    assert main([*(str(arg) for arg in argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: uniroute" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from uniroute_fast.cli import main\n"
        "try: main(['route', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pyarrow', 'sklearn', 'scipy', 'faiss', 'matplotlib', 'tqdm'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_installed_script_runs(pool, tmp_path):
    script = Path(sys.executable).with_name("uniroute")
    if not script.exists():
        pytest.skip("the package is on the path but not installed, so there is no script")
    shown = subprocess.run([script, "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout == f"uniroute {uf.__version__}\n"
    route = [script, "route", pool, "-", "--out", tmp_path / "routed.jsonl"]
    subprocess.run(route, check=True, input=b"What is 3 times 4?\n", capture_output=True)
    assert json.loads((tmp_path / "routed.jsonl").read_text())["status"] == "ok"


def test_fit_reports_what_it_made(folder, tmp_path, capsys):
    out = tmp_path / "pool.uniroute"
    prompts = folder / "prompts.parquet"
    seen = ["--seen", folder / "scores.parquet"]
    said = figures(
        capsys, "fit", prompts, "--out", out, *seen, "--clusters", "5", "--embedder", "lexical:16"
    )
    assert (said["prompts"], said["seen"], said["dim"]) == (300, 6, 16)
    assert uf.Router.load(out).models == []


def test_fit_keeps_typical_prompts_unless_told_not_to(folder, tmp_path):
    kept = {}
    for count in ("2", "0"):
        out = tmp_path / count
        prompts = f"{folder}/prompts.parquet"
        assert main(["fit", prompts, "--out", str(out), "--typical-prompts", count]) == 0
        kept[count] = uf.Router.load(out).learner.examples.prompts
    assert all(1 <= len(cluster) <= 2 for cluster in kept["2"])
    assert not any(kept["0"])


def test_fit_reads_every_format(folder, tmp_path, capsys):
    table = pq.read_table(folder / "prompts.parquet")
    texts = table["text"].to_pylist()
    (tmp_path / "p.txt").write_text("\n".join(texts) + "\n")
    rows = table.to_pylist()
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    csv.write_csv(table, tmp_path / "p.csv")
    with pa.ipc.new_file(tmp_path / "p.arrow", table.schema) as file:
        file.write_table(table)
    pools = []
    for name in ("p.txt", "p.jsonl", "p.csv", "p.arrow"):
        out = tmp_path / "pool.uniroute"
        figures(capsys, "fit", tmp_path / name, "--out", out, "--clusters", "4")
        pools.append(out.read_bytes())
    assert pools[0] == pools[1] == pools[2] == pools[3]


def test_add_gives_the_pool_that_python_gives(folder, pool):
    data = load(folder)
    expected = uf.Router.fit(list(data.texts), n_clusters=8)
    expected.add_models(data.models, data.costs, list(data.texts), data.losses)
    router = uf.Router.load(pool)
    assert router.models == list(data.models)
    np.testing.assert_array_equal(router.costs, data.costs)
    np.testing.assert_array_equal(router.profiles, expected.profiles)


def test_add_to_another_file_leaves_the_pool(folder, pool, tmp_path, capsys):
    (tmp_path / "models.csv").write_text("model,cost\nmade-up-00,0.5\n")
    before = pool.read_bytes()
    out = tmp_path / "other.uniroute"
    empty = tmp_path / "empty.uniroute"
    prompts, scores = folder / "prompts.parquet", folder / "scores.parquet"
    assert main(["fit", str(prompts), "--out", str(empty), "--clusters", "8"]) == 0
    given = ["--models", tmp_path / "models.csv", "--prompts", prompts, "--scores", scores]
    said = figures(capsys, "add", empty, *given, "--out", out)
    assert [row["model"] for row in said["added"]] == ["made-up-00"]
    assert uf.Router.load(out).models == ["made-up-00"]
    assert uf.Router.load(empty).models == []
    message = fails(capsys, "add", pool, *given)
    assert "made-up-00" in message
    assert pool.read_bytes() == before


def test_evaluate_prints_the_table_of_run_trials(folder, capsys):
    given = ["evaluate", folder, "--methods", "zero_router,oracle", "--trials", "2"]
    said = figures(capsys, *given)
    areas = {row["method"]: row["area"] for row in said["methods"]}
    assert set(areas) == {"zero_router", "oracle"}
    assert areas["oracle"] > areas["zero_router"]
    assert main([str(arg) for arg in given]) == 0
    assert "zero_router" in capsys.readouterr().out


def test_the_demo_beats_the_blind_router_on_its_made_up_data(tmp_path, capsys):
    said = figures(capsys, "demo", "--prompts", "1500", "--out", tmp_path / "out")
    area = {name: row["area"] for name, row in said["methods"].items()}
    assert area["this router"] > area["zero_router"] + 0.01
    assert area["oracle"] > area["this router"]
    assert Path(said["plot"]).read_bytes().startswith(b"\x89PNG")


def test_the_demo_says_that_its_data_is_made_up(tmp_path, capsys):
    assert main(["demo", "--prompts", "200", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "MADE UP" in shown
    assert str(tmp_path / "demo.png") in shown


def test_bench_reports_this_machine(capsys):
    said = figures(capsys, "bench", "--prompts", "1000", "--runs", "1")
    assert said["machine"]["uniroute_fast"] == uf.__version__
    assert all(rate > 0 for rate in said["prompts_per_second"].values())


def test_made_up_data_depends_on_the_seed_alone():
    one, same, other = make_dataset(50, 4), make_dataset(50, 4), make_dataset(50, 4, seed=1)
    assert one.texts == same.texts
    np.testing.assert_array_equal(one.scores, same.scores)
    assert one.texts != other.texts
    assert not any("{" in text for text in one.texts)


BAD_CALLS = {
    "no command": ([], "no command"),
    "unknown command": (["frobnicate"], "frobnicate"),
    "no such prompts": (["fit", "nowhere.parquet", "--out", "x"], "nowhere.parquet: no such file"),
    "unknown suffix": (["fit", "prompts.docx", "--out", "x"], "prompts.docx: unknown suffix"),
    "no such pool": (["route", "nowhere.uniroute", "-", "--out", "x.jsonl"], "nowhere.uniroute"),
    "no such dataset": (["evaluate", "nowhere"], "nowhere: not a folder"),
    "trials": (["evaluate", "nowhere", "--trials", "many"], "--trials"),
    "demo size": (["demo", "--prompts", "3"], "--prompts: 3"),
    "demo seed": (["demo", "--seed", "-1"], "--seed: -1"),
    "bench size": (["bench", "--prompts", "3"], "--prompts: 3"),
    "two weights": (
        ["route", "p", "l", "--out", "x.jsonl", "--cost-weight", "1", "--budget", "2"],
        "not allowed with",
    ),
}


@pytest.mark.parametrize(("argv", "expected"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_get_one_line(argv, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, *argv)


def test_bad_prompts_and_scores_are_named(folder, pool, tmp_path, capsys):
    prompts, scores = folder / "prompts.parquet", folder / "scores.parquet"
    table, known = pq.read_table(prompts), pq.read_table(scores)

    def fit_on(change, *more: str | Path) -> str:
        pq.write_table(change, tmp_path / "p.parquet")
        return fails(capsys, "fit", tmp_path / "p.parquet", "--out", tmp_path / "x", *more)

    assert "no column 'text'" in fit_on(table.drop_columns("text"))
    assert "expected strings" in fit_on(table.set_column(2, "text", pa.array(range(300))))
    assert "no rows" in fit_on(table.slice(0, 0))
    twice = pa.concat_tables([table, table.slice(0, 1)])
    assert "appears twice" in fit_on(twice, "--seen", scores)
    assert "n_clusters" in fit_on(table, "--clusters", "301")
    assert "--embedder" in fails(
        capsys, "fit", prompts, "--out", tmp_path / "x", "--embedder", "bert"
    )
    assert not (tmp_path / "x").exists()

    def add(models: str, scored: pa.Table) -> str:
        (tmp_path / "m.csv").write_text(models)
        pq.write_table(scored, tmp_path / "s.parquet")
        given = ["--models", tmp_path / "m.csv", "--scores", tmp_path / "s.parquet"]
        return fails(capsys, "add", pool, "--prompts", prompts, *given)

    new = known.append_column("new", pa.array(np.full(300, 0.5)))
    assert "no column 'cost'" in add("model\nnew\n", new)
    assert "'free'" in add("model,cost\nnew,free\n", new)
    assert "'-1'" in add("model,cost\nnew,-1\n", new)
    assert "appears twice" in add("model,cost\nnew,1\nnew,2\n", new)
    assert "no rows" in add("model,cost\n", new)
    assert "no column 'other'" in add("model,cost\nother,1\n", new)
    assert "no row for 1 of the 300 prompts" in add("model,cost\nnew,1\n", new.slice(1))
    high = known.append_column("new", pa.array(np.full(300, 1.5)))
    assert "row 0: 1.5 is outside" in add("model,cost\nnew,1\n", high)
    words = known.append_column("new", pa.array(["a"] * 300))
    assert "expected numbers" in add("model,cost\nnew,1\n", words)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl", ".txt"])
def test_files_of_noise_get_one_line(suffix, pool, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for size in (0, 7, 5000):
        noise = tmp_path / f"noise{suffix}"
        noise.write_bytes(rng.bytes(size))
        message = fails(capsys, "fit", noise, "--out", tmp_path / "x")
        assert f"noise{suffix}" in message
        assert not (tmp_path / "x").exists()
    assert "noise" in fails(capsys, "route", noise, "-", "--out", tmp_path / "r.jsonl")


def test_a_truncated_pool_is_refused(pool, tmp_path, capsys):
    whole = pool.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "p.uniroute").write_bytes(whole[:size])
        fails(capsys, "route", tmp_path / "p.uniroute", "-", "--out", tmp_path / "r.jsonl")


def test_ctrl_c_ends_with_130_and_no_traceback(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("uniroute_fast.cli.demo.run", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "uniroute: interrupted\n"


def test_out_is_never_what_is_read(pool, tmp_path, capsys):
    log = tmp_path / "log.csv"
    log.write_text("text\nwhat is 3 + 4\n")
    fails(capsys, "route", pool, log, "--out", log, "--cost-weight", "0.1")
    fails(capsys, "route", pool, log, "--out", pool, "--out-format", "csv")
    fails(capsys, "fit", log, "--out", log)
    assert log.read_text() == "text\nwhat is 3 + 4\n"


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m uniroute_fast.cli fit --help | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, check=True)
    assert b"Traceback" not in done.stderr


# --- probes ---


def test_probes_are_rows_of_the_prompts(pool, folder, tmp_path, capsys):
    prompts, out = folder / "prompts.parquet", tmp_path / "run.parquet"
    found = figures(capsys, "probes", pool, prompts, "-n", 5, "--out", out)
    rows = pq.read_table(out)
    assert rows["id"].to_pylist() == found["ids"]
    assert rows.column_names == pq.read_table(prompts).column_names
    errors = found["standard_error"]
    assert len(errors) == 6
    assert errors == sorted(errors, reverse=True)
    model = uf.Router.load(pool).models[0]
    known = figures(capsys, "probes", pool, prompts, "-n", 2, "--model", model)
    assert known["standard_error"][0] < errors[0]
    assert main(["probes", str(pool), str(prompts), "-n", "3"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[:3] == found["ids"][:3]
    assert "standard error" in text


def test_bad_requests_for_probes(pool, folder, tmp_path, capsys):
    prompts = folder / "prompts.parquet"
    assert "n: 0; expected 1 to 300" in fails(capsys, "probes", pool, prompts, "-n", 0)
    assert 'model: no model named "x"' in fails(capsys, "probes", pool, prompts, "--model", "x")
    assert "is also read" in fails(capsys, "probes", pool, prompts, "--out", prompts)
    assert "no folder" in fails(capsys, "probes", pool, prompts, "--out", tmp_path / "a" / "b")
