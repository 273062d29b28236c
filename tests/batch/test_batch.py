"""Whole logs: the decisions of `Router.route_batch`, in every format, whatever befalls the job."""

from __future__ import annotations

import contextlib
import csv
import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv as arrow_csv

import uniroute_fast as uf
from made_up import DATA
from uniroute_fast import errors
from uniroute_fast.batch import COLUMNS, BatchRouter, Progress, readers, route_log, what_if
from uniroute_fast.batch.budget import Spending
from uniroute_fast.batch.messages import text_of, texts_of
from uniroute_fast.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut logs into many parts."""
    monkeypatch.setattr(readers, "BLOCK_ROWS", 50)
    monkeypatch.setattr(readers, "PART_ROWS", 100)
    monkeypatch.setattr(readers, "PART_BYTES", 12_000)


def log_table(rows: int = 1000) -> pa.Table:
    """A log with other columns, nulls, blanks and unknown words."""
    rng = np.random.default_rng(1)
    texts: list[str | None] = [DATA.texts[i] for i in rng.integers(len(DATA.texts), size=rows)]
    texts[3:7] = [None, "", " \t", "zzyzx"]
    return pa.table(
        {
            "id": np.arange(rows),
            "text": pa.array(texts, pa.string()),
            "user": pa.array([f"u{i % 7}" for i in range(rows)]).dictionary_encode(),
            "tags": pa.array([[str(i)] * (i % 3) for i in range(rows)]),
        }
    )


def expected(pool: Path, texts: list[str | None], cost_weight: float = 0.05) -> list[dict]:
    """What the router says of each text, asked without the batch."""
    decisions = uf.Router.load(pool).route_batch(texts, cost_weight)
    return [
        {
            "model": decisions.models[i],
            "predicted_loss": float(decisions.predicted_loss[i]) if ok else None,
            "cost": float(decisions.cost[i]) if ok else None,
            "cluster": int(decisions.cluster[i]) if ok else None,
            "coverage": float(decisions.coverage[i]) if ok else None,
            "status": decisions.status[i],
        }
        for i, ok in enumerate(decisions.ok)
    ]


def added(table: pa.Table) -> list[dict]:
    return table.select(COLUMNS).to_pylist()


# --- one batch ---


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_batch_router_appends_what_the_router_decides(pool, kind):
    table = log_table(50)
    texts = table["text"].to_pylist()
    table = table.set_column(1, "text", pa.array(texts, kind))
    routed = BatchRouter(pool, 0.05)(table)
    assert added(routed) == expected(pool, texts)
    assert routed.select(table.column_names).equals(table)


def test_batch_router_takes_record_batches_and_dictionaries(pool):
    batch = log_table(50).to_batches()[0]
    texts = batch.column("text").to_pylist()
    at = batch.schema.get_field_index("text")
    batch = batch.set_column(at, "text", batch.column("text").dictionary_encode())
    routed = BatchRouter(pool, 0.05)(batch)
    assert isinstance(routed, pa.RecordBatch)
    assert added(routed) == expected(pool, texts)


def test_bytes_that_are_no_utf8_get_a_status(pool):
    table = pa.table({"text": pa.array([b"add two", b"\xff\xfe"], pa.binary())})
    assert BatchRouter(pool)(table)["status"].to_pylist()[1] == "invalid"


def test_a_pickled_batch_router_decides_the_same(pool):
    table = log_table(50)
    one = BatchRouter(pool, 0.05)
    assert pickle.loads(pickle.dumps(one))(table).equals(one(table))
    carried = BatchRouter(uf.Router.load(pool), 0.05)
    assert pickle.loads(pickle.dumps(carried))(table).equals(one(table))


def test_batch_router_refuses_what_it_cannot_route(pool):
    table = log_table(8)
    route = BatchRouter(pool)
    with pytest.raises(errors.InvalidArgumentError, match="column 'text': not in the input"):
        route(table.drop_columns("text"))
    with pytest.raises(errors.InvalidArgumentError, match="column 'id': is int64"):
        BatchRouter(pool, text_column="id")(table)
    with pytest.raises(errors.InvalidArgumentError, match="column 'cost': the input has it"):
        route(table.append_column("cost", table["id"]))
    with pytest.raises(errors.InvalidArgumentError, match="cost_weight"):
        BatchRouter(pool, float("nan"))
    with pytest.raises(errors.InvalidArgumentError, match="expected a list of structs"):
        BatchRouter(pool, messages_column="text")(table)
    nothing = pa.table({"text": pa.nulls(2)})
    for column in ("text_column", "messages_column"):
        assert BatchRouter(pool, **{column: "text"})(nothing)["status"].to_pylist() == 2 * ["null"]


def conversation(*turns: tuple[str, str | None]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = [
    (conversation(("system", "be brief"), ("user", "one"), ("assistant", "a")), "one"),
    (conversation(("user", "one"), ("assistant", "a"), ("user", "two")), "one\ntwo"),
    (conversation(("system", "be brief")), ""),
    (conversation(("user", None), ("user", ""), ("user", "b")), "b"),
    ([], ""),
    (None, None),
]


def test_columns_of_messages_give_what_chat_text_gives():
    rows, texts = zip(*CONVERSATIONS, strict=True)
    assert [None if row is None else uf.chat_text(row) for row in rows] == list(texts)
    assert [text_of(row) for row in rows] == [(text, None) for text in texts]
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    column = pa.array(rows, kind)

    def plain(column: pa.Array) -> list[str | None]:
        found, statuses = texts_of(column)
        assert statuses == {}
        return found.to_pylist()

    assert plain(column) == list(texts)
    # A slice keeps the buffers of the whole.
    assert plain(column[1:4]) == list(texts[1:4])
    assert plain(pa.chunked_array([column[:2], column[2:]])) == list(texts)
    assert plain(pa.array([None, None], kind)) == [None, None]
    assert plain(pa.nulls(2)) == [None, None]


def test_messages_may_have_parts_and_may_be_bad():
    parts = [{"type": "text", "text": "one"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    good, bad = {"role": "user", "content": parts}, {"role": None, "content": parts}
    texts, statuses = texts_of(pa.array([[good], [bad], None]))
    assert texts.to_pylist() == ["one\nb", None, None]
    assert statuses == {1: "not text"}
    assert [text_of(7), text_of("a"), text_of([7])] == 3 * [(None, "not text")]


# --- whole logs ---


def write(table: pa.Table, path: Path) -> None:
    """Write a table in the format of a path."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=130)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=70)
    elif ".jsonl" in path.name:
        lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
        with pa.output_stream(path) as file:
            file.write(lines.encode())
    else:
        plain = table.drop_columns([n for n in ("tags",) if n in table.column_names])
        plain = pa.table({n: plain[n].cast(pa.string()) for n in plain.column_names})
        with pa.output_stream(path) as file:
            arrow_csv.write_csv(plain, file)


def read(path: Path) -> list[dict]:
    """Read rows back in the format of a path, with numbers as numbers."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".arrow":
        with pa.ipc.open_stream(path) as file:
            return file.read_all().to_pylist()
    with pa.input_stream(path) as file:
        text = file.read().decode()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in text.splitlines()]
    rows = list(csv.DictReader(text.splitlines()))
    for row in rows:
        for name, kind in (("predicted_loss", float), ("cost", float), ("coverage", float)):
            row[name] = kind(row[name]) if row[name] else None
        row["cluster"] = int(row["cluster"]) if row["cluster"] else None
        row["model"] = row["model"] or None
    return rows


def same(got: list[dict], wanted: list[dict]) -> None:
    """Compare decisions; texts of float32 give the same float32."""
    assert len(got) == len(wanted)
    for one, two in zip(got, wanted, strict=True):
        for name in COLUMNS:
            if name in ("predicted_loss", "coverage") and two[name] is not None:
                assert np.float32(one[name]) == np.float32(two[name])
            else:
                assert one[name] == two[name]


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "jsonl.gz", "jsonl.zst", "csv"])
@pytest.mark.usefixtures("small_parts")
def test_every_format_gives_the_routers_decisions(suffix, pool, tmp_path):
    table = log_table()
    log, out = tmp_path / f"log.{suffix}", tmp_path / f"out.{suffix}"
    write(table, log)
    summary = route_log(pool, log, out, cost_weight=0.05)
    rows = read(out)
    texts = table["text"].to_pylist()
    if suffix == "csv":  # CSV knows no nulls.
        texts[3] = ""
    wanted = expected(pool, texts)
    same(rows, wanted)
    assert [str(row["id"]) for row in rows] == [str(i) for i in range(1000)]
    if suffix != "csv":
        assert [row["tags"] for row in rows] == table["tags"].to_pylist()
    assert summary.totals.rows == 1000
    assert summary.totals.routed == sum(row["model"] is not None for row in wanted)
    assert summary.totals.cost == pytest.approx(sum(row["cost"] or 0 for row in wanted))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("source", ["parquet", "arrow", "csv"])
@pytest.mark.parametrize("target", ["parquet", "arrow", "jsonl.zst", "csv.gz"])
@pytest.mark.usefixtures("small_parts")
def test_tables_become_other_formats(source, target, pool, tmp_path):
    log, out = tmp_path / f"log.{source}", tmp_path / f"out.{target}"
    table = log_table().drop_columns("tags").append_column("tags", pa.nulls(1000, pa.string()))
    write(table, log)
    route_log(pool, log, out, cost_weight=0.05)
    texts = table["text"].to_pylist()
    if source == "csv":
        texts[3] = ""
    same(read(out), expected(pool, texts))


@pytest.mark.usefixtures("small_parts")
def test_parquet_keeps_columns_types_and_metadata(pool, tmp_path):
    table = log_table().replace_schema_metadata({"made": "here"})
    write(table, tmp_path / "log.parquet")
    route_log(pool, tmp_path / "log.parquet", tmp_path / "out.parquet")
    routed = pq.read_table(tmp_path / "out.parquet")
    assert routed.select(table.column_names).equals(table)
    assert routed.schema.metadata[b"made"] == b"here"
    metadata = pq.ParquetFile(tmp_path / "out.parquet").metadata
    assert metadata.num_row_groups == 10
    assert metadata.row_group(9).column(0).statistics.max == 999


def test_rows_of_json_that_are_none_are_kept_and_say_so(pool, tmp_path):
    lines = [
        '{"text": "add 2 and 3"}',
        '{"text": 7, "id": 1}',
        '{"id": 2}',
        "{}",
        '["no", "object"]',
        '{"text": "cut off',
        "",
        '{"text": "\\ud800"}',
        '{"text": null}  ',
    ]
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    log.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}')
    route_log(pool, log, out)
    rows = read(out)
    statuses = [row["status"] for row in rows]
    assert statuses[1:7] == ["not text", "null", "null", "malformed", "malformed", "malformed"]
    assert statuses[7:] == ["invalid", "null", "malformed"]
    assert rows[1]["text"] == 7
    assert [rows[i]["line"] for i in (4, 5, 6)] == lines[4:7]
    assert rows[9]["line"] == '{"text": "\ufffd"}'
    assert all(row["model"] is None for row in rows[1:])


def test_rows_of_csv_of_another_length_are_kept_and_say_so(pool, tmp_path):
    log, out = tmp_path / "log.csv", tmp_path / "out.csv"
    log.write_bytes(b'id,text\n1,"add 2, then 3"\n2\n3,what is 4,more\n\n4,caf\xe9\n5,"a\nb"\n')
    route_log(pool, log, out)
    rows = list(csv.reader(out.read_text(errors="surrogateescape").splitlines(keepends=True)))
    assert rows[0] == ["id", "text", *COLUMNS]
    assert [row[-1] for row in rows[1:]][1:4] == ["malformed", "malformed", "invalid"]
    assert rows[1][1] == "add 2, then 3"
    assert rows[3][:3] == ["3", "what is 4", "more"]
    assert b"caf\xe9" in out.read_bytes()
    assert rows[5][1] == "a\nb"


def test_a_byte_order_mark_is_no_part_of_a_name(pool, tmp_path):
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbftext,id\nadd 2 and 3,1\n")
    route_log(pool, tmp_path / "log.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("text,id,model,")


def test_a_prompt_of_ten_megabytes_is_routed(pool, tmp_path):
    text = "What is 3 times 4? " * (10_000_000 // 19)
    for name in ("log.jsonl", "log.csv", "log.parquet"):
        table = pa.table({"text": ["add 2", text, "a poem"]})
        if name.endswith("csv"):
            arrow_csv.write_csv(table, tmp_path / name)
        else:
            write(table, tmp_path / name)
        assert route_log(pool, tmp_path / name, tmp_path / f"out-{name}").totals.routed == 3


def test_chat_messages_in_parquet_and_json(pool, tmp_path):
    chats = [row for row, _ in CONVERSATIONS]
    texts = [text for _, text in CONVERSATIONS]
    table = pa.table({"chat": chats})
    for name in ("log.parquet", "log.jsonl"):
        write(table, tmp_path / name)
        out = tmp_path / f"out-{name}"
        route_log(pool, tmp_path / name, out, messages_column="chat", cost_weight=0.05)
        same(read(out), expected(pool, texts))
        assert [row["chat"] for row in read(out)] == chats


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "txt"])
def test_an_empty_log_gives_an_empty_output(suffix, pool, tmp_path):
    log = tmp_path / f"log.{suffix}"
    out = tmp_path / ("out.jsonl" if suffix == "txt" else f"out.{suffix}")
    if suffix == "txt":
        log.write_text("")
    else:
        write(log_table(10).slice(0, 0), log)
    assert route_log(pool, log, out).totals.rows == 0
    assert read(out) == []


def test_a_folder_gives_a_folder_of_the_same_layout(pool, tmp_path):
    for day in ("day=1", "day=2"):
        (tmp_path / "log" / day).mkdir(parents=True)
        write(log_table(150), tmp_path / "log" / day / "part.parquet")
    (tmp_path / "log" / "_SUCCESS").touch()
    summary = route_log(pool, tmp_path / "log", tmp_path / "out", cost_weight=0.05)
    assert summary.totals.rows == 300
    routed = pq.read_table(tmp_path / "out")
    same(added(routed), 2 * expected(pool, log_table(150)["text"].to_pylist()))
    assert set(routed["day"].to_pylist()) == {1, 2}
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == [
        "day=1",
        "day=2",
        "part.parquet",
        "part.parquet",
    ]
    with pytest.raises(errors.InvalidArgumentError, match="exists and is not empty"):
        route_log(pool, tmp_path / "log", tmp_path / "out")


def test_standard_input_one_prompt_a_line(pool, tmp_path):
    texts = ["What is 2 times 3?", "", "Write a haiku about the sea."]
    command = [sys.executable, "-m", "uniroute_fast.cli", "route", pool, "-"]
    out = tmp_path / "out.parquet"
    done = subprocess.run(
        [*command, "--out", out, "--cost-weight", "0.05", "--json"],
        input="\n".join(texts).encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["statuses"] == {"ok": 2, "empty": 1}
    routed = pq.read_table(out)
    assert routed["text"].to_pylist() == texts
    same(added(routed), expected(pool, texts))


# --- budget ---


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.5])
@pytest.mark.usefixtures("small_parts")
def test_a_budget_is_kept_and_used(share, pool, tmp_path):
    table = log_table()
    write(table, tmp_path / "log.parquet")
    router = uf.Router.load(pool)
    texts = table["text"].to_pylist()
    best = router.route_batch(texts, 0.0)
    dearest = float(np.nansum(best.cost))
    cheapest = float(router.costs.min()) * int(best.ok.sum())
    budget = cheapest + share * (dearest - cheapest)
    summary = route_log(pool, tmp_path / "log.parquet", tmp_path / "out.parquet", budget=budget)
    assert summary.totals.cost <= budget * (1 + 1e-9)
    # A hair less weight spends more than the budget: no smaller one would have done.
    if summary.cost_weight > 0:
        less = router.route_batch(texts, summary.cost_weight * (1 - 1 / 4096))
        assert float(np.nansum(less.cost)) > budget
    else:
        assert dearest <= budget


def test_a_budget_for_soft_maps_is_that_of_a_search(pool):
    soft = softened(pool)
    texts = log_table()["text"].to_pylist()
    spending = Spending(BatchRouter(soft))
    spending.add(spending.of(texts))
    for budget in np.linspace(float(soft.costs.min()) * 1000, spending.spend, 7):
        weight = spending.cost_weight(budget)
        assert np.nansum(soft.route_batch(texts, weight).cost) <= budget * (1 + 1e-9)
        if weight:
            less = soft.route_batch(texts, weight * (1 - 1 / 4096))
            assert np.nansum(less.cost) > budget


def test_disabled_models_are_as_if_not_there(pool, tmp_path):
    router = uf.Router.load(pool)
    write(log_table(), tmp_path / "log.parquet")
    chosen = router.route_batch(log_table()["text"].to_pylist(), 0.0).models
    favourite = max(set(chosen) - {None}, key=chosen.count)
    router.disable_model(favourite)
    found = what_if(router, tmp_path / "log.parquet", budget=400.0)
    assert all(favourite not in outcome.models for outcome in found.outcomes)
    summary = route_log(router, tmp_path / "log.parquet", tmp_path / "out.parquet", budget=400.0)
    assert favourite not in summary.totals.models
    assert summary.totals.cost == pytest.approx(found["router, budget 400"].spend)
    assert summary.totals.cost <= 400.0


def test_a_budget_below_the_cheapest_is_refused(pool, tmp_path, capsys):
    write(log_table(100), tmp_path / "log.parquet")
    argv = ["route", str(pool), str(tmp_path / "log.parquet"), "--out", str(tmp_path / "o.parquet")]
    assert main([*argv, "--budget", "1e-6"]) == 2
    assert "budget: 1e-06; expected at least" in capsys.readouterr().err
    assert not (tmp_path / "o.parquet").exists()


# --- what-if ---


def softened(pool: Path) -> uf.Router:
    """The pool behind a soft map, where every prompt has losses of its own."""
    router = uf.Router.load(pool)
    weights = 8 * router.heads()[0][1]
    heads = [("softmax", weights, np.zeros(len(weights), np.float32), 0.0)]
    soft = uf.Router(router.embedder, heads)
    soft.insert(router.models, router.costs, router.profiles)
    return soft


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
@pytest.mark.usefixtures("small_parts")
def test_what_if_is_what_predicted_losses_say(soft, suffix, pool, tmp_path):
    router = softened(pool) if soft else uf.Router.load(pool)
    rng = np.random.default_rng(4)
    table = log_table(500)
    served = rng.choice([*router.models[:2], "retired"], 500)
    usd = np.round(rng.random(500), 3)
    table = table.append_column("model", pa.array(served)).append_column("usd", pa.array(usd))
    log = tmp_path / f"log.{suffix}"
    write(table, log)
    found = what_if(
        router,
        log,
        cost_weights=[0.05],
        budget=300.0,
        model_column="model",
        cost_column="usd",
    )

    texts = table["text"].to_pylist()
    if suffix == "csv":
        texts[3] = ""
    decisions = router.route_batch(texts, 0.05)
    ok = decisions.ok
    loss = router.predict_loss([t for t, fine in zip(texts, ok, strict=True) if fine])
    loss = loss.astype(np.float64)
    assert (found.rows, found.routable) == (500, ok.sum())

    routed = found["router, cost weight 0.05"]
    chosen = loss[np.arange(len(loss)), decisions.index[ok]]
    assert routed.spend == pytest.approx(np.nansum(decisions.cost))
    assert routed.quality == pytest.approx(1 - chosen.mean())
    assert routed.quality_2se == pytest.approx(2 * chosen.std(ddof=1) / np.sqrt(len(chosen)))
    names = np.array(decisions.models)[ok]
    assert routed.models == {n: int((names == n).sum()) for n in set(names)}
    assert sum(cluster["prompts"] for cluster in routed.clusters) == ok.sum()
    assert sum(cluster["spend"] for cluster in routed.clusters) == pytest.approx(routed.spend)

    now = found["as served"]
    known = ok & (served != "retired")
    index = np.array([router.models.index(n) if n != "retired" else 0 for n in served])
    was = loss[np.cumsum(ok) - 1, index][known]
    assert now.rows == known.sum()
    assert found.unknown_served == (ok & ~known).sum()
    assert now.spend == pytest.approx(usd[known].sum())
    assert now.quality == pytest.approx(1 - was.mean())
    gain = was - chosen[known[ok]]
    assert routed.gain == pytest.approx(gain.mean())
    assert routed.gain_2se == pytest.approx(2 * gain.std(ddof=1) / np.sqrt(len(gain)))

    assert found["best single LLM"].quality == pytest.approx(1 - loss.mean(axis=0).min())
    assert found["router, budget 300"].spend <= 300
    json.dumps(found.to_dict())


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.usefixtures("small_parts")
def test_budgets_and_what_if_count_tokens_where_llms_are_charged_by_them(soft, pool, tmp_path):
    router = softened(pool) if soft else uf.Router.load(pool)
    rng = np.random.default_rng(5)
    for name in router.models[:-1]:
        price = float(router.costs[router.models.index(name)])
        router.set_metadata(name, input_price=2e4 * price, output_price=8e4 * price)
    usage = rng.gamma(2.0, 20.0, (router.n_clusters, len(router.models)))
    ones = np.ones(len(router.models))
    router.set_usage(router.models, usage, ones, ones)
    table = log_table(400)
    table = table.append_column("served", pa.array([router.models[0]] * 400))
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    write(table, log)
    texts = table["text"].to_pylist()
    ok = router.route_batch(texts).ok
    fine = [text for text, usable in zip(texts, ok, strict=True) if usable]
    loss = router.predict_loss(fine).astype(np.float64)
    cost = router.predict_cost(fine)
    assert np.ptp(cost[:, 0]) > 0
    least, most = cost.min(axis=1).sum(), np.nansum(router.route_batch(texts).cost)
    budget = float(least + 0.4 * (most - least))

    summary = route_log(router, log, out, budget=budget)
    assert summary.totals.cost <= budget * (1 + 1e-9)
    less = router.route_batch(texts, summary.cost_weight * (1 - 1 / 4096))
    assert np.nansum(less.cost) > budget

    found = what_if(router, log, cost_weights=[0.05], budget=budget, model_column="served")
    decisions = router.route_batch(texts, 0.05)
    rows = np.arange(len(fine))
    routed = found["router, cost weight 0.05"]
    assert routed.spend == pytest.approx(np.nansum(decisions.cost))
    assert routed.quality == pytest.approx(1 - loss[rows, decisions.index[ok]].mean())
    assert found[f"router, budget {budget:g}"].spend == pytest.approx(summary.totals.cost)
    assert found["as served"].spend == pytest.approx(cost[:, 0].sum())
    assert found["cheapest LLM"].spend == pytest.approx(cost.sum(axis=0).min())
    best = loss.mean(axis=0).argmin()
    assert found["best single LLM"].spend == pytest.approx(cost[:, best].sum())


def test_what_if_without_what_was_served(pool, tmp_path, capsys):
    write(log_table(300), tmp_path / "log.parquet")
    found = what_if(pool, tmp_path / "log.parquet")
    assert found.reference == "best single LLM"
    spends = [one.spend for one in found.outcomes if one.name.startswith("router")]
    assert len(spends) > 3
    assert spends == sorted(spends, reverse=True)
    assert main(["what-if", str(pool), str(tmp_path / "log.parquet")]) == 0
    assert "best single LLM" in capsys.readouterr().out
    assert main(["what-if", str(pool), str(tmp_path / "log.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["routable"] == found.routable


def test_what_if_refuses_what_it_cannot_compare(pool, tmp_path):
    log = tmp_path / "log.parquet"
    write(log_table(20), log)
    for options, said in (
        ({"cost_column": "usd"}, "cost_column"),
        ({"model_column": "served"}, "column 'served': not in the log"),
        ({"cost_weights": [-1.0]}, "cost_weights"),
        ({"budget": 0.001}, "budget: 0.001; expected at least"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=said):
            what_if(pool, log, **options)
    with pytest.raises(errors.InvalidArgumentError, match="no prompt"):
        what_if(pool, _written(pa.table({"text": [None, ""]}), tmp_path / "void.parquet"))


@pytest.mark.parametrize("usd", [["a", "1", "2"], [0.1, -1.0, 2.0], [0.1, None, float("inf")]])
def test_what_if_refuses_costs_that_are_none(pool, tmp_path, usd):
    model = uf.Router.load(pool).models[0]
    table = pa.table({"text": ["2 + 2", "a poem", "3 + 4"], "model": [model] * 3, "usd": usd})
    log = _written(table, tmp_path / "log.parquet")
    with pytest.raises(errors.InvalidArgumentError, match="cost_column: "):
        what_if(pool, log, model_column="model", cost_column="usd")
    fine = table.set_column(2, "usd", pa.array([0.1, None, 2.0]))
    _written(fine, log)
    what_if(pool, log, model_column="model", cost_column="usd")


def _written(table: pa.Table, path: Path) -> Path:
    write(table, path)
    return path


# --- bad logs ---


def test_bad_logs_are_refused_before_anything_is_written(pool, tmp_path):
    def refused(log: str | Path, out: str = "out.parquet", **options: object) -> str:
        with pytest.raises(errors.UniRouteError) as caught:
            route_log(pool, log, tmp_path / out, **options)
        assert not (tmp_path / out).exists()
        assert not list(tmp_path.glob(".*"))
        return str(caught.value)

    good, table = tmp_path / "log.parquet", log_table()
    write(table, good)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "empty.csv").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "lines.jsonl").write_text("{}\n")
    assert "no such file" in refused(tmp_path / "nowhere.parquet")
    assert "unknown format" in refused(pool)
    assert "unknown format" in refused(good, "out.docx")
    assert "cut.parquet: cannot be read as parquet" in refused(tmp_path / "cut.parquet")
    assert "no header" in refused(tmp_path / "empty.csv", "out.csv")
    assert "holds no files" in refused(tmp_path / "empty", "folder")
    assert "column 'prompt'" in refused(good, text_column="prompt")
    assert "JSON lines" in refused(tmp_path / "lines.jsonl")
    assert "column 'tags'" in refused(good, "out.csv")
    assert "no folder" in refused(good, "nowhere/out.parquet")
    assert "cost_weight" in refused(good, cost_weight=-1.0)
    assert "budget" in refused(good, budget=float("nan"))
    assert "threads: 0" in refused(good, threads=0)
    assert "compression: 'zip'" in refused(good, compression="zip")
    assert "standard input" in refused("-", budget=1.0)
    empty = uf.Router.load(pool)
    for name in empty.models:
        empty.remove_model(name)
    with pytest.raises(errors.InvalidArgumentError, match="pool: has no LLM"):
        route_log(empty, good, tmp_path / "out.parquet")


@pytest.mark.usefixtures("small_parts")
def test_a_log_damaged_midway_leaves_no_output(pool, tmp_path, capsys):
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    write(log_table(), log)
    data = bytearray(log.read_bytes())
    # Within the pages of a later row group; the footer stays whole.
    start = pq.ParquetFile(log).metadata.row_group(5).column(1).dictionary_page_offset
    data[start : start + 200] = b"\xff" * 200
    log.write_bytes(data)
    assert main(["route", str(pool), str(log), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "log.parquet" in said
    assert not out.exists()


FULL = """
import resource, signal, sys
from uniroute_fast.cli import main
# What a full disk does to a write, without a disk to fill.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_fills_up_costs_no_finished_part(pool, tmp_path):
    pytest.importorskip("resource", reason="limits on file sizes as POSIX has them")
    log, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    write(log_table(), log)
    argv = ["route", pool, log, "--out", out]
    done = subprocess.run([sys.executable, "-c", FULL, *argv], capture_output=True, text=True)
    assert done.returncode == 2
    assert "goes on from there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    route_log(pool, log, tmp_path / "whole.jsonl")
    route_log(pool, log, out)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_job_goes_on_once_a_full_disk_has_room(pool, small_disk, tmp_path, capsys):
    log, whole = tmp_path / "log.parquet", tmp_path / "whole.parquet"
    table = log_table(30_000)
    numbered = [f"{i} {text}" for i, text in enumerate(table["text"].to_pylist())]
    texts = pa.array(numbered + [f"x{text}" for text in numbered])
    pq.write_table(pa.table({"text": texts}), log)
    out = small_disk / "out.parquet"
    argv = ["route", str(pool), str(log), "--out", str(out)]
    rest = small_disk / "rest"
    rest.write_bytes(bytes(1_000_000))
    with rest.open("ab") as file, contextlib.suppress(OSError):
        file.write(bytes(1_000_000))
    assert main(argv) == 2
    assert "No space left on device" in capsys.readouterr().err
    rest.unlink()
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "goes on from there" in said
    assert not out.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert main(argv) == 0
    assert main([*argv[:-1], str(whole)]) == 0
    assert out.read_bytes() == whole.read_bytes()


# --- resume ---


class KilledError(Exception):
    """Stands for whatever ends a process between two parts."""


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "jsonl.gz", "csv"])
@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.usefixtures("small_parts")
def test_a_job_goes_on_from_its_last_finished_part(suffix, after, pool, tmp_path):
    log = tmp_path / f"log.{suffix}"
    write(log_table(), log)
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    complete = route_log(pool, log, whole, budget=500.0)
    seen = 0

    def kill(progress: Progress) -> None:
        nonlocal seen
        seen += progress.stage == "route"
        if seen == after:
            raise KilledError

    with pytest.raises(KilledError):
        route_log(pool, log, out, budget=500.0, progress=kill)
    assert not out.exists()
    # What a crash may leave: bytes without a line in the journal, half a line.
    staging = tmp_path / f".out.{suffix}.partial"
    with (staging / f"out.{suffix}.part").open("ab") as part:
        part.write(b"half a part")
    with (staging / f"out.{suffix}.journal").open("ab") as journal:
        journal.write(b"[12, 3")
    stages: list[str] = []
    summary = route_log(
        pool, log, out, budget=500.0, progress=lambda progress: stages.append(progress.stage)
    )
    assert summary.resumed_rows > 0
    assert "price" not in stages
    assert out.read_bytes() == whole.read_bytes()
    assert summary.totals == complete.totals
    assert not staging.exists()


@pytest.mark.usefixtures("small_parts")
def test_finished_parts_that_did_not_reach_the_disk_are_made_again(pool, tmp_path):
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    write(log_table(), log)
    route_log(pool, log, tmp_path / "whole.parquet")
    interrupt(pool, log, out, after=6)
    part = tmp_path / ".out.parquet.partial" / "out.parquet.part"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 255
    part.write_bytes(data)
    summary = route_log(pool, log, out)
    assert 0 < summary.resumed_rows < 600
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_leftovers_of_another_job_are_swept_away(pool, tmp_path):
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    write(log_table(), log)
    route_log(pool, log, tmp_path / "whole.parquet", cost_weight=0.05)
    interrupt(pool, log, out, after=3)
    summary = route_log(pool, log, out, cost_weight=0.05)
    assert summary.resumed_rows == 0
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    interrupt(pool, log, out, after=3)
    write(log_table(900), log)
    assert route_log(pool, log, out).resumed_rows == 0
    assert pq.read_metadata(out).num_rows == 900


def interrupt(pool: Path, log: Path, out: Path, after: int, **options: str) -> None:
    """Run a job that dies after so many parts."""
    left = [None] * after

    def kill(*_: object) -> None:
        left.pop()
        if not left:
            raise KilledError

    with pytest.raises(KilledError):
        route_log(pool, log, out, progress=kill, **options)


def test_long_texts_make_smaller_parts_wherever_reading_begins(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK_ROWS", 10)
    monkeypatch.setattr(readers, "PART_BYTES", 50_000)
    rng = np.random.default_rng(5)
    texts = [" ".join([DATA.texts[i]] * int(rng.integers(1, 60))) for i in range(400)]
    chats = [[{"role": "user", "content": text}] for text in texts]
    for name, table in (("text", pa.table({"text": texts})), ("chat", pa.table({"chat": chats}))):
        log, out = tmp_path / f"{name}.parquet", tmp_path / f"{name}.out.parquet"
        write(table, log)
        options = {"messages_column": "chat"} if name == "chat" else {}
        route_log(pool, log, out, **options)
        sizes = [pq.ParquetFile(out).metadata.row_group(i).num_rows for i in range(3)]
        assert all(size % 10 == 0 and size < 100 for size in sizes)
        whole = out.read_bytes()
        out.unlink()
        interrupt(pool, log, out, after=3, **options)
        assert route_log(pool, log, out, **options).resumed_rows > 0
        assert out.read_bytes() == whole


def test_rows_that_are_very_long_do_not_fill_memory(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PART_BYTES", 50_000)
    texts = [f"{i} " + "What is 2 times 3? " * 1000 for i in range(60)]
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"text": texts}), log, use_dictionary=False)
    route_log(pool, log, out)
    metadata = pq.ParquetFile(out).metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    # 19 KB each, where a block of the usual size would take all 60 at once.
    assert groups == [4] * 15
    whole = out.read_bytes()
    out.unlink()
    interrupt(pool, log, out, after=3)
    assert route_log(pool, log, out).resumed_rows > 0
    assert out.read_bytes() == whole


@pytest.mark.usefixtures("small_parts")
def test_two_jobs_do_not_make_one_output_at_once(pool, tmp_path):
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    write(log_table(), log)
    refusals: list[Exception] = []

    def second(*_: object) -> None:
        if not refusals:
            with pytest.raises(errors.InvalidArgumentError, match="another process") as caught:
                route_log(pool, log, out)
            refusals.append(caught.value)

    assert route_log(pool, log, out, progress=second).totals.rows == 1000
    assert len(refusals) == 1


@pytest.mark.parametrize("again", [False, True])
def test_a_lock_that_was_swept_away_is_none(again, pool, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="locks as POSIX has them")
    log, out = tmp_path / "log.parquet", tmp_path / "out.parquet"
    write(log_table(10), log)
    flock = fcntl.flock

    def late(file, how):
        """Get the lock just as another job has ended, and perhaps a third one begun."""
        Path(file.name).unlink()
        if again:
            Path(file.name).touch()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(errors.InvalidArgumentError, match="another process"):
        route_log(pool, log, out)
    assert not out.exists()
    monkeypatch.undo()
    assert route_log(pool, log, out).totals.rows == 10


class Lengths:
    """An embedder of the caller's own, which knows no nulls."""

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.array([[len(text), text.count(" ")] for text in texts], np.float32)


def test_an_embedder_of_the_callers_own_is_used(tmp_path):
    router = uf.Router.fit(list(DATA.texts), embedder=Lengths(), n_clusters=4)
    router.add_models(DATA.models, DATA.costs, list(DATA.texts), DATA.losses)
    table = log_table()
    write(table, tmp_path / "log.parquet")
    summary = route_log(router, tmp_path / "log.parquet", tmp_path / "out.parquet", budget=500.0)
    assert summary.totals.statuses == {"ok": 997, "null": 1, "empty": 1, "blank": 1}
    assert summary.totals.cost <= 500.0
    routed = pq.read_table(tmp_path / "out.parquet")
    wanted = router.route_batch(table["text"].to_pylist()[7:], summary.cost_weight)
    assert routed["model"].to_pylist()[7:] == wanted.models
    router.save(tmp_path / "pool.uniroute")
    with pytest.raises(errors.InvalidArgumentError, match="that embedder too"):
        route_log(tmp_path / "pool.uniroute", tmp_path / "log.parquet", tmp_path / "o.parquet")


@pytest.mark.usefixtures("small_parts")
def test_the_number_of_threads_changes_nothing(pool, tmp_path):
    write(log_table(), tmp_path / "log.parquet")
    outs = []
    for threads in (1, 2, 5):
        route_log(pool, tmp_path / "log.parquet", tmp_path / "out.parquet", threads=threads)
        outs.append((tmp_path / "out.parquet").read_bytes())
    assert outs[0] == outs[1] == outs[2]


def test_kill_9_at_random_moments_changes_nothing(pool, tmp_path):
    log, whole, out = (tmp_path / name for name in ("log.parquet", "whole.parquet", "out.parquet"))
    rng = np.random.default_rng(3)
    texts = [" ".join(DATA.texts[i] for i in rng.integers(400, size=8)) for _ in range(2000)]
    table = pa.table({"text": pa.array(texts * 100), "id": np.arange(200_000)})
    pq.write_table(table, log)
    command = [
        sys.executable,
        "-m",
        "uniroute_fast.cli",
        "route",
        pool,
        log,
        "--cost-weight",
        "0.1",
    ]
    start = time.monotonic()
    subprocess.run([*command, "--out", whole], check=True, capture_output=True)
    takes = time.monotonic() - start
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(
            [*command, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * takes)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        # Whole or not there at all.
        assert not out.exists() or out.read_bytes() == whole.read_bytes()
        out.unlink(missing_ok=True)
    assert kills
    subprocess.run([*command, "--out", out], check=True, capture_output=True)
    assert out.read_bytes() == whole.read_bytes()
