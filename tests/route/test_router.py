"""Decisions against a NumPy float64 oracle, and what a user may do wrong."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf
from uniroute_fast import errors

DIM = 6
TOPICS = {
    "sums": ["what is {} plus {}", "add {} to {}", "{} times {} equals", "divide {} by {}"],
    "places": ["which river passes {} and {}", "the capital near {} or {}", "a map of {} to {}"],
    "verse": ["a poem about {} and {}", "rhyme {} with {}", "a sonnet for {} on {}"],
}
WORDS = ["seven", "rain", "paris", "twelve", "autumn", "nine", "lisbon", "snow", "cairo", "forty"]


def prompts(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    templates = [t for group in TOPICS.values() for t in group]
    return [templates[rng.integers(len(templates))].format(*rng.choice(WORDS, 2)) for _ in range(n)]


def oracle(gamma: np.ndarray, costs: np.ndarray, cost_weight: np.ndarray) -> np.ndarray:
    """Least loss + cost weight x cost in float64; ties to lower cost, then to lower index."""
    objective = gamma.astype(np.float64) + np.asarray(cost_weight)[..., None] * costs
    order = np.lexsort((np.arange(len(costs)), costs))
    return order[np.argmin(objective[:, order], axis=1)]


def hard(k: int) -> list[tuple]:
    return [("nearest", np.random.default_rng(k).normal(size=(k, DIM)).astype(np.float32))]


def soft(k: int, floor: float) -> list[tuple]:
    rng = np.random.default_rng(k)
    weights = rng.normal(size=(k, DIM)).astype(np.float32)
    return [("softmax", weights, rng.normal(size=k).astype(np.float32), floor)]


def familiar(k: int, distance: float) -> list[tuple]:
    landmarks = np.random.default_rng(99).normal(size=(8, DIM)).astype(np.float32)
    return soft(k, 1 / 64) + soft(k + 1, 1 / 64) + [("familiarity", landmarks, distance)]


MAPS = {
    "hard": hard(7),
    "soft": soft(5, 0.0),
    "soft, cut": soft(9, 0.1),
    "both": hard(4) + soft(6, 0.3),
    "foreign": familiar(5, 6.0),
}


def clusters_of(heads: list[tuple]) -> int:
    return sum(len(head[1]) for head in heads if head[0] != "familiarity")


def router_of(heads: list[tuple], losses: np.ndarray, costs: np.ndarray) -> uf.Router:
    router = uf.Router(None, heads)
    router.insert([f"m{i}" for i in range(len(costs))], costs, losses)
    return router


@pytest.fixture(scope="module")
def fitted() -> uf.Router:
    texts = prompts(300)
    router = uf.Router.fit(texts, n_clusters=3, seed=1)
    losses = np.random.default_rng(2).random((300, 4))
    router.add_models(["a", "b", "c", "d"], [1.0, 2.0, 3.0, 4.0], texts, losses)
    return router


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_decisions_equal_a_float64_oracle(name: str, data: st.DataObject) -> None:
    models = data.draw(st.integers(1, 30))
    seed = data.draw(st.integers(0, 2**32 - 1))
    # Round values make ties and collinear points the rule.
    round_values = data.draw(st.booleans())
    rng = np.random.default_rng(seed)
    heads = MAPS[name]
    clusters = clusters_of(heads)
    if round_values:
        losses = rng.integers(0, 5, (clusters, models)).astype(np.float32) / 4
        costs = rng.integers(0, 4, models).astype(np.float64)
    else:
        losses = rng.random((clusters, models), dtype=np.float32)
        costs = rng.random(models) * 10.0 ** rng.integers(-6, 6)
    router = router_of(heads, losses, costs)
    x = rng.normal(size=(20, DIM)).astype(np.float32)
    gamma = router.predict_loss(embeddings=x)
    weights = st.one_of(
        st.floats(0, 1e300),
        st.floats(0, 10),
        st.sampled_from([0.0, 5e-324, 0.25, 0.5, 1.0, 1e17, 1.7e308]),
    )
    weight = data.draw(weights)
    with np.errstate(over="ignore"):
        expected = oracle(gamma, costs, np.full(20, weight))
        got = router.route_batch(embeddings=x, cost_weight=weight)
        np.testing.assert_array_equal(got.index, expected)
        np.testing.assert_array_equal(got.predicted_loss, gamma[np.arange(20), expected])
        np.testing.assert_array_equal(got.cost, costs[expected])
        each = np.array(data.draw(st.lists(weights, min_size=20, max_size=20)))
        got = router.route_batch(embeddings=x, cost_weight=each)
        np.testing.assert_array_equal(got.index, oracle(gamma, costs, each))


@pytest.mark.parametrize("name", MAPS)
def test_decisions_at_every_exact_switch_equal_the_oracle(name: str) -> None:
    rng = np.random.default_rng(3)
    heads = MAPS[name]
    losses = rng.random((clusters_of(heads), 40), dtype=np.float32)
    costs = rng.random(40)
    router = router_of(heads, losses, costs)
    x = rng.normal(size=(30, DIM)).astype(np.float32)
    gamma = router.predict_loss(embeddings=x)
    *_, switches = uf._native.hull_steps(gamma.astype(np.float64), costs)
    for switch in [0.0, *switches]:
        for weight in (switch, np.nextafter(switch, 0), np.nextafter(switch, 9e9)):
            got = router.route_batch(embeddings=x, cost_weight=float(weight)).index
            np.testing.assert_array_equal(got, oracle(gamma, costs, np.full(30, weight)))


@pytest.mark.parametrize("name", MAPS)
def test_phi_and_predicted_losses_are_those_of_the_definition(name: str) -> None:
    rng = np.random.default_rng(4)
    heads = MAPS[name]
    losses = rng.random((clusters_of(heads), 9), dtype=np.float32)
    router = router_of(heads, losses, rng.random(9))
    x = rng.normal(size=(50, DIM)).astype(np.float32)
    expected: list[np.ndarray] = []
    for head in heads:
        if head[0] == "familiarity":
            offsets = x.astype(np.float64)[:, None] - head[1]
            ratio = (offsets**2).sum(axis=2).min(axis=1) / head[2]
            share = ratio**8 / (1 + ratio**8)
            share = np.where(share < 1 / 64, 0, share)[:, None]
            assert 10 < np.count_nonzero(share) < 40
            for part in expected:
                part *= 1 - share
                part[:, -1:] += share
            continue
        if head[0] == "nearest":
            labels = uf.nearest_centroid(x, head[1], return_distance=False)
            expected.append(np.eye(len(head[1]))[labels])
            continue
        logits = x.astype(np.float64) @ head[1].astype(np.float64).T + head[2]
        phi = np.exp(logits - logits.max(axis=1, keepdims=True))
        phi[phi < head[3]] = 0
        expected.append(phi / phi.sum(axis=1, keepdims=True))
    phi = np.concatenate(expected, axis=1)
    np.testing.assert_allclose(router.phi(embeddings=x), phi, atol=2e-6)
    np.testing.assert_allclose(router.predict_loss(embeddings=x), phi @ losses, atol=1e-5)


@pytest.mark.parametrize("name", MAPS)
def test_single_prompts_batches_and_threads_agree_bit_for_bit(name: str) -> None:
    rng = np.random.default_rng(5)
    heads = MAPS[name]
    losses = rng.random((clusters_of(heads), 300), dtype=np.float32)
    router = router_of(heads, losses, rng.random(300))
    x = rng.normal(size=(1500, DIM)).astype(np.float32)
    threads = uf.get_num_threads()
    try:
        uf.set_num_threads(1)
        one = router.route_batch(embeddings=x, cost_weight=0.3)
        uf.set_num_threads(4)
        four = router.route_batch(embeddings=x, cost_weight=0.3)
    finally:
        uf.set_num_threads(threads)
    np.testing.assert_array_equal(one.index, four.index)
    np.testing.assert_array_equal(one.predicted_loss, four.predicted_loss)
    for i in range(0, 1500, 97):
        single = router.route(embeddings=x[i], cost_weight=0.3)
        assert (single.index, single.predicted_loss) == (one.index[i], one.predicted_loss[i])
        assert single.cluster == one.cluster[i]


def test_a_decision_tells_what_was_chosen_and_what_else_there_was(fitted: uf.Router) -> None:
    text = "what is seven plus nine"
    decision = fitted.route(text, 0.05)
    gamma = fitted.predict_loss([text])[0]
    assert decision.model == fitted.models[decision.index]
    assert decision.predicted_loss == gamma[decision.index]
    assert decision.cost == fitted.costs[decision.index]
    assert decision.cost_weight == 0.05
    assert 0 < decision.coverage <= 1
    others = decision.alternatives
    assert sorted([decision.index, *(a.index for a in others)]) == [0, 1, 2, 3]
    objectives = [decision.predicted_loss + 0.05 * decision.cost, *(a.objective for a in others)]
    assert objectives == sorted(objectives)
    assert decision.model in repr(decision)
    assert others[0].model in repr(others[0])


def test_rows_that_cannot_be_routed_carry_a_status(fitted: uf.Router) -> None:
    texts = ["add seven to nine", "", " \n", "日本語", "\ud800", None, "a poem about rain"]
    decisions = fitted.route_batch(texts)
    assert decisions.status == ["ok", "empty", "blank", "unknown", "invalid", "null", "ok"]
    assert decisions.ok.tolist() == [True, *[False] * 5, True]
    assert decisions.models[1:6] == [None] * 5
    assert (decisions.index[1:6] == 2**32 - 1).all()
    assert np.isnan(decisions.predicted_loss[1:6]).all()
    assert np.isnan(decisions.cost[1:6]).all()
    assert np.isnan(fitted.predict_loss(texts)[1:6]).all()
    assert len(decisions) == 7
    for text in texts[1:5]:
        with pytest.raises(errors.UnroutableError, match="text: "):
            fitted.route(text)


def test_no_prompts_are_no_decisions(fitted: uf.Router) -> None:
    assert len(fitted.route_batch([])) == 0
    assert fitted.predict_loss([]).shape == (0, 4)
    assert fitted.route_batch(embeddings=np.zeros((0, fitted.dim), np.float32)).models == []


def test_a_saved_router_routes_the_same_in_a_fresh_process_with_numpy_alone(
    fitted: uf.Router, tmp_path: Path
) -> None:
    path = tmp_path / "pool.uniroute"
    fitted.save(path)
    texts = prompts(300)
    expected = fitted.route_batch(texts, 0.02)
    script = f"""
import sys
import uniroute_fast as uf
router = uf.Router.load({str(path)!r})
decisions = router.route_batch({texts!r}, 0.02)
single = [router.route(t, 0.02).model for t in {texts[:20]!r}]
assert single == decisions.models[:20]
print(",".join(decisions.models))
print(decisions.predicted_loss.tobytes().hex())
own = {{name.partition(".")[0] for name in sys.modules}}
print(",".join(sorted(own - set(sys.stdlib_module_names))))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    models, losses, modules = run.stdout.splitlines()
    assert models.split(",") == expected.models
    assert losses == expected.predicted_loss.tobytes().hex()
    foreign = {m for m in modules.split(",") if not m.startswith(("_", "sitecustomize", "usercus"))}
    assert foreign <= {"numpy", "uniroute_fast"}, foreign


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "amx"])
def test_every_instruction_set_routes_the_same(fitted: uf.Router, tmp_path: Path, isa: str) -> None:
    if isa not in uf._native.available_isas():
        pytest.skip(f"this CPU has no {isa}")
    path = tmp_path / "pool.uniroute"
    fitted.save(path)
    texts = prompts(200)
    script = f"""
import uniroute_fast as uf
assert uf._native.isa() == {isa!r}
print(uf.Router.load({str(path)!r}).predict_loss({texts!r}).tobytes().hex())
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "UNIROUTE_ISA": isa},
    )
    assert run.stdout.strip() == fitted.predict_loss(texts).tobytes().hex()


def test_models_come_go_and_change_price(fitted: uf.Router) -> None:
    router = pickle.loads(pickle.dumps(fitted))
    texts = prompts(300)
    router.add_model("e", cost=0.5, texts=texts, losses=np.zeros(300))
    assert router.models == ["a", "b", "c", "d", "e"]
    assert set(router.route_batch(texts).models) == {"e"}
    router.set_cost("e", 50.0)
    assert router.costs[4] == 50.0
    assert "e" not in router.route_batch(texts, 1.0).models
    before = router.version
    router.remove_model("b")
    assert router.models == ["a", "c", "d", "e"]
    assert router.version == before + 1
    # What is left is what a pool without it would be.
    kept = [0, 2, 3]
    np.testing.assert_array_equal(router.profiles[:, :3], fitted.profiles[:, kept])


def test_a_foreign_embedder_is_used_saved_without_and_given_again(
    tmp_path: Path,
) -> None:
    class Lengths:
        def embed(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(t), 1.0] for t in texts], dtype=np.float64)

    texts = ["a" * n for n in range(1, 60)]
    router = uf.Router.fit(texts, embedder=Lengths(), n_clusters=2)
    short = np.array([[float(len(t) > 30)] for t in texts])
    router.add_models(["short", "long"], [1, 1], texts, np.hstack([short, 1 - short]))
    assert router.route("aa").model == "short"
    assert router.route_batch(["aa", "a" * 55]).models == ["short", "long"]
    path = tmp_path / "pool.uniroute"
    router.save(path)
    again = uf.Router.load(path, embedder=Lengths())
    assert again.route("a" * 55).model == "long"
    with pytest.raises(errors.InvalidArgumentError, match="no embedder"):
        uf.Router.load(path).route("aa")


def bad_calls(router: uf.Router) -> dict[str, tuple[type[Exception], str, object]]:
    texts, x = prompts(10), np.zeros((10, router.dim), np.float32)
    losses = np.full((10, 1), 0.5)
    nan = x.copy()
    nan[3, 2] = np.nan
    infinite = x.copy()
    infinite[9, 0] = -np.inf

    def add(**changes: object) -> object:
        arguments = {"names": ["new"], "costs": [1.0], "texts": texts, "losses": losses, **changes}
        return lambda: router.add_models(**arguments)  # type: ignore[arg-type]

    invalid, type_error = errors.InvalidArgumentError, errors.ArgumentTypeError
    return {
        "route int": (type_error, "text", lambda: router.route(3)),
        "route list": (type_error, "route_batch", lambda: router.route(texts)),
        "route nothing": (invalid, "neither", lambda: router.route()),
        "route both": (invalid, "both", lambda: router.route(texts[0], embeddings=x[0])),
        "route two rows": (invalid, "one embedding", lambda: router.route(embeddings=x)),
        "batch str": (type_error, "single str", lambda: router.route_batch("abc")),
        "batch items": (type_error, "texts", lambda: router.route_batch(["a", 3])),
        "nan": (invalid, "row 3, column 2", lambda: router.route_batch(embeddings=nan)),
        "inf": (invalid, "row 9, column 0", lambda: router.predict_loss(embeddings=infinite)),
        "width": (invalid, "shape", lambda: router.route_batch(embeddings=x[:, 1:])),
        "dimensions": (invalid, "shape", lambda: router.route_batch(embeddings=x[None])),
        "complex": (type_error, "dtype", lambda: router.route_batch(embeddings=x * 1j)),
        "strings": (type_error, "dtype", lambda: router.route_batch(embeddings=[["a"]])),
        "weight < 0": (invalid, "cost_weight", lambda: router.route(texts[0], -0.1)),
        "weight nan": (invalid, "cost_weight", lambda: router.route(texts[0], float("nan"))),
        "weight inf": (invalid, "cost_weight", lambda: router.route_batch(texts, float("inf"))),
        "weights": (invalid, "3 values for 10", lambda: router.route_batch(texts, [0.0] * 3)),
        "weight str": (type_error, "cost_weight", lambda: router.route_batch(texts, "cheap")),
        "known name": (errors.DuplicateModelError, "already", add(names=["a"])),
        "same name": (
            errors.DuplicateModelError,
            "twice",
            add(names=["n", "n"], costs=[1, 1], losses=np.full((10, 2), 0.5)),
        ),
        "no name": (invalid, "names", add(names=[], costs=[], losses=np.zeros((10, 0)))),
        "one str": (type_error, "names", add(names="new")),
        "name type": (type_error, "names", add(names=[7])),
        "empty name": (invalid, "empty name", add(names=[""])),
        "cost < 0": (invalid, "costs: -1", add(costs=[-1.0])),
        "cost nan": (invalid, "costs: NaN", add(costs=[np.nan])),
        "cost inf": (invalid, "costs: inf", add(costs=[np.inf])),
        "costs": (invalid, "2 costs for 1", add(costs=[1.0, 2.0])),
        "loss > 1": (invalid, "row 4, column 0", add(losses=losses + np.eye(10)[:, [4]])),
        "loss < 0": (invalid, "losses: -0.5", add(losses=-losses)),
        "loss rows": (invalid, "9 rows", add(losses=losses[:9])),
        "loss columns": (invalid, "columns", add(losses=np.full((10, 2), 0.5))),
        "loss shape": (invalid, "two dimensions", add(losses=losses[:, 0])),
        "loss dtype": (type_error, "losses", add(losses=[["a"]] * 10)),
        "never run": (invalid, "no outcome", add(losses=losses * np.nan)),
        "no prompts": (invalid, "no prompts", add(texts=[], losses=np.zeros((0, 1)))),
        "only blank": (invalid, "can be embedded", add(texts=[""] * 10)),
        "unknown": (errors.UnknownModelError, "'x'|\"x\"", lambda: router.remove_model("x")),
        "unknown cost": (errors.UnknownModelError, "x", lambda: router.set_cost("x", 1.0)),
        "set cost < 0": (invalid, "cost: -1", lambda: router.set_cost("a", -1.0)),
        "profile": (invalid, "profile", lambda: router.set_profile("a", [0.5])),
        "fit none": (invalid, "no prompts", lambda: uf.Router.fit([])),
        "fit blank": (invalid, "texts", lambda: uf.Router.fit(["", " "])),
        "fit K 0": (invalid, "n_clusters", lambda: uf.Router.fit(texts, n_clusters=0)),
        "fit K > N": (invalid, "n_clusters", lambda: uf.Router.fit(texts, n_clusters=11)),
        "fit seen type": (type_error, "seen", lambda: uf.Router.fit(texts, seen=losses)),
        "fit seen rows": (
            invalid,
            "seen.losses",
            lambda: uf.Router.fit(texts, seen=uf.Outcomes(losses[:9])),
        ),
        "seen range": (invalid, "seen.losses: 1.5", lambda: uf.Outcomes(losses * 3)),
        "fit seen blank": (
            invalid,
            "seen.losses: column 1 has no outcome on a prompt that can be embedded",
            lambda: uf.Router.fit(
                ["a b", "b c", ""], seen=uf.Outcomes([[0.0, np.nan], [1.0, np.nan], [1.0, 1.0]])
            ),
        ),
        "seen names": (
            invalid,
            "seen.names: 'a' is there twice",
            lambda: uf.Outcomes(np.zeros((2, 2)), names=["a", "a"]),
        ),
        "one cost": (
            invalid,
            "^cost: -1",
            lambda: router.add_model("new", cost=-1, texts=texts, losses=losses),
        ),
        "one cost's type": (
            type_error,
            "^cost: a str",
            lambda: router.add_model("new", cost="1", texts=texts, losses=losses),
        ),
        "losses of two": (
            invalid,
            r"losses: shape \(10, 2\); expected \(n_val,\)",
            lambda: router.add_model("new", cost=1, texts=texts, losses=np.zeros((10, 2))),
        ),
        "one loss": (
            invalid,
            r"losses: shape \(\)",
            lambda: router.add_model("new", cost=1, texts=texts, losses=0.5),
        ),
        "losses that are none": (
            type_error,
            "losses: dtype",
            lambda: router.add_model("new", cost=1, texts=texts, losses={"a": 1}),
        ),
        "weights of 0": (invalid, "weights: all 0", add(weights=np.zeros(10))),
        "seen never": (invalid, "column 0", lambda: uf.Outcomes(losses * np.nan)),
        "heads": (invalid, "heads", lambda: uf.Router(None, [])),
        "head kind": (invalid, "heads", lambda: uf.Router(None, [("farthest", x)])),
        "landmarks first": (
            invalid,
            "heads",
            lambda: uf.Router(None, [("familiarity", x, 1.0), *soft(3, 0.0)]),
        ),
        "landmarks' distance": (
            invalid,
            "distance",
            lambda: uf.Router(None, [*soft(3, 0.0), ("familiarity", np.ones((2, DIM)), 0.0)]),
        ),
        "landmarks' distance's type": (
            uf.errors.ArgumentTypeError,
            "distance",
            lambda: uf.Router(None, [*soft(3, 0.0), ("familiarity", np.ones((2, DIM)), True)]),
        ),
        "landmarks' values": (
            invalid,
            "landmarks",
            lambda: uf.Router(
                None, [*soft(3, 0.0), ("familiarity", np.full((2, DIM), np.nan), 1.0)]
            ),
        ),
        "landmarks' dimension": (
            invalid,
            "landmarks",
            lambda: uf.Router(None, [*soft(3, 0.0), ("familiarity", np.ones((2, 2)), 1.0)]),
        ),
        "landmarks beside a hard map": (
            invalid,
            "landmarks",
            lambda: uf.Router(None, [*hard(3), ("familiarity", np.ones((2, DIM)), 1.0)]),
        ),
        "head nan": (invalid, "row 3", lambda: uf.Router(None, [("nearest", nan)])),
        "floor": (invalid, "floor", lambda: uf.Router(None, [("softmax", x, np.zeros(10), 2)])),
        "dim": (invalid, "cluster_map", lambda: uf.Router(router.embedder, hard(3))),
        "unfitted": (
            invalid,
            "without fitting",
            lambda: uf.Router(None, hard(3)).add_model(
                "m", cost=1, embeddings=np.zeros((1, DIM)), losses=[0.0]
            ),
        ),
        "empty pool": (
            errors.EmptyPoolError,
            "add_model",
            lambda: uf.Router(None, hard(3)).route(embeddings=np.zeros(DIM)),
        ),
        "empty pool, loss": (
            errors.EmptyPoolError,
            "empty",
            lambda: uf.Router(None, hard(3)).predict_loss(embeddings=np.zeros((1, DIM))),
        ),
    }


BAD_CALLS = list(bad_calls(uf.Router(None, hard(3))))


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_a_clear_error_and_changes_nothing(fitted: uf.Router, name: str) -> None:
    expected, message, call = bad_calls(fitted)[name]
    before = (fitted.version, fitted.models, fitted.costs.tolist(), fitted.profiles.tolist())
    with pytest.raises(expected, match=message) as raised:
        call()  # type: ignore[operator]
    assert isinstance(raised.value, errors.UniRouteError)
    after = (fitted.version, fitted.models, fitted.costs.tolist(), fitted.profiles.tolist())
    assert after == before


def test_files_that_are_none_of_ours_are_refused(fitted: uf.Router, tmp_path: Path) -> None:
    path = tmp_path / "pool.uniroute"
    fitted.save(path)
    whole = path.read_bytes()
    cases = {
        "empty": b"",
        "text": b"not an artifact at all, but long enough to look like one",
        "half": whole[: len(whole) // 2],
        "one short": whole[:-1],
        "one more": whole + b"\0",
        "flipped": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    }
    for name, content in cases.items():
        damaged = tmp_path / name
        damaged.write_bytes(content)
        with pytest.raises(errors.ArtifactError, match=str(damaged)):
            uf.Router.load(damaged)
    with pytest.raises(errors.ArtifactIOError):
        uf.Router.load(tmp_path / "nowhere")
    with pytest.raises(OSError, match="nowhere"):
        fitted.save(tmp_path / "nowhere" / "pool.uniroute")
    assert path.read_bytes() == whole


def test_layouts_and_dtypes_are_converted_not_misread() -> None:
    rng = np.random.default_rng(6)
    router = router_of(hard(7), rng.random((7, 5), dtype=np.float32), rng.random(5))
    x = rng.normal(size=(40, DIM)).astype(np.float32)
    expected = router.route_batch(embeddings=x).index
    wide = np.zeros((40, 2 * DIM), np.float32)
    wide[:, ::2] = x
    for same in (np.asfortranarray(x), wide[:, ::2], x.astype(np.float64), x.tolist()):
        np.testing.assert_array_equal(router.route_batch(embeddings=same).index, expected)
    reverse = router.route_batch(embeddings=x[::-1]).index
    np.testing.assert_array_equal(reverse, expected[::-1])
    half = router.route_batch(embeddings=x.astype(np.float16)).index
    exact = router.route_batch(embeddings=x.astype(np.float16).astype(np.float32)).index
    np.testing.assert_array_equal(half, exact)


def test_threads_route_while_the_pool_changes(fitted: uf.Router) -> None:
    router = pickle.loads(pickle.dumps(fitted))
    texts = prompts(50)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                decisions = router.route_batch(texts, 0.1)
                assert None not in decisions.models
                assert router.route(texts[0]).model is not None
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(100):
        router.insert([f"new{i}"], [1.0], np.full((router.n_clusters, 1), 0.01, np.float32))
        router.set_cost(f"new{i}", 2.0)
        router.remove_model(f"new{i}")
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures, failures
    assert router.models == fitted.models


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_an_event_loop_goes_on_while_a_batch_is_routed(fitted: uf.Router) -> None:
    texts = [("what is 3 plus 4, " * 60_000)] * 16  # Some hundred milliseconds of work.

    async def ticks_meanwhile() -> int:
        batch = asyncio.create_task(asyncio.to_thread(fitted.route_batch, texts))
        ticks = 0
        while not batch.done():
            await asyncio.sleep(0)
            ticks += 1
        assert len(await batch) == len(texts)
        return ticks

    # A call that kept the interpreter to itself would leave a handful.
    assert asyncio.run(ticks_meanwhile()) > 200


def test_a_forked_child_routes_batches(fitted: uf.Router) -> None:
    texts = prompts(2000)
    expected = fitted.route_batch(texts).index
    child = os.fork()
    if child == 0:
        same = np.array_equal(fitted.route_batch(texts).index, expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def misaligned(values: np.ndarray) -> np.ndarray:
    """The same values at odd addresses."""
    raw = np.frombuffer(b"0" + values.tobytes(), np.uint8)[1:]
    return raw.view(values.dtype).reshape(values.shape)


def test_arrays_at_odd_addresses_are_copied(fitted: uf.Router) -> None:
    x = fitted.embedder.embed(prompts(20))
    weights = np.linspace(0, 1, 20)
    got = fitted.route_batch(embeddings=misaligned(x), cost_weight=misaligned(weights))
    want = fitted.route_batch(embeddings=x, cost_weight=weights)
    np.testing.assert_array_equal(got.index, want.index)


UNUSABLE = {
    "huge": ("embeddings: a value of", lambda t: uf.Router.fit(embeddings=np.full((9, 2), 1e20))),
    "ragged": ("embeddings: not an array", lambda t: uf.Router.fit(embeddings=[[1, 2], [3]])),
    "set": ("texts: a set", lambda t: uf.Router.fit(set(t))),
    "number": ("texts: a int", lambda t: uf.Router.fit(5)),
    "seed < 0": ("seed: -1", lambda t: uf.Router.fit(t, seed=-1)),
    "seed type": ("seed: a str", lambda t: uf.Router.fit(t, seed="2")),
    "K type": ("n_clusters: a float", lambda t: uf.Router.fit(t, n_clusters=2.5)),
    "K bool": ("n_clusters: a bool", lambda t: uf.Router.fit(t, n_clusters=True)),
    "embedder": ("embedder: a str", lambda t: uf.Router.fit(t, embedder="lexical")),
    "masked": ("losses: a masked", lambda t: uf.Outcomes(np.ma.masked_all((3, 2)))),
    "path": ("path: a NoneType", lambda t: uf.Router.load(None)),
    "loaded embedder": ("embedder: a str", lambda t: uf.Router.load("r", embedder="lexical")),
    "pipe": ("a pipe or device", lambda t: uf.Router.load("/dev/zero")),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_fitted_or_loaded_is_named(name: str) -> None:
    message, call = UNUSABLE[name]
    with pytest.raises(errors.UniRouteError, match=message):
        call(prompts(20))


@pytest.mark.parametrize("weight", ["0.1", b"1", None, [0.1], object(), 10**400])
def test_a_cost_weight_that_is_no_number_is_named(fitted: uf.Router, weight: object) -> None:
    with pytest.raises(errors.ArgumentTypeError, match="cost_weight: a "):
        fitted.route("add seven to nine", weight)


def test_names_keep_their_order_or_are_refused(fitted: uf.Router) -> None:
    texts = prompts(10)
    for names in ({"x", "y"}, {"x": 1, "y": 2}):
        with pytest.raises(errors.ArgumentTypeError, match="names: a "):
            fitted.add_models(names, [1, 1], texts, np.zeros((10, 2)))
    for name in ("gpt\u200b", "\u202egpt", "gpt\u2028", "g\tpt"):
        with pytest.raises(errors.InvalidArgumentError, match="control or invisible character"):
            fitted.add_model(name, cost=1, texts=texts, losses=np.zeros(10))
    with pytest.raises(errors.InvalidArgumentError, match="lone surrogate"):
        fitted.add_model("\ud800", cost=1, texts=texts, losses=np.zeros(10))
