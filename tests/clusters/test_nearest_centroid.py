"""Nearest centroid: equal to float64 brute force under every instruction set and thread count."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import uniroute_fast as uf

ISAS = uf._native.available_isas()
UNASSIGNED = 2**32 - 1


def brute_force(x, centroids):
    """Labels and distances as NumPy computes them in float64."""
    wide = centroids.astype(np.float64)
    labels = np.empty(len(x), np.uint32)
    distances = np.empty(len(x))
    for i, row in enumerate(x.astype(np.float64)):
        squared = ((row - wide) ** 2).sum(-1)
        labels[i] = squared.argmin()
        distances[i] = squared[labels[i]]
    with np.errstate(over="ignore"):  # Distances beyond float32 are infinite, labels are not.
        return labels, distances.astype(np.float32)


def check(x, centroids):
    x = np.ascontiguousarray(x, np.float32)
    centroids = np.ascontiguousarray(centroids, np.float32)
    labels, distances = brute_force(x, centroids)
    found_labels, found_distances = uf.nearest_centroid(x, centroids)
    np.testing.assert_array_equal(found_labels, labels)
    np.testing.assert_array_equal(found_distances, distances)
    for n in {1, 2, 3, 5, len(x)}:  # Few rows meet centroids that are not packed.
        found_labels = uf.nearest_centroid(x[:n], centroids, return_distance=False)
        np.testing.assert_array_equal(found_labels, labels[:n])
    for isa in ISAS:
        packed = uf.Centroids(centroids, isa=isa)
        found_labels, found_distances = packed.assign(x)
        np.testing.assert_array_equal(found_labels, labels, err_msg=isa)
        np.testing.assert_array_equal(found_distances, distances, err_msg=isa)
        only_labels, none = packed.assign(x, return_distance=False)
        np.testing.assert_array_equal(only_labels, labels, err_msg=isa)
        assert none is None
        for row, label, distance in zip(x[:4], labels, distances, strict=False):
            assert packed.nearest(row) == (label, distance), isa


def unit(a):
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def data(kind, rng, n, k, d):
    """Rows and centroids of a named kind."""
    x, c = rng.standard_normal((n, d)), rng.standard_normal((k, d))
    copies = np.repeat(c, 3, axis=0)[:k]
    match kind:
        case "gaussian":
            return x, c
        case "unit norm":
            return unit(x), unit(c)
        case "duplicates":
            return copies[rng.integers(0, k, n)] + 0.1 * x, copies
        case "near duplicates":
            near = copies + 1e-7 * rng.standard_normal((k, d))
            return near[rng.integers(0, k, n)] + 0.1 * x, near
        case "norms 1e-18 to 1e18":
            return unit(x) * 10 ** rng.uniform(-18, 18, (n, 1)), unit(c) * 10 ** rng.uniform(
                -18, 18, (k, 1)
            )
        case "subnormal":
            return x * 1e-42, c * 1e-42
        case "around the least normal":
            return x * 1e-38, c * 1e-38
        case "near float32's end":
            return np.clip(x, -1, 1) * 3.4e38, np.clip(c, -1, 1) * 3.4e38
        case "offset 1e4":
            return x + 1e4, c + 1e4
        case "offset 1e6":
            return x + 1e6, c + 1e6
        case "constant rows":
            return np.repeat(x[:, :1], d, 1), np.repeat(c[:, :1], d, 1)
        case "rows of zeros":
            return x * 0, c
        case "centroids of zeros":
            return x, c * 0
        case "small integers":  # Many exact ties.
            return rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (k, d))
        case "permuted":  # Equal in exact arithmetic; the order of summation tells them apart.
            return np.repeat(x[:, :1], d, 1), np.stack([rng.permutation(c[0]) for _ in range(k)])
        case "far rows":
            return x * 1e9, c
        case "rows out of range":  # No bound holds for these.
            return x * 1e30, c * 1e-5
    raise AssertionError(kind)


KINDS = [
    "gaussian",
    "unit norm",
    "duplicates",
    "near duplicates",
    "norms 1e-18 to 1e18",
    "subnormal",
    "around the least normal",
    "near float32's end",
    "offset 1e4",
    "offset 1e6",
    "constant rows",
    "rows of zeros",
    "centroids of zeros",
    "small integers",
    "permuted",
    "far rows",
    "rows out of range",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(5, 3), (70, 17), (100, 384), (1100, 64)])
def test_equals_brute_force(kind, k, d):
    rng = np.random.default_rng(k * d)
    check(*data(kind, rng, 60, k, d))


@pytest.mark.parametrize("k", [1, 16, 17, 64, 130])
def test_every_remainder_of_the_dimension(k):
    rng = np.random.default_rng(k)
    for d in [*range(1, 132), 191, 255, 257, 383, 385, 767, 1000, 1023, 1025, 2047, 2048]:
        check(rng.standard_normal((7, d)), rng.standard_normal((k, d)))


def test_a_dimension_beyond_the_bound_is_searched_by_brute_force():
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((3, 70_000)), rng.standard_normal((4, 70_000))
    check(x, c)
    assert (uf.Centroids(c).count_candidates(x) == 4).all()


finite = st.floats(-3, 3, width=32) | st.floats(
    allow_nan=False, allow_infinity=False, width=32, allow_subnormal=True
)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 8))
def test_any_finite_values(draw, d, k, n):
    shapes = [(n, d), (k, d)]
    x, c = (draw.draw(hnp.arrays(np.float32, shape, elements=finite)) for shape in shapes)
    check(x, c)


def test_a_share_of_the_differential_fuzzer():
    """The whole of it is ``bench/fuzz_centroids.py``."""
    rng = np.random.default_rng(11)
    for _ in range(40):
        d, k, n = int(rng.integers(1, 300)), int(rng.integers(1, 400)), int(rng.integers(1, 200))
        x, c = data(KINDS[rng.integers(len(KINDS))], rng, n, k, d)
        check(x, c)


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_answers_few_rows(isa):
    """Centroids that are not packed are searched by the instruction set in use alone."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np, uniroute_fast as uf
from test_nearest_centroid import KINDS, brute_force, data
rng = np.random.default_rng(1)
for kind in KINDS:
    for n, k, d in [(1, 5, 3), (2, 70, 17), (7, 100, 384), (90, 130, 33), (390, 97, 64)]:
        x, c = (np.ascontiguousarray(a, np.float32) for a in data(kind, rng, n, k, d))
        labels, distances = uf.nearest_centroid(x, c)
        expected = brute_force(x, c)
        np.testing.assert_array_equal(labels, expected[0], err_msg=kind)
        np.testing.assert_array_equal(distances, expected[1], err_msg=kind)
"""
    done = run_python(code, UNIROUTE_ISA=isa)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_change_nothing(threads):
    rng = np.random.default_rng(3)
    c = rng.standard_normal((300, 96)).astype(np.float32)
    x = (c[rng.integers(0, 300, 4001)] + rng.standard_normal((4001, 96))).astype(np.float32)
    expected = uf.nearest_centroid(x, c)
    before = uf.get_num_threads()
    try:
        uf.set_num_threads(threads)
        for isa in ISAS:
            found = uf.Centroids(c, isa=isa).assign(x)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])
        few = uf.nearest_centroid(x[:300], c)
        np.testing.assert_array_equal(few[0], expected[0][:300])
        np.testing.assert_array_equal(few[1], expected[1][:300])
    finally:
        uf.set_num_threads(before)


def test_one_object_serves_many_threads():
    rng = np.random.default_rng(4)
    c = rng.standard_normal((200, 64)).astype(np.float32)
    packed = uf.Centroids(c)
    x = rng.standard_normal((500, 64)).astype(np.float32)
    expected, _ = brute_force(x, c)
    wrong = []

    def work():
        for _ in range(20):
            if (packed.assign(x, return_distance=False)[0] != expected).any():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_can_go_on():
    rng = np.random.default_rng(5)
    x, c = rng.standard_normal((20_000, 64)), rng.standard_normal((200, 64))
    expected = uf.nearest_centroid(x, c, return_distance=False)
    child = os.fork()
    if child == 0:
        same = (uf.nearest_centroid(x, c, return_distance=False) == expected).all()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("isa", ISAS)
def test_few_candidates_are_left_on_real_embeddings(isa, real_data):
    """A silent fall-back to comparing all centroids would show here."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads prompts from Parquet")
    texts = parquet.read_table(real_data("zeroeval") / "prompts.parquet")["text"].to_pylist()
    embeddings = uf.LexicalEmbedder.fit(texts, dim=128).embed(texts)
    rng = np.random.default_rng(0)
    for k in (64, 256, 1024):
        c = embeddings[rng.choice(len(embeddings), k, replace=False)]
        labels = uf.nearest_centroid(embeddings, c, return_distance=False)
        c = np.stack([embeddings[labels == j].mean(0) for j in range(k)])  # One step of K-means.
        counts = uf.Centroids(c, isa=isa).count_candidates(embeddings)
        assert counts.min() >= 1
        assert counts.mean() <= 1.5, (k, counts.mean())


def test_empty_batches_and_single_centroids():
    labels, distances = uf.nearest_centroid(np.empty((0, 5), np.float32), np.ones((3, 5)))
    assert labels.shape == distances.shape == (0,)
    assert labels.dtype == np.uint32
    assert distances.dtype == np.float32
    assert uf.nearest_centroid(
        np.ones((2, 5)), np.ones((1, 5)), return_distance=False
    ).tolist() == [
        0,
        0,
    ]


def test_other_dtypes_and_layouts_are_converted():
    rng = np.random.default_rng(6)
    x, c = rng.standard_normal((30, 12)), rng.standard_normal((9, 12))
    expected = uf.nearest_centroid(x.astype(np.float32), c.astype(np.float32))[0]
    layouts = (np.asfortranarray(x), x[::1], x.astype(np.float16).astype(np.float64), x.tolist())
    for other in layouts[:2] + layouts[3:]:
        assert (uf.nearest_centroid(other, c)[0] == expected).all()
    strided = np.repeat(x, 2, axis=1)[:, ::2]
    assert (uf.nearest_centroid(strided, np.flipud(np.flipud(c)))[0] == expected).all()
    integers = rng.integers(-5, 5, (4, 12))
    assert (uf.nearest_centroid(integers, integers)[1] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("isa", ISAS)
def test_rows_that_are_not_finite_are_named_or_marked(bad, isa):
    rng = np.random.default_rng(7)
    x, c = rng.standard_normal((500, 33)).astype(np.float32), rng.standard_normal((20, 33))
    packed = uf.Centroids(c, isa=isa)
    expected, _ = packed.assign(x)
    x[123, 32] = x[400, 0] = bad
    with pytest.raises(uf.errors.InvalidArgumentError, match=r"x: row 123 .*NaN or infinity"):
        packed.assign(x)
    with pytest.raises(uf.errors.InvalidArgumentError, match="NaN or infinity"):
        packed.nearest(x[400])
    good = np.ones(500, bool)
    good[[123, 400]] = False
    for rows, centroids in [(500, packed), (500, c), (150, c), (124, c)]:
        kept = good[:rows]
        labels, distances = uf.nearest_centroid(x[:rows], centroids, on_invalid="mark")
        assert (labels[kept] == expected[:rows][kept]).all()
        assert (labels[~kept] == UNASSIGNED).all()
        assert np.isnan(distances[~kept]).all()
        assert np.isfinite(distances[kept]).all()
        with pytest.raises(uf.errors.InvalidArgumentError, match=r"x: row 123 .*NaN or infinity"):
            uf.nearest_centroid(x[:rows], centroids)
    c[11, 5] = bad
    for rows in (0, 1, 150, 500):
        with pytest.raises(uf.errors.InvalidArgumentError, match=r"centroids: row 11 .*NaN"):
            uf.nearest_centroid(x[:rows], c)


@pytest.mark.parametrize(
    ("x", "centroids", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), ValueError, "x: dimension 3; expected 4"),
        (np.ones((2, 3)), np.ones((0, 3)), ValueError, "centroids: "),
        (np.ones((2, 0)), np.ones((2, 0)), ValueError, "centroids: "),
        (np.ones(3), np.ones((2, 3)), ValueError, "x: 1 dimensions"),
        (np.ones((2, 3)), np.ones(3), ValueError, "centroids: 1 dimensions"),
        (np.ones((2, 3)), [[1, 2, np.nan]], ValueError, "centroids: row 0 holds NaN"),
        ([["a", "b", "c"]], np.ones((2, 3)), TypeError, "x: dtype"),
        (np.ones((2, 3), complex), np.ones((2, 3)), TypeError, "x: dtype complex128"),
        (None, np.ones((2, 3)), TypeError, "x: "),
    ],
)
def test_bad_input_is_refused_by_name(x, centroids, error, message):
    with pytest.raises(error, match=message) as caught:
        uf.nearest_centroid(x, centroids)
    assert isinstance(caught.value, uf.errors.UniRouteError)


def test_bad_options_are_refused_by_name():
    with pytest.raises(uf.errors.InvalidArgumentError, match="on_invalid"):
        uf.nearest_centroid([[1.0]], [[1.0]], on_invalid="ignore")
    with pytest.raises(uf.errors.InvalidArgumentError, match="isa"):
        uf.Centroids([[1.0]], isa="sse9")
    for n in (0, -1, 5000):
        with pytest.raises(uf.errors.InvalidArgumentError, match="n: "):
            uf.set_num_threads(n)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", ISAS)
def test_the_environment_forces_an_instruction_set(isa):
    code = "import uniroute_fast as uf; print(uf._native.isa(), uf.Centroids([[1.0]]).isa)"
    assert run_python(code, UNIROUTE_ISA=isa).stdout.split() == [isa, isa]


def test_an_instruction_set_that_cannot_be_had_is_refused_at_import():
    lacking = [isa for isa in ("avx2", "avx512", "amx") if isa not in ISAS]
    for isa in ["sse9", *lacking]:
        done = run_python("import uniroute_fast", UNIROUTE_ISA=isa)
        assert done.returncode != 0
        assert "UnsupportedIsaError: UNIROUTE_ISA" in done.stderr
        assert isa in done.stderr


def test_show_versions_tells_what_runs(capsys):
    uf.show_versions()
    printed = capsys.readouterr().out
    for name in ("uniroute_fast", "isa", "isas available", "threads", "build profile", "numpy"):
        assert name in printed


def test_threads_from_the_environment():
    code = "import uniroute_fast as uf; print(uf.get_num_threads())"
    assert run_python(code, UNIROUTE_NUM_THREADS="3").stdout.strip() == "3"
