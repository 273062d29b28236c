"""Dataset folders: read back what was written, and refuse what cannot be used by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uniroute_fast.cli import main
from uniroute_fast.datasets import Dataset, load, save
from uniroute_fast.errors import DatasetError


def small(**changes):
    fields = {
        "name": "small",
        "ids": ["a", "b", "c"],
        "tasks": ["t", "t", "u"],
        "texts": ["one", "two", "three"],
        "scores": [[1, 0.5], [0, np.nan], [1, 1]],
        "models": ["m1", "m2"],
        "costs": [3, 1],
    }
    return Dataset(**(fields | changes))


@pytest.fixture
def folder(tmp_path):
    save(small(), tmp_path / "small")
    return tmp_path / "small"


def rewrite(folder, name, change):
    """Change the columns of a parquet file of the folder."""
    table = pq.read_table(folder / name).to_pydict()
    pq.write_table(pa.table(change(table)), folder / name)


def test_a_folder_gives_back_the_dataset(folder):
    loaded, made = load(folder), small()
    assert (loaded.ids, loaded.tasks, loaded.texts) == (made.ids, made.tasks, made.texts)
    assert loaded.models == made.models
    np.testing.assert_array_equal(loaded.scores, made.scores)
    np.testing.assert_array_equal(loaded.costs, made.costs)


def test_rows_and_columns_are_matched_by_name(folder):
    rewrite(folder, "scores.parquet", lambda t: {k: t[k][::-1] for k in ("m2", "id", "m1")})
    np.testing.assert_array_equal(load(folder).scores, small().scores)


def test_nulls_mean_not_run(folder):
    rewrite(folder, "scores.parquet", lambda t: t | {"m1": [None, 0.0, 1.0]})
    assert np.isnan(load(folder).scores[0, 0])


def test_complete_block_keeps_llms_run_on_most_prompts():
    data = small(scores=[[1, np.nan], [0, np.nan], [1, 1]])
    block = data.complete_block()
    assert block.models == ("m1",)
    assert block.ids == ("a", "b", "c")
    both = data.complete_block(min_share=0.3)
    assert both.models == ("m1", "m2")
    assert both.ids == ("c",)


def test_scores_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        small().scores[0, 0] = 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "b", "a"]}, "id 'a' appears twice, in rows 0 and 2"),
        ({"models": ["m1", "m1"]}, "model 'm1' appears twice"),
        ({"scores": [[1, 0], [0, 2], [0, 0]]}, r"column 'm2', row 1 \(id 'b'\): 2.0 is outside"),
        ({"scores": [[1, np.nan]] * 3}, "column 'm2' has no outcome"),
        ({"scores": [[1, 0]]}, r"shape \(1, 2\); expected \(3, 2\)"),
        ({"costs": [1, -1]}, r"row 1 \(model 'm2'\): -1.0"),
        ({"costs": [1]}, r"costs of shape \(1,\)"),
        ({"texts": ["one"]}, "1 texts for 3 prompts"),
        ({"models": [], "scores": np.zeros((3, 0)), "costs": []}, "0 LLMs"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(DatasetError, match=message):
        small(**changes)


@pytest.mark.parametrize("name", ["prompts.parquet", "scores.parquet", "models.csv"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DatasetError, match=f"{name}: no such file"):
        load(folder)


@pytest.mark.parametrize("name", ["prompts.parquet", "scores.parquet"])
def test_damaged_file_is_named(folder, name):
    (folder / name).write_bytes(b"PAR1 is not enough")
    with pytest.raises(DatasetError, match=f"{name}: not a parquet file"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("prompts.parquet", lambda t: t | {"id": ["a", "b", "b"]}, "'b' appears twice, in rows 1"),
        ("prompts.parquet", lambda t: t | {"text": ["x", None, "y"]}, "column 'text', row 1: None"),
        ("prompts.parquet", lambda t: {"id": t["id"]}, "no column 'text'"),
        ("scores.parquet", lambda t: t | {"id": ["a", "b", "z"]}, "no row for prompt 'c'"),
        ("scores.parquet", lambda t: t | {"id": ["a", "a", "c"]}, "'a' appears twice, in rows 0"),
        (
            "scores.parquet",
            lambda t: {k: [*v, "z" if k == "id" else 1.0] for k, v in t.items()},
            "row 3: 'z' is not a prompt",
        ),
        ("scores.parquet", lambda t: t | {"m1": [0.0, 7.0, 1.0]}, "column 'm1', row 1: 7.0"),
        ("scores.parquet", lambda t: t | {"m1": ["x", "y", "z"]}, "column 'm1' is string"),
        ("scores.parquet", lambda t: t | {"m1": [None] * 3}, "column 'm1'"),
        ("scores.parquet", lambda t: t | {"m3": [0.0] * 3}, "no row for model 'm3'"),
        ("scores.parquet", lambda t: {k: t[k] for k in ("id", "m1")}, "no column for model 'm2'"),
    ],
)
def test_bad_tables_are_named(folder, name, change, message):
    rewrite(folder, name, change)
    with pytest.raises(DatasetError, match=message) as error:
        load(folder)
    assert ".parquet" in str(error.value) or "models.csv" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,price\nm1,1\nm2,2\n", "no column 'cost'"),
        ("model,cost\nm1,1\nm1,2\n", "'m1' appears twice"),
        ("model,cost\nm1,1\nm2,cheap\n", "row 1: 'cheap'"),
        ("model,cost\nm1,1\nm2,-2\n", "row 1: '-2'"),
        ("model,cost\nm1,1\nm2,nan\n", "row 1: 'nan'"),
        ("model,cost\nm1,1\nm2\n", "row 1: None"),
        ("model,cost,cost_unit\nm1,1,USD\nm2,2,EUR\n", "'cost_unit', row 1: 'EUR', but"),
        ("model,cost\nm1,1\n,2\n", "column 'model', row 1: no name"),
        ("model,cost\n", "no rows"),
    ],
)
def test_bad_models_file_is_named(folder, text, message):
    (folder / "models.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: not a folder"):
        load(tmp_path / "nowhere")


def test_save_refuses_a_folder_with_files(folder):
    with pytest.raises(DatasetError, match="not empty"):
        save(small(), folder)


# --- what the command says of a folder that cannot be used ---


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "scores.parquet").unlink(), "scores.parquet: no such file"),
        (lambda f: (f / "models.csv").unlink(), "models.csv: no such file"),
        (
            lambda f: rewrite(f, "scores.parquet", lambda t: t | {"id": [*t["id"][:-1], "z"]}),
            "scores.parquet: column 'id': no row for prompt 'p39'",
        ),
        (
            lambda f: rewrite(f, "prompts.parquet", lambda t: t | {"id": ["p1", *t["id"][1:]]}),
            "prompts.parquet: column 'id': 'p1' appears twice, in rows 0 and 1",
        ),
        (
            lambda f: rewrite(f, "scores.parquet", lambda t: t | {"m2": [0.0, 1.5] * 20}),
            "scores.parquet: column 'm2', row 1: 1.5 is outside [0, 1]",
        ),
        (
            lambda f: rewrite(f, "scores.parquet", lambda t: t | {"m2": [float("inf")] * 40}),
            "scores.parquet: column 'm2', row 0: inf is outside [0, 1]",
        ),
        (
            lambda f: rewrite(f, "scores.parquet", lambda t: t | {"m2": [float("nan")] * 40}),
            "scores.parquet: column 'm2' has no outcome at all",
        ),
        (
            lambda f: rewrite(
                f,
                "scores.parquet",
                lambda t: {
                    k: v if k in ("id", "m0") else [1.0] + [None] * 39 for k, v in t.items()
                },
            ),
            "40 prompts and 1 LLMs are too few to split",
        ),
        (
            lambda f: rewrite(
                f,
                "scores.parquet",
                lambda t: {k: v if k == "id" else [1.0] + [None] * 39 for k, v in t.items()},
            ),
            "no LLM was run on 90% of the prompts",
        ),
        (lambda f: None, "4 labelled prompts are too few for a network"),
    ],
)
def test_evaluate_names_what_is_wrong_in_one_line(spoil, message, tmp_path, capsys):
    n, m = 40, 6
    ids = [f"p{i}" for i in range(n)]
    names = [f"m{i}" for i in range(m)]
    scores = np.random.default_rng(0).integers(2, size=(n, m))
    texts = [f"what is {i} and {i % 7}?" for i in range(n)]
    save(Dataset("s", ids, [""] * n, texts, scores, names, np.arange(m)), tmp_path / "set")
    spoil(tmp_path / "set")
    methods = ["zero_router", "retrained_mlp"]
    arguments = ["evaluate", str(tmp_path / "set"), "--trials", "1", "--methods", *methods]
    status = main(arguments)
    err = capsys.readouterr().err
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
