"""The harness of the studies: who sees what, and would it notice if somebody saw more."""

import json

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast.datasets import Dataset
from uniroute_fast.errors import DatasetError, InvalidArgumentError
from uniroute_fast.evaluate import (
    METHODS,
    LeakError,
    Method,
    against_teacher,
    check_leaks,
    random_split,
    run_trials,
)
from uniroute_fast.evaluate.statistics import sign_test, two_standard_errors
from uniroute_fast.evaluate.trial import make_trial


@pytest.fixture(scope="module")
def data():
    """Two kinds of prompts; LLMs are good at one, the other, or both at a price."""
    rng = np.random.default_rng(0)
    n, m = 400, 12
    kind = rng.integers(2, size=n)
    sums = [f"what is {rng.integers(99)} plus {rng.integers(99)}?" for _ in range(n)]
    rivers = [f"name {rng.integers(99)} long rivers of land {rng.integers(99)}" for _ in range(n)]
    good = rng.integers(2, size=m)
    rate = np.where(kind[:, None] == good, 0.9, 0.3) + 0.05 * (np.arange(m) % 3 == 0)
    return Dataset(
        "kinds",
        [f"p{i}" for i in range(n)],
        ["sums" if k else "rivers" for k in kind],
        [s if k else r for k, s, r in zip(kind, sums, rivers, strict=True)],
        (rng.random((n, m)) < rate).astype(float),
        [f"m{i}" for i in range(m)],
        1.0 + np.arange(m) % 3 + rng.random(m),
        "USD",
    )


def by_kind(data, split, seed):
    """Embed a prompt as its kind, with noise."""
    rng = np.random.default_rng(seed)
    x = np.eye(2)[[int(task == "sums") for task in data.tasks]]
    return (x + 0.05 * rng.normal(size=x.shape)).astype(np.float32)


def test_split_parts_are_disjoint_and_complete(data):
    split = random_split(data, 3)
    prompts = np.concatenate([split.train, split.validation, split.test])
    assert sorted(prompts) == list(range(400))
    assert sorted(np.concatenate([split.seen, split.unseen])) == list(range(12))
    assert (len(split.train), len(split.validation), len(split.test)) == (240, 40, 120)
    assert (len(split.seen), len(split.unseen)) == (8, 4)


def test_fewer_labels_are_a_subset_of_more(data):
    few, more = random_split(data, 3, n_val=10), random_split(data, 3, n_val=40)
    np.testing.assert_array_equal(few.validation, more.validation[:10])
    np.testing.assert_array_equal(few.test, more.test)
    np.testing.assert_array_equal(few.unseen, more.unseen)


def test_methods_are_ordered_as_they_must_be(data):
    table = run_trials(data, trials=4, embed=by_kind)
    areas = {row.method: row.area for row in table.rows}
    assert max(areas, key=areas.get) == "oracle"
    assert areas["zero_router"] >= areas["random_mixture"] - 0.01
    assert areas["uniroute"] > areas["zero_router"] + 0.05
    assert areas["knn"] > areas["zero_router"] + 0.05
    assert all(0 <= row.qnc <= 1 and 0 <= row.reached <= 1 for row in table.rows)
    assert all(row.area_50 < row.area for row in table.rows)


def test_tuned_methods_take_as_many_clusters_as_route_the_seen_llms_best():
    rng = np.random.default_rng(0)
    n, m, kinds = 1000, 24, 6
    kind = np.arange(n) % kinds
    losses = (
        rng.random((n, m)) < np.where(kind[:, None] == np.arange(m) % kinds, 0.1, 0.7)
    ).astype(float)
    prompts, llms = [str(i) for i in range(n)], [f"m{i}" for i in range(m)]
    made = Dataset("made", prompts, prompts, prompts, 1 - losses, llms, 1 + rng.random(m), "USD")
    x = np.eye(kinds)[kind] + 0.02 * rng.normal(size=(n, kinds))
    split = random_split(made, 0, n_val=300, shares=(0.4, 0.3))
    trial = make_trial(made, split, x.astype(np.float32), 0)
    # Candidates are 3 to 6: fewer clusters than kinds mix them.
    for tuned, plain in (("kmeans_tuned", "kmeans"), ("learned_map_tuned", "learned_map")):
        np.testing.assert_array_equal(
            METHODS[tuned].predict(trial), METHODS[plain].predict(trial, kinds)
        )


def test_the_default_embedder_is_fitted_on_training_prompts_alone(data):
    table = run_trials(data, ["uniroute", "zero_router"], trials=2)
    assert table["uniroute"].area > table["zero_router"].area + 0.05


def test_same_seed_same_table(data):
    one, two = (run_trials(data, ["knn", "uniroute"], trials=2, embed=by_kind) for _ in range(2))
    for name, values in one.figures.items():
        np.testing.assert_array_equal(values, two.figures[name])


def test_missing_outcomes_leave_the_complete_block(data):
    scores = data.scores.copy()
    scores[:8, 0] = np.nan  # Run on 98%: the prompts go.
    scores[:200, 1] = np.nan  # Run on half: the LLM goes.
    holed = Dataset("h", data.ids, data.tasks, data.texts, scores, data.models, data.costs)
    table = run_trials(holed, ["zero_router"], trials=1, embed=by_kind)
    assert table.settings["seen"] + table.settings["unseen"] == 11
    assert table.settings["train"] == round(0.6 * 392)


def test_table_prints_and_serialises(data):
    table = run_trials(data, ["knn", "oracle"], trials=3, embed=by_kind)
    text = str(table)
    assert "zero_router" in text  # The reference joins unasked.
    assert f"{table['knn'].area:.4f}" in text
    back = json.loads(table.to_json())
    assert [row["method"] for row in back["methods"]] == ["knn", "oracle", "zero_router"]
    assert back["methods"][0]["area"] == table["knn"].area
    assert np.mean(back["areas"]["knn"]) == pytest.approx(table["knn"].area)


# --- who sees what ---


def test_a_method_is_given_what_its_access_says(data):
    trial = make_trial(data, random_split(data, 0), by_kind(data, None, 0), 0)
    assert trial.limited_to("validation").train_losses is None
    assert trial.limited_to("validation").test_losses is None
    assert trial.limited_to("train").train_losses is not None
    assert trial.limited_to("train").test_losses is None
    assert trial.limited_to("test").test_losses is not None


def test_the_methods_do_not_leak(data):
    check_leaks(data, METHODS.values(), embed=by_kind)


def test_embeddings_that_carry_outcomes_are_noticed(data):
    def harness_that_leaks(dataset, split, seed):
        # The planted leak: an "embedding" that carries the test prompts' own outcomes.
        x = by_kind(dataset, split, seed)
        return np.hstack([x, dataset.losses[:, split.unseen]]).astype(np.float32)

    with pytest.raises(LeakError, match="knn"):
        check_leaks(data, ["knn"], embed=harness_that_leaks)


def test_a_method_that_asks_for_more_than_it_says_is_noticed(data):
    def tuned_on_test(trial):
        return trial.test_losses if trial.test_losses is not None else trial.losses.mean(axis=0)

    honest = Method("honest", tuned_on_test)
    check_leaks(data, [honest], embed=by_kind)
    with pytest.raises(LeakError, match="mislabelled"):
        check_leaks(data, [Method("mislabelled", tuned_on_test, access="test")], embed=by_kind)


def test_a_leak_through_the_validation_set_is_noticed(data):
    def overlapping(trial):
        return trial.losses.mean(axis=0)

    def split_with_test_in_validation(dataset, seed, n_val=None):
        split = random_split(dataset, seed, n_val)
        return split.__class__(
            split.train,
            np.concatenate([split.validation, split.test[:5]]),
            split.test,
            split.seen,
            split.unseen,
        )

    with pytest.raises(LeakError, match="overlap"):
        check_leaks(
            data, [Method("any", overlapping)], embed=by_kind, split=split_with_test_in_validation
        )


# --- statistics ---


def test_sign_test_is_the_binomial():
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 4, size=(2, 15)).astype(float)
        wins, losses, ties, p = sign_test(a, b)
        assert wins + losses + ties == 15
        if wins + losses:
            assert p == pytest.approx(binomtest(wins, wins + losses).pvalue)


def test_two_standard_errors():
    values = np.array([[1.0], [2.0], [4.0]])
    np.testing.assert_allclose(two_standard_errors(values), 2 * np.std(values, ddof=1) / 3**0.5)
    assert np.isnan(two_standard_errors(values[:1])).all()


# --- against a teacher ---


@pytest.fixture(scope="module")
def student(data):
    return uf.LexicalEmbedder.fit(data.texts, dim=4)


def test_a_student_that_is_its_teacher_loses_nothing(data, student):
    info = against_teacher(student, student.embed(data.texts), data, trials=3).info
    assert info["area_loss"] == info["area_loss_2se"] == 0
    assert 0.5 < info["teacher_area"] < 1
    assert info["method"] == "svd"


def test_a_student_that_misses_what_matters_loses_area(data, student, tmp_path):
    blind = uf.LexicalEmbedder.fit(["? ?", "99 ? 7"] * 5, dim=1)
    measured = against_teacher(blind, by_kind(data, None, 0), data, trials=5)
    info = measured.info
    assert info["area_loss"] > info["area_loss_2se"] > 0
    assert info["area_loss"] > 0.05
    assert (measured.embed(data.texts) == blind.embed(data.texts)).all()
    uf.Router.fit(data.texts, embedder=measured, n_clusters=2).save(tmp_path / "pool.uniroute")
    assert uf.Router.load(tmp_path / "pool.uniroute").embedder.info == info


# --- bad input ---


def test_a_teacher_that_does_not_fit_is_named(data, student):
    with pytest.raises(InvalidArgumentError, match=r"teacher_vectors: .*each of 400 prompts"):
        against_teacher(student, np.ones((3, 2)), data)
    with pytest.raises(InvalidArgumentError, match="trials: 1"):
        against_teacher(student, np.ones((400, 2)), data, trials=1)
    few = data.select(prompts=np.arange(3))
    with pytest.raises(InvalidArgumentError, match="dataset: 3 prompts"):
        against_teacher(student, np.ones((3, 2)), few)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trials": 0}, InvalidArgumentError, "trials, seed: 0, "),
        ({"seed": -1}, InvalidArgumentError, "trials, seed: 20, -1"),
        ({"n_val": 0}, InvalidArgumentError, "n_val: 0; expected 1 to 40"),
        ({"n_val": 41}, InvalidArgumentError, "n_val: 41"),
        ({"methods": []}, InvalidArgumentError, "methods: empty"),
        ({"methods": ["magic"]}, InvalidArgumentError, "no method 'magic'"),
        ({"methods": ["knn", "knn"]}, InvalidArgumentError, "named twice"),
        ({"reference": "magic"}, InvalidArgumentError, "no method 'magic'"),
    ],
)
def test_bad_settings_are_named(data, arguments, error, message):
    with pytest.raises(error, match=message):
        run_trials(data, **arguments)


def test_a_set_too_small_to_split_is_named(data):
    with pytest.raises(DatasetError, match="3 prompts and 12 LLMs are too few"):
        run_trials(data.select(prompts=np.arange(3)))
    with pytest.raises(DatasetError, match="400 prompts and 3 LLMs are too few"):
        run_trials(data.select(models=np.arange(3)))
