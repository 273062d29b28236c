"""The lexical embedder: what it computes, what it takes, what it refuses."""

import json
import pickle
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf
from uniroute_fast import _native, chat_text
from uniroute_fast.embedding.embedder import Embedder

TOPICS = {
    "maths": "solve the equation x y z sum product integral of prime number root square 1 2 3 4",
    "law": "the court ruled contract plaintiff defendant appeal statute judge liable tort",
    "biology": "the cell membrane protein gene enzyme dna mutation species evolution organ",
    "code": "def return for in range ( ) : { } [ ] import class self print lambda = + - ;",
}


def make_texts(n, seed=0):
    rng = np.random.default_rng(seed)
    topics = rng.integers(len(TOPICS), size=n)
    words = [words.split() for words in TOPICS.values()]
    return [" ".join(rng.choice(words[t], size=20)) for t in topics], topics


@pytest.fixture(scope="module")
def texts():
    return make_texts(600)[0]


@pytest.fixture(scope="module")
def embedder(texts):
    return uf.LexicalEmbedder.fit(texts, dim=16)


def parts(embedder):
    """Tensors of the saved form: safetensors is a length, a JSON header and bytes."""
    data = embedder.to_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    dtypes = {"I8": np.int8, "U8": np.uint8, "U16": np.uint16, "F32": np.float32}
    tensors = {
        name: np.frombuffer(data[end:], np.uint8)[slice(*entry["data_offsets"])]
        .view(dtypes[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return tensors, json.loads(header["__metadata__"]["uniroute"])["manifest"]


def in_numpy(embedder, text):
    """The embedding and coverage of a text, in float64."""
    tensors, params = parts(embedder)
    tags, idf = tensors["tags"].reshape(-1, 4), tensors["idf"].astype(np.int64)
    ids, counts = np.unique(_native.feature_ids(text, params["ngrams"]), return_counts=True)
    total, known, unknown = np.zeros(embedder.dim), 0, 0
    for id_, count in zip(ids.tolist(), counts.tolist(), strict=True):
        bucket = id_ % len(tags)
        slots = np.flatnonzero(tags[bucket] == (id_ >> 16 | 1))
        if len(slots) == 0:
            unknown += count * params["unknown_idf"]
            continue
        row = 4 * bucket + slots[0]
        known += count * idf[row]
        weight = np.round(16 * (1 + np.log(min(count, 255))))
        total += weight * tensors["table"][row].astype(np.float64)
    total *= tensors["scales"]
    coverage = known / (known + unknown) if known else 0.0
    return (total / np.linalg.norm(total) if known else total), coverage


# --- what it computes ---


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*" ".join(TOPICS.values()).split(), "zzz", "é", "漢"]), max_size=90)
)
def test_embedding_equals_numpy(embedder, words):
    text = " ".join(words)
    expected, coverage = in_numpy(embedder, text)
    got = embedder.embed_with_status([text])
    np.testing.assert_allclose(got.vectors[0], expected, atol=2e-6)
    assert got.coverage[0] == pytest.approx(coverage, abs=1e-6)


def test_repeats_beyond_255_count_as_255(embedder):
    text = "equation " * 300 + "court " * 2
    np.testing.assert_allclose(embedder.embed([text])[0], in_numpy(embedder, text)[0], atol=2e-6)


def test_topics_are_told_apart():
    texts, topics = make_texts(600)
    held_out, held_out_topics = make_texts(100, seed=1)
    embedder = uf.LexicalEmbedder.fit(texts, dim=8)
    nearest = (embedder.embed(held_out) @ embedder.embed(texts).T).argmax(1)
    assert (topics[nearest] == held_out_topics).mean() > 0.98


def test_norms_and_statuses(embedder):
    rows = [
        "the court",
        "",
        " \t\n",
        "\0\u200d",
        "xylophone",
        None,
        float("nan"),
        "\ud800 the court",
    ]
    got = embedder.embed_with_status(rows)
    assert got.status == [
        "ok", "empty", "blank", "blank", "unknown", "null", "null", "invalid"
    ]  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(got.vectors, axis=1), [1] + [0] * 7, atol=1e-6)
    assert got.coverage[0] > 0.5
    assert (got.coverage[1:] == 0).all()


def test_coverage_falls_as_foreign_text_is_added(embedder):
    own = "the court ruled the contract"
    foreign = " quux flarp wibble"
    coverage = embedder.embed_with_status([own + foreign * n for n in range(5)]).coverage
    assert (np.diff(coverage) < 0).all()
    assert coverage[0] > 0.6
    assert coverage[4] < 0.3


def test_batch_equals_single_bit_for_bit(embedder, texts):
    batch = embedder.embed(texts)
    assert all(
        (embedder.embed([text]) == row).all() for text, row in zip(texts, batch, strict=True)
    )
    before = uf.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            uf.set_num_threads(threads)
            assert (embedder.embed(texts) == batch).all()
    finally:
        uf.set_num_threads(before)


@pytest.mark.parametrize("isa", _native.available_isas())
def test_instruction_sets_agree_bit_for_bit(embedder, texts, isa, tmp_path):
    path = tmp_path / "embedder.pickle"
    path.write_bytes(pickle.dumps((embedder, texts)))
    code = (
        "import pickle, sys, pathlib; e, t = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes());"
        "sys.stdout.buffer.write(e.embed(t).tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"UNIROUTE_ISA": isa, "PATH": ""},
        capture_output=True,
        check=True,
    )
    assert done.stdout == embedder.embed(texts).tobytes()


def test_threads_share_an_embedder(embedder, texts):
    expected, seen = embedder.embed(texts), []
    threads = [
        threading.Thread(target=lambda: seen.append((embedder.embed(texts) == expected).all()))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 6


def test_a_ten_megabyte_prompt(embedder):
    text = "the court ruled; " * (10_000_000 // 17)
    got = embedder.embed_with_status([text])
    np.testing.assert_allclose(got.vectors[0], in_numpy(embedder, text)[0], atol=2e-6)


# --- what it takes ---


@pytest.mark.parametrize(
    "convert",
    [
        tuple,
        iter,
        lambda t: np.array(t),
        lambda t: np.array(t, dtype=object),
        lambda t: np.array(t)[::-1][::-1],
        pa.array,
        lambda t: pa.array(t, pa.large_string()),
        lambda t: pa.array(t, pa.string_view()),
        lambda t: pa.chunked_array([t[:7], t[7:]]),
        lambda t: pa.array(["x", *t, "y"]).slice(1, len(t)),
        lambda t: pa.table({"text": t})["text"],
    ],
    ids=[
        "tuple", "iterator", "numpy", "object", "strided", "arrow", "large", "view", "chunked",
        "slice", "column",
    ],
)  # fmt: skip
def test_texts_in_any_container(embedder, texts, convert):
    some = [*texts[:20], "naïve 漢字 🙂", ""]
    assert (embedder.embed(convert(some)) == embedder.embed(some)).all()


def test_numpy_string_dtype(embedder, texts):
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("NumPy 1 has no StringDType")
    array = np.array(texts[:5], np.dtypes.StringDType())
    assert (embedder.embed(array) == embedder.embed(texts[:5])).all()


def test_str_subclasses(embedder):
    class Text(str):
        pass

    assert (embedder.embed([Text("the court")]) == embedder.embed(["the court"])).all()


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
def test_arrow_nulls(embedder, type_):
    got = embedder.embed_with_status(pa.array(["the court", None, ""], type_))
    assert got.status == ["ok", "null", "empty"]


@pytest.mark.parametrize(
    "empty", [[], (), np.array([], str), pa.array([], pa.string()), pa.array([])]
)
def test_no_texts(embedder, empty):
    assert embedder.embed(empty).shape == (0, 16)
    assert embedder.embed(empty).dtype == np.float32


def test_arrow_bytes_that_are_no_utf8(embedder):
    data = pa.py_buffer(b"\xff\xfethe court")
    offsets = pa.py_buffer(np.array([0, 2, 11], np.int32))
    array = pa.StringArray.from_buffers(2, offsets, data)
    assert embedder.embed_with_status(array).status == ["invalid", "ok"]


def test_pickle(embedder, texts):
    copy = pickle.loads(pickle.dumps(embedder))
    assert type(copy) is uf.LexicalEmbedder
    assert copy.info == embedder.info
    assert (copy.embed(texts) == embedder.embed(texts)).all()


def test_it_is_an_embedder(embedder):
    assert isinstance(embedder, Embedder)
    assert "dim=16" in repr(embedder)


def test_damaged_bytes(embedder):
    data = bytearray(embedder.to_bytes())
    for broken in (data[:100], data[:-1], b"", b"hello"):
        with pytest.raises(uf.errors.ArtifactError):
            uf.LexicalEmbedder.from_bytes(bytes(broken))
    data[-1] ^= 1
    with pytest.raises(uf.errors.ArtifactError):
        uf.LexicalEmbedder.from_bytes(bytes(data))


# --- what it refuses ---


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "texts: a single str"),
        (b"text", "texts: a single bytes"),
        ({"a": 1}, "texts: a single dict"),
        (3, "texts: a int"),
        (None, "texts: a NoneType"),
        (["a", 3], "texts: item 1 is a int"),
        ([["a"]], "texts: item 0 is a list"),
        ([b"a"], "texts: item 0 is a bytes"),
        (np.array("a"), "texts: an array of no dimensions"),
        (np.array([["a"]]), "texts: item 0 is a list"),
        (np.arange(3), "texts: item 0 is a int"),
        (pa.array([1, 2]), "texts: an Arrow column of type Int64"),
        (pa.table({"a": ["x"]}), "texts: an Arrow column of type Struct"),
    ],
)
def test_what_are_no_texts(embedder, bad, message):
    with pytest.raises(uf.errors.ArgumentTypeError, match=message):
        embedder.embed(bad)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 0}, uf.errors.InvalidArgumentError, "dim: 0; expected 1 to 4096"),
        ({"dim": 5000}, uf.errors.InvalidArgumentError, "dim: 5000"),
        ({"dim": 2.0}, uf.errors.ArgumentTypeError, "dim: a float"),
        ({"rows": 1}, uf.errors.InvalidArgumentError, "rows: 1; expected 4 to 131072"),
        ({"ngrams": 4}, uf.errors.InvalidArgumentError, "ngrams: 4; expected 1 to 3"),
        ({"min_df": 0}, uf.errors.InvalidArgumentError, "min_df: 0"),
        (
            {"min_df": 10**6},
            uf.errors.InvalidArgumentError,
            "texts: no feature that 1000000 of 600",
        ),
        ({"max_sample": 1}, uf.errors.InvalidArgumentError, "max_sample: 1"),
    ],
)
def test_fit_arguments(texts, arguments, error, message):
    with pytest.raises(error, match=message):
        uf.LexicalEmbedder.fit(texts, **arguments)


@pytest.mark.parametrize("nothing", [[], [""], ["  ", None]])
def test_fit_on_nothing(nothing):
    with pytest.raises(uf.errors.InvalidArgumentError, match="texts: no feature"):
        uf.LexicalEmbedder.fit(nothing)


# --- fitting ---


def test_fit_is_deterministic(texts, embedder):
    again = uf.LexicalEmbedder.fit(texts, dim=16)
    assert again.to_bytes() == embedder.to_bytes()
    sampled = [uf.LexicalEmbedder.fit(texts, dim=4, max_sample=100, seed=s) for s in (1, 1, 2)]
    assert sampled[0].to_bytes() == sampled[1].to_bytes()
    assert sampled[0].to_bytes() != sampled[2].to_bytes()
    assert sampled[0].info["n_sampled"] == 100


def test_fit_takes_arrow_and_iterators(texts, embedder):
    for other in (pa.array(texts), iter(texts), np.array(texts)):
        assert uf.LexicalEmbedder.fit(other, dim=16).to_bytes() == embedder.to_bytes()


def test_texts_without_features_change_nothing(texts):
    plain = uf.LexicalEmbedder.fit(texts, dim=4)
    padded = uf.LexicalEmbedder.fit([*texts, "", None, "\ud800"], dim=4)
    np.testing.assert_allclose(
        abs(plain.embed(texts) @ padded.embed(texts).T).diagonal(), 1, atol=1e-3
    )


def test_fewer_texts_than_dimensions():
    embedder = uf.LexicalEmbedder.fit(["one two", "three four"], dim=64)
    assert embedder.embed(["two three"]).shape == (1, 64)


def test_rows_bound_the_table(texts):
    embedder = uf.LexicalEmbedder.fit(texts, dim=4, rows=100)
    assert embedder.rows == 64
    assert embedder.n_features <= 64


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_orders(texts, ngrams):
    embedder = uf.LexicalEmbedder.fit(texts, dim=4, ngrams=ngrams)
    assert embedder.ngrams == ngrams
    for text in texts[:5]:
        np.testing.assert_allclose(
            embedder.embed([text])[0], in_numpy(embedder, text)[0], atol=2e-6
        )


# --- distillation ---


@pytest.fixture(scope="module")
def teacher(texts):
    """A teacher that the features determine: bags of words through a random projection."""
    rng = np.random.default_rng(3)
    words = sorted({word for text in texts for word in text.split()})
    vectors = rng.normal(size=(len(words), 24)).astype(np.float32)

    def teach(some):
        sums = [sum(vectors[words.index(w)] for w in set(text.split())) for text in some]
        return np.array(sums, np.float32)

    return teach


def cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()


def test_distill_learns_its_teacher(texts, teacher):
    student = uf.LexicalEmbedder.distill(texts, teacher(texts), dim=24)
    held_out = make_texts(200, seed=5)[0]
    target = teacher(held_out)
    # The student's axes are the teacher's principal directions: compare Gram matrices.
    gram = student.embed(held_out) @ student.embed(held_out).T
    unit = target / np.linalg.norm(target, axis=1, keepdims=True)
    assert np.corrcoef(gram.ravel(), (unit @ unit.T).ravel())[0, 1] > 0.95
    assert student.info["held_out_cosine"] > 0.9
    assert student.info["n_held_out"] == 60


def test_distill_reports_a_poor_teacher(texts):
    noise = np.random.default_rng(0).normal(size=(len(texts), 24))
    assert uf.LexicalEmbedder.distill(texts, noise, dim=24).info["held_out_cosine"] < 0.2


class Encoder:
    def __init__(self, teach):
        self.encode = teach


class OwnEmbedder:
    def __init__(self, teach):
        self.embed = teach


def test_teachers_of_every_kind(texts, teacher):
    expected = uf.LexicalEmbedder.distill(texts, teacher(texts), dim=8).to_bytes()
    for kind in (teacher, Encoder(teacher), OwnEmbedder(teacher), lambda t: teacher(t).tolist()):
        assert uf.LexicalEmbedder.distill(texts, kind, dim=8).to_bytes() == expected


def test_openai_client_as_teacher(texts, teacher):
    class Client:
        """Answers out of order, as an endpoint may."""

        requests = 0

        class embeddings:  # noqa: N801
            @staticmethod
            def create(model, input):
                assert model == "m"
                Client.requests += 1
                vectors = teacher(input)
                items = [SimpleNamespace(index=i, embedding=list(v)) for i, v in enumerate(vectors)]
                return SimpleNamespace(data=items[::-1])

    embedder = uf.OpenAIEmbedder(Client, "m", batch_size=250)
    assert embedder.embed([]).shape == (0, 0)
    expected = uf.LexicalEmbedder.distill(texts, teacher, dim=8).to_bytes()
    assert uf.LexicalEmbedder.distill(texts, embedder, dim=8).to_bytes() == expected
    assert Client.requests == 3


def test_sentence_transformers_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        uf.errors.MissingExtraError, match=r"uniroute_fast\[sentence-transformers\]"
    ):
        uf.SentenceTransformerEmbedder("model")


def test_sentence_transformers_embedder(monkeypatch):
    class Model:
        def __init__(self, name, **options):
            assert (name, options) == ("model", {"device": "cpu"})

        def get_sentence_embedding_dimension(self):
            return 3

        def encode(self, texts, **options):
            assert options["normalize_embeddings"]
            return np.ones((len(texts), 3))

    module = SimpleNamespace(SentenceTransformer=Model)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    embedder = uf.SentenceTransformerEmbedder("model", device="cpu")
    assert embedder.embed(["a", "b"]).dtype == np.float32
    assert embedder.embed(np.array(["a", "b"])).shape == (2, 3)
    assert embedder.embed([]).shape == (0, 3)


def test_a_teacher_is_asked_for_the_sample_alone(texts, teacher):
    asked = []

    def teach(some):
        asked.append(len(some))
        return teacher(some)

    uf.LexicalEmbedder.distill(texts, teach, dim=4, max_sample=100)
    assert sum(asked) == 100


def test_ridge_equals_the_closed_form(texts):
    from scipy.sparse import csr_array

    from uniroute_fast.embedding.lexical import _ridge_regression

    rng = np.random.default_rng(0)
    x = csr_array((rng.random((80, 40)) < 0.2) * rng.random((80, 40)).astype(np.float32))
    y = rng.normal(size=(80, 5)).astype(np.float32)
    dense = x.toarray().astype(np.float64)
    expected = np.linalg.solve(dense.T @ dense + 0.5 * np.eye(40), dense.T @ y)
    np.testing.assert_allclose(_ridge_regression(x, y, 0.5, tolerance=1e-6), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 4)), r"teacher: .*shape \(3, 4\)"),
        (np.zeros(600), r"teacher: .*shape \(600,\)"),
        (np.full((600, 4), np.nan), "teacher: .*finite"),
        (lambda some: np.zeros((1, 4)), "teacher: "),
        ("model", "teacher: "),
        (None, "teacher: "),
    ],
)
def test_what_is_no_teacher(texts, bad, message):
    with pytest.raises(uf.errors.UniRouteError, match=message):
        uf.LexicalEmbedder.distill(texts, bad, dim=4)


@pytest.mark.parametrize("ridge", [0, -1, np.nan, np.inf])
def test_ridge_out_of_range(texts, ridge):
    with pytest.raises(uf.errors.InvalidArgumentError, match="ridge: "):
        uf.LexicalEmbedder.distill(texts, np.zeros((len(texts), 4)), dim=4, ridge=ridge)


# --- chat ---


def test_chat_text_is_the_users_own():
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "First question"},
        {"role": "assistant", "content": "An answer"},
        {"role": "user", "content": [
            {"type": "text", "text": "Second"},
            {"type": "image_url", "image_url": {"url": "data:..."}},
            {"type": "text", "text": "question"},
        ]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "42"},
    ]  # fmt: skip
    assert chat_text(messages) == "First question\nSecond\nquestion"
    assert chat_text(messages, roles=("system",)) == "You are a helpful assistant."
    assert chat_text(messages, last_only=True) == "Second\nquestion"
    assert chat_text([]) == ""


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("hello", "messages: a str"),
        ([{"content": "x"}], r"messages\[0\]: no role"),
        ([{"role": "user", "content": 3}], r"messages\[0\]: content is a int"),
        (["x"], r"messages\[0\]: a str"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\]: a text part without"),
    ],
)
def test_what_are_no_messages(bad, message):
    with pytest.raises(uf.errors.UniRouteError, match=message):
        chat_text(bad)
