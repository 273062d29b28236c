"""Logs and published data sets, read from files of the schema that they are published in.

The logs of lm-evaluation-harness are real ones (``tests/data/lm_eval``). The published sets are not
part of this repository: small files of the same columns are made here.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from uniroute_fast import datasets
from uniroute_fast.cli import main
from uniroute_fast.errors import DatasetError, MissingExtraError

LOGS = Path(__file__).parent.parent / "data" / "lm_eval"
COSTS = {"org/one": 1.0, "org/two": 2.0}


# --- lm-evaluation-harness ---


@pytest.fixture
def logs(tmp_path):
    shutil.copytree(LOGS, tmp_path / "logs")
    return tmp_path / "logs"


def samples(logs, model, task):
    (file,) = logs.glob(f"org__{model}/samples_{task}_2*.jsonl")
    return file


def rewrite(file, change):
    """Change the samples of a file."""
    lines = [change(json.loads(line)) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def test_lm_eval_logs_are_read(logs):
    data = datasets.from_lm_eval(logs, costs=COSTS)
    assert data.models == ("org/one", "org/two")
    assert data.tasks == ("sums",) * 6 + ("sums_gen",) * 6
    assert data.ids[:2] == ("sums/0", "sums/1")
    assert data.texts[1] == "Question: What is 1 + 1?\nAnswer:"
    logged = [json.loads(line) for line in samples(logs, "two", "sums").read_text().splitlines()]
    np.testing.assert_array_equal(data.scores[:6, 1], [sample["acc"] for sample in logged])
    assert set(data.scores[:6, 1]) == {0.0, 1.0}


def test_lm_eval_metric_filter_and_field_are_chosen(logs):
    for model in ("one", "two"):
        rewrite(samples(logs, model, "sums"), lambda s: s | {"acc_norm": s["doc_id"] / 10})
        rewrite(
            samples(logs, model, "sums_gen"),
            lambda s: s | {"exact_match": float(s["filter"] == "flexible-extract")},
        )
    data = datasets.from_lm_eval(logs, costs=COSTS)
    assert not data.scores[6:].any()  # The first filter is strict-match.
    generated = {"costs": COSTS, "filter_name": "flexible-extract", "field": "question"}
    data = datasets.from_lm_eval(logs, **generated)
    assert data.tasks == ("sums_gen",) * 6  # The other task has no such filter.
    assert data.texts[1] == "What is 1 + 1?"
    assert data.scores.all()
    for model in ("one", "two"):
        samples(logs, model, "sums_gen").unlink()
    data = datasets.from_lm_eval(logs, costs=COSTS, metric="acc_norm")
    np.testing.assert_allclose(data.scores[:, 0], np.arange(6) / 10)


def test_lm_eval_the_last_run_counts_and_missing_questions_are_not_run(logs):
    old = samples(logs, "one", "sums")
    new = old.with_name("samples_sums_2027-01-01T00-00-00.000000.jsonl")
    shutil.copy(old, new)
    results = next(old.parent.glob("results_*.json"))
    shutil.copy(results, results.with_name("results_2027-01-01T00-00-00.000000.json"))
    rewrite(new, lambda s: s | {"acc": 1.0} if s["doc_id"] else None)
    data = datasets.from_lm_eval(logs, costs=COSTS)
    of = {name: row for row, name in enumerate(data.ids)}
    assert np.isnan(data.scores[of["sums/0"], 0])
    assert all(data.scores[of[f"sums/{i}"], 0] == 1 for i in range(1, 6))


def test_lm_eval_sizes_are_the_default_costs(logs):
    for size, model in ((7e9, "one"), (70e9, "two")):
        (results,) = (logs / f"org__{model}").glob("results_*.json")
        found = json.loads(results.read_text())
        found["config"]["model_num_parameters"] = int(size)
        results.write_text(json.dumps(found))
    data = datasets.from_lm_eval(logs)
    assert data.costs.tolist() == [7, 70]
    assert data.cost_unit == "billions of parameters"


def test_lm_eval_chat_prompts_are_what_the_user_wrote(logs):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    chat = {"gen_args_0": {"arg_0": [json.dumps(messages)], "arg_1": {"until": []}}}
    for model in ("one", "two"):
        rewrite(samples(logs, model, "sums_gen"), lambda s: s | {"arguments": chat})
    data = datasets.from_lm_eval(logs, costs=COSTS)
    assert data.texts[6] == "1 + 1?"


def test_lm_eval_logs_of_older_versions_are_read(logs):
    def older(sample):
        sent = [list(arguments.values()) for arguments in sample["arguments"].values()]
        return sample | {"arguments": sent}

    for model in ("one", "two"):
        rewrite(samples(logs, model, "sums"), older)
    data = datasets.from_lm_eval(logs, costs=COSTS)
    assert data.texts[1] == "Question: What is 1 + 1?\nAnswer:"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"acc": 7},
            r"samples_sums_.*jsonl, line 1: score 7 of 'org/one' is outside",
        ),
        (lambda s: s | {"acc": "good"}, "line 1: the score is 'good', not a number"),
        (lambda s: s | {"metrics": []}, r"line 1: no metric None of 'sums'; it has \[\]"),
        (lambda s: s | {"doc_id": 0}, "'org/one' (was asked another question|has two scores)"),
        (lambda s: s | {"arguments": {}}, "line 1: no prompt in its 'arguments'"),
        (lambda s: {"doc": s["doc"]}, "line 1: not a sample"),
        (lambda s: s | {"doc_hash": "other"}, "'org/two' was asked another question under 'sums/"),
    ],
)
def test_bad_lm_eval_samples_are_named(logs, change, message):
    rewrite(samples(logs, "one", "sums"), change)
    with pytest.raises(DatasetError, match=message):
        datasets.from_lm_eval(logs, costs=COSTS)


def test_bad_lm_eval_folders_are_named(logs, tmp_path):
    with pytest.raises(DatasetError, match="no cost for 'org/two'; expected a file of costs"):
        datasets.from_lm_eval(logs, costs={"org/one": 1})
    with pytest.raises(DatasetError, match="has no field 'prompt'"):
        datasets.from_lm_eval(logs, costs=COSTS, field="prompt")
    with pytest.raises(DatasetError, match="no metric 'f1' of 'sums'; it has"):
        datasets.from_lm_eval(logs, costs=COSTS, metric="f1")
    with pytest.raises(DatasetError, match="no outcomes"):
        datasets.from_lm_eval(logs, costs=COSTS, filter_name="majority")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="lm_eval writes them with --log_samples"):
        datasets.from_lm_eval(tmp_path / "empty", costs=COSTS)
    with pytest.raises(DatasetError, match="nowhere: not a folder"):
        datasets.from_lm_eval(tmp_path / "nowhere", costs=COSTS)
    file = samples(logs, "two", "sums")
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DatasetError, match=r"samples_sums_.*, line 6: not JSON"):
        datasets.from_lm_eval(logs, costs=COSTS)
    next((logs / "org__one").glob("results_*")).unlink()
    with pytest.raises(DatasetError, match=r"results_.*: no such file; samples_.* belongs to it"):
        datasets.from_lm_eval(logs, costs=COSTS)


def test_lm_eval_a_metric_where_lower_is_better_is_refused(logs):
    (results,) = (logs / "org__one").glob("results_*.json")
    found = json.loads(results.read_text())
    found["higher_is_better"]["sums"]["acc"] = False
    results.write_text(json.dumps(found))
    with pytest.raises(DatasetError, match="of 'acc' lower is better"):
        datasets.from_lm_eval(logs, costs=COSTS)


# --- EmbedLLM ---


def embedllm(folder, **columns):
    """Write rows as EmbedLLM has them: two prompts, two LLMs."""
    rows = {
        "prompt_id": [0, 0, 5, 5],
        "model_id": [0, 1, 0, 1],
        "category_id": [3, 3, 4, 4],
        "label": [1, 0, 1, 1],
        "model_name": ["org__one", "org__two"] * 2,
        "prompt": ['Which, "quoted"\nand broken?'] * 2 + ["What?"] * 2,
        "category": ["mmlu"] * 2 + ["gsm8k"] * 2,
    }
    pa.csv.write_csv(pa.table(rows | columns), folder)


def test_embedllm_is_read(tmp_path):
    embedllm(tmp_path / "train.csv")
    embedllm(tmp_path / "test.csv", label=[0, 0, 0, 1])
    (tmp_path / "model_order.csv").write_text("model_id,model_name\n0,org__one\n1,org__two\n")
    data = datasets.from_embedllm(tmp_path, costs={"org__one": 7, "org__two": 70})
    assert data.ids == ("train/0", "train/5", "test/0", "test/5")
    assert data.tasks == ("mmlu", "gsm8k") * 2
    assert data.texts[0] == 'Which, "quoted"\nand broken?'
    assert data.scores.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
    one_file = datasets.from_embedllm(tmp_path / "test.csv", costs=dict.fromkeys(data.models, 1))
    assert one_file.ids == ("test/0", "test/5")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1, 0, 2, 1]}, r"train.csv, row 2: score 2 of 'org__one' is outside \[0, 1\]"),
        ({"prompt_id": [0, 0, 0, 5]}, "'org__one' has two scores on prompt 'train/0'"),
        ({"model_name": ["a", "b", "a", "c"]}, "no cost for 'a' and 2 more LLMs"),
        ({"label": ["x"] * 4}, "train.csv: not a table of EmbedLLM"),
    ],
)
def test_bad_embedllm_is_named(tmp_path, columns, message):
    embedllm(tmp_path / "train.csv", **columns)
    with pytest.raises(DatasetError, match=message):
        datasets.from_embedllm(tmp_path, costs={"org__one": 7, "org__two": 70})


# --- SPROUT ---

PRICES = {"openai-gpt-4o": (2.5, 10.0), "wxai-llama": (0.2, 0.2)}


def sprout(file, scores=((1.0, 0.5), (0.0, None))):
    """Write two rows as SPROUT has them."""
    fields = ("num_input_tokens", "num_output_tokens", "response", "score")
    columns = {
        "key": ["k1", "k2"],
        "dataset": ["mmlu-pro", "math"],
        "dataset level": ["", "3"],
        "dataset idx": [4, 9],
        "prompt": ["What?", "How much?"],
        "golden_answer": ["A", "7"],
    }
    for m, model in enumerate(PRICES):
        columns[model] = [
            dict(zip(fields, (100 * (row + 1), 10, "because", score[m]), strict=True))
            for row, score in enumerate(scores)
        ]
    pq.write_table(pa.table(columns), file)


def test_sprout_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    sprout(tmp_path / "data" / "train-00000-of-00001.parquet")
    sprout(tmp_path / "data" / "test-00000-of-00001.parquet", ((0.0, 0.0), (0.25, 1.0)))
    data = datasets.from_sprout(tmp_path, prices=PRICES)
    np.testing.assert_array_equal(data.scores, [[1, 0.5], [0, np.nan], [0, 0], [0.25, 1]])
    assert data.tasks == ("mmlu-pro", "math") * 2
    assert data.models == tuple(PRICES)
    # 100 or 200 tokens in, 10 out; the LLM that was not run once is not charged for it.
    four_o = (150 * 2.5 + 10 * 10) / 1e6
    llama = ((100 + 100 + 200) / 3 * 0.2 + 10 * 0.2) / 1e6
    np.testing.assert_allclose(data.costs, [four_o, llama])


def test_bad_sprout_is_named(tmp_path):
    file = tmp_path / "test-00000-of-00001.parquet"
    sprout(file, ((1.0, 0.5), (0.0, 3.0)))
    with pytest.raises(DatasetError, match=r"parquet, row 1: score 3 of 'wxai-llama' is outside"):
        datasets.from_sprout(file, prices=PRICES)
    with pytest.raises(DatasetError, match="no price for 'wxai-llama'"):
        datasets.from_sprout(file, prices={"openai-gpt-4o": (1, 1)})
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input,output\nopenai-gpt-4o,2.5,dear\n")
    with pytest.raises(DatasetError, match="column 'output', row 0: 'dear' is not a finite price"):
        datasets.from_sprout(file, prices=prices)
    pq.write_table(pa.table({"prompt": ["x"]}), file)
    with pytest.raises(DatasetError, match="no column 'dataset'"):
        datasets.from_sprout(file, prices=PRICES)
    file.write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="not a Parquet file"):
        datasets.from_sprout(file, prices=PRICES)


# --- LLMRouterBench ---


def llmrouterbench(folder, dataset, model, date, scores, **changes):
    """Write one run as LLMRouterBench has them."""
    records = [
        {
            "index": i + 1,
            "origin_query": f"{dataset} {i}?",
            "prompt": f"Question: {dataset} {i}?\nAnswer:",
            "prediction": "4",
            "ground_truth": "4",
            "score": score,
            "prompt_tokens": 15,
            "completion_tokens": 5,
            "cost": 0.001 * (i + 1),
            "raw_output": "4",
        }
        for i, score in enumerate(scores)
    ]
    run = {
        "performance": float(np.mean(scores)),
        "time_taken": 1.5,
        "counts": len(scores),
        "model_name": model,
        "dataset_name": dataset,
        "split": "test",
        "demo": False,
        "records": records,
    }
    file = folder / "bench" / dataset / "test" / model / f"{dataset}-test-{model}-{date}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(run | changes))
    return file


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    llmrouterbench(folder, "aime", "gpt-5", "20250101_000000", [0, 0, 0])
    llmrouterbench(folder, "aime", "gpt-5", "20250801_120000", [1, 0, 1])
    llmrouterbench(folder, "aime", "gpt-5", "20260101_000000", [0.0, 0, 0], demo=True)
    llmrouterbench(folder, "aime", "qwen", "20250801_120000", [0, 1])
    llmrouterbench(folder, "bbh", "qwen", "20250801_120000", [0.5, 1, 0])
    return folder


def test_llmrouterbench_is_read(runs, tmp_path):
    data = datasets.from_llmrouterbench(runs)
    assert data.models == ("gpt-5", "qwen")
    assert data.ids == (
        *(f"aime/test/{i}" for i in (1, 2, 3)),
        *(f"bbh/test/{i}" for i in (1, 2, 3)),
    )
    assert data.texts[0] == "aime 0?"
    n = np.nan
    expected = [[1, 0], [0, 1], [1, n], [n, 0.5], [n, 1], [n, 0]]
    np.testing.assert_array_equal(data.scores, expected)
    np.testing.assert_allclose(data.costs, [0.002, (1 + 2 + 1 + 2 + 3) / 5000])
    given = datasets.from_llmrouterbench(runs, costs={"gpt-5": 3, "qwen": 1})
    assert given.costs.tolist() == [3, 1]

    archive = tmp_path / "bench-release.tar.gz"
    with tarfile.open(archive, "w:gz") as members:
        members.add(runs / "bench", "bench-release")
    for source in (archive, tmp_path):  # As a file, and in a folder as the hub's copy is.
        packed = datasets.from_llmrouterbench(source)
        np.testing.assert_array_equal(packed.scores, data.scores)
        assert packed.ids == data.ids


def test_bad_llmrouterbench_is_named(runs, tmp_path):
    file = llmrouterbench(runs, "aime", "glm", "20250801_120000", [0, 7])
    with pytest.raises(DatasetError, match=r"glm.*json, record 1: score 7 of 'glm' is outside"):
        datasets.from_llmrouterbench(runs)
    run = json.loads(file.read_text())
    del run["records"][1]["cost"]
    file.write_text(json.dumps(run))
    with pytest.raises(DatasetError, match=r"glm.*json, record 1: no 'cost'"):
        datasets.from_llmrouterbench(runs)
    file.write_text('{"records": []}')
    with pytest.raises(DatasetError, match="not a run of LLMRouterBench: no 'dataset_name'"):
        datasets.from_llmrouterbench(runs)
    file.write_text('{"records": [')
    with pytest.raises(DatasetError, match=r"glm.*json: not JSON"):
        datasets.from_llmrouterbench(runs)
    broken = tmp_path / "bench-release.tar.gz"
    broken.write_bytes(b"\x1f\x8b no archive")
    with pytest.raises(DatasetError, match="not an archive"):
        datasets.from_llmrouterbench(broken)


# --- RouterBench ---

pd = pytest.importorskip("pandas", reason="pandas is not installed (extra datasets)")


def routerbench(**columns):
    """Make a table as RouterBench has it: two prompts, two LLMs; strings as objects."""
    cells = {
        "sample_id": ["mmlu.val.1", "mtbench.2"],
        "prompt": ["['Which?']", "['Write.', 'Shorten it.']"],
        "eval_name": ["mmlu", "mtbench"],
        "gpt-4": [1.0, 0.9],
        "mistral": [0.0, np.nan],
        "gpt-4|model_response": ["A", "..."],
        "mistral|model_response": ["B", ""],
        "gpt-4|total_cost": [0.02, 0.04],
        "mistral|total_cost": [0.001, 0.003],
        "oracle_model_to_route_to": ["gpt-4", "gpt-4"],
    } | columns
    table = pd.DataFrame(
        {
            name: pd.Series(values, dtype=object if isinstance(values[0], str) else None)
            for name, values in cells.items()
        }
    )
    table.columns = pd.Index(list(cells), dtype=object)
    return table


@pytest.mark.parametrize("suffix", ["pkl", "parquet", "csv"])
def test_routerbench_is_read(suffix, tmp_path):
    file = tmp_path / f"routerbench_0shot.{suffix}"
    table = routerbench()
    write = {"pkl": table.to_pickle, "parquet": table.to_parquet, "csv": table.to_csv}[suffix]
    write(file)
    for source in (tmp_path, file):
        data = datasets.from_routerbench(source)
        assert data.models == ("gpt-4", "mistral")
        assert data.texts == ("Which?", "Write.\nShorten it.")
        assert data.tasks == ("mmlu", "mtbench")
        np.testing.assert_array_equal(data.scores, [[1, 0], [0.9, np.nan]])
        np.testing.assert_allclose(data.costs, [0.03, 0.001])
    with pytest.raises(DatasetError, match=r"no file routerbench_5shot\.pkl or"):
        datasets.from_routerbench(tmp_path, shots=5)


class Attack:
    def __reduce__(self):
        return Path.touch, (Path(__file__).parent.parent / "pwned",)


@pytest.mark.parametrize("payload", [Attack(), eval, pickle.loads])
@pytest.mark.parametrize("inside", [False, True])
def test_a_pickle_that_asks_for_more_than_a_table_is_refused(payload, inside, tmp_path):
    file = tmp_path / "routerbench_0shot.pkl"
    file.write_bytes(pickle.dumps(routerbench(prompt=[payload, "x"]) if inside else payload))
    with pytest.raises(DatasetError, match=r"routerbench_0shot\.pkl: .*which no table needs"):
        datasets.from_routerbench(tmp_path)
    assert not (Path(__file__).parent.parent / "pwned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpt-4": [1.0, 2.0]}, r"column 'gpt-4', row 1: score 2 of 'gpt-4' is outside \[0, 1\]"),
        ({"gpt-4": ["A", "B"]}, "column 'gpt-4', row 0: the score is 'A', not a number"),
        ({"sample_id": ["x", "x"]}, "column 'sample_id': 'x' appears twice, in rows 0 and 1"),
        ({"eval_name": None}, "no column 'eval_name'"),
        ({"mistral": None}, r"no column 'mistral' beside 'mistral\|total_cost'"),
    ],
)
def test_bad_routerbench_is_named(change, message, tmp_path):
    table = routerbench(**{k: v for k, v in change.items() if v})
    table = table.drop(columns=[k for k, v in change.items() if not v])
    table.to_pickle(tmp_path / "routerbench_0shot.pkl")
    with pytest.raises(DatasetError, match=message):
        datasets.from_routerbench(tmp_path)


def test_files_that_are_no_table_are_named(tmp_path):
    file = tmp_path / "routerbench_0shot.pkl"
    for content in (b"", b"no pickle", pickle.dumps({"a": 1})):
        file.write_bytes(content)
        with pytest.raises(DatasetError, match=r"routerbench_0shot\.pkl: not a table"):
            datasets.from_routerbench(tmp_path)


# --- from the hub, and from the command line ---


def test_what_is_no_path_comes_from_the_hub(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="extra datasets is not installed")
    embedllm(tmp_path / "train.csv")
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    data = datasets.from_embedllm(costs={"org__one": 1, "org__two": 2})
    assert data.ids == ("train/0", "train/5")
    patterns = ["train.csv", "val.csv", "test.csv"]
    assert asked == [("RZ412/EmbedLLM", {"repo_type": "dataset", "allow_patterns": patterns})]

    def fail(name, **options):
        raise OSError("no network")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(DatasetError, match="cannot be downloaded from the hub: no network"):
        datasets.from_llmrouterbench()
    for wrong in ("nowhere", "./no/where", "/no/where", "owner/"):
        with pytest.raises(DatasetError, match="no such file or folder, nor a name"):
            datasets.from_llmrouterbench(wrong)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"uniroute_fast\[datasets\]"):
        datasets.from_llmrouterbench()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"uniroute_fast\[datasets\]"):
        datasets.from_routerbench()


def test_import_writes_a_dataset_folder(logs, tmp_path, capsys):
    costs = tmp_path / "costs.csv"
    costs.write_text("model,cost,cost_unit\norg/one,1,USD\norg/two,2,USD\n")
    out = tmp_path / "set"
    arguments = ["import", "lm-eval", str(logs), "--out", str(out)]
    assert main([*arguments, "--costs", str(costs), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["prompts"], printed["models"], printed["tasks"]) == (12, 2, 2)
    data, direct = datasets.load(out), datasets.from_lm_eval(logs, costs=costs)
    assert (data.ids, data.texts, data.models) == (direct.ids, direct.texts, direct.models)
    np.testing.assert_array_equal(data.scores, direct.scores)
    assert data.cost_unit == "USD"
    assert main([*arguments, "--costs", str(costs)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embedllm", "x/y"], "--costs: missing; embedllm needs it"),
        (["sprout", "x/y", "--costs", "c.csv"], "--costs: not an option of sprout"),
        (["routerbench", "x/y", "--filter", "a"], "--filter: not an option of routerbench"),
        (["lm-eval", "nowhere"], "nowhere: not a folder"),
        (["parrot", "nowhere"], "invalid choice: 'parrot'"),
    ],
)
def test_import_refuses_in_one_line(arguments, message, tmp_path, capsys):
    try:
        status = main(["import", *arguments, "--out", str(tmp_path / "out")])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
