"""Constraints of a request against a brute-force oracle, and the reasons they give."""

from __future__ import annotations

import fnmatch
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf
from uniroute_fast import errors

DIM, CLUSTERS, MODELS = 4, 6, 300
TAGS = ["region:eu", "region:us", "licence:mit", "licence:closed", "tools", "modality:image"]
LENGTHS = [None, 100, 1000, 8000, 128_000]


def build(heads: str) -> uf.Router:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(CLUSTERS, DIM)).astype(np.float32)
    head = (
        ("nearest", weights) if heads == "hard" else ("softmax", weights, np.zeros(CLUSTERS), 0.1)
    )
    router = uf.Router(None, [head])
    names = [f"{('openai', 'meta', 'acme')[i % 3]}/m{i}" for i in range(MODELS)]
    router.insert(names, rng.integers(0, 9, MODELS) / 4, rng.random((CLUSTERS, MODELS)))
    for name in names:
        router.set_metadata(
            name,
            tags=[t for t in TAGS if rng.random() < 0.4],
            context_length=LENGTHS[rng.integers(len(LENGTHS))],
            latency=None if rng.random() < 0.2 else float(rng.random()),
        )
    for name in names[::17]:
        router.disable_model(name)
    return router


ROUTERS = {heads: build(heads) for heads in ("hard", "soft")}


def violations(router: uf.Router, name: str, terms: dict[str, Any], tokens: int) -> set[str]:
    """Which arguments exclude a model, by the definition."""
    info = router.info(name)
    found = set() if info.enabled else {"disabled"}
    allow = terms.get("allow")
    if allow is not None and not any(fnmatch.fnmatchcase(name, p) for p in allow):
        found.add("allow")
    if any(fnmatch.fnmatchcase(name, p) for p in terms.get("deny", [])):
        found.add("deny")
    for group in terms.get("require_tags", []):
        options = [group] if isinstance(group, str) else group
        if not any(fnmatch.fnmatchcase(t, p) for t in info.tags for p in options):
            found.add("require_tags")
    if any(fnmatch.fnmatchcase(t, p) for t in info.tags for p in terms.get("forbid_tags", [])):
        found.add("forbid_tags")
    if info.cost > terms.get("max_cost", np.inf):
        found.add("max_cost")
    if "max_latency" in terms and not (info.latency or np.inf) <= terms["max_latency"]:
        found.add("max_latency")
    needed = tokens + terms.get("answer_tokens", 0)
    if terms.get("fit_context") and (info.context_length is None or info.context_length < needed):
        found.add("fit_context")
    return found


names = st.sampled_from(["openai/*", "*/m1?", "meta/m1", "*", "acme/m[12]*", "nobody", "*/m2[0-4]"])
tags = st.sampled_from([*TAGS, "region:*", "none:such"])
TERMS = st.fixed_dictionaries(
    {},
    optional={
        "allow": st.lists(names, max_size=3),
        "deny": st.lists(names, max_size=2),
        "require_tags": st.lists(
            st.one_of(tags, st.lists(tags, min_size=1, max_size=2)), max_size=2
        ),
        "forbid_tags": st.lists(tags, max_size=2),
        "max_cost": st.sampled_from([0.0, 0.5, 1.25, 9.0]),
        "max_latency": st.sampled_from([0.1, 0.5, 2.0]),
        "fit_context": st.booleans(),
        "answer_tokens": st.sampled_from([0, 50, 7000]),
    },
)


@pytest.mark.parametrize("heads", ROUTERS)
@settings(max_examples=150, deadline=None)
@given(
    terms=TERMS,
    tokens=st.sampled_from([0, 60, 100, 101, 999, 5000, 200_000]),
    weight=st.sampled_from([0.0, 0.1, 3.0]),
)
def test_constrained_decisions_equal_brute_force(
    heads: str, terms: dict[str, Any], tokens: int, weight: float
) -> None:
    router = ROUTERS[heads]
    constraints = uf.Constraints(**terms)
    stopped = [violations(router, name, terms, tokens) for name in router.models]
    allowed = [m for m, why in enumerate(stopped) if not why]
    x = np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)
    gamma = router.predict_loss(embeddings=x).astype(np.float64)
    costs = router.costs
    batch = router.route_batch(
        embeddings=x, cost_weight=weight, constraints=constraints, tokens=tokens
    )
    for i in range(5):
        ranked = sorted(allowed, key=lambda m: (gamma[i, m] + weight * costs[m], costs[m], m))
        if not ranked:
            with pytest.raises(errors.NoCandidateError, match="300 models"):
                router.route(
                    embeddings=x[i], cost_weight=weight, constraints=constraints, tokens=tokens
                )
            assert batch.status[i] == "no_candidate"
            chosen = router.route(
                embeddings=x[i], constraints=constraints, tokens=tokens, fallback="meta/m1"
            )
            assert chosen.fallback
            assert chosen.model == "meta/m1"
            assert chosen.predicted_loss == np.float32(gamma[i, 1])
        else:
            # Several times: the second and third may take another way to the same answer.
            again = [
                router.route(
                    embeddings=x[i],
                    cost_weight=weight,
                    constraints=constraints,
                    tokens=tokens,
                    fallback="meta/m1",
                )
                for _ in range(3)
            ]
            chosen = again[0]
            assert {c.index for c in again} == {chosen.index}
            assert not chosen.fallback
            assert chosen.index == ranked[0] == batch.index[i]
            assert [a.index for a in chosen.alternatives] == ranked[1:]
        told = {e.index: {r.split(":")[0] for r in e.reasons} for e in chosen.excluded}
        assert told == {m: why for m, why in enumerate(stopped) if why}


def text_router() -> uf.Router:
    texts = [f"{w} number {i}" for i in range(30) for w in ("sum", "poem", "river")]
    router = uf.Router.fit(texts, n_clusters=2)
    losses = np.tile([0.1, 0.2, 0.3], (len(texts), 1))
    router.add_models(["small", "mid", "large"], [1, 2, 3], texts, losses)
    for name, length in [("small", 10), ("mid", 100), ("large", 1000)]:
        router.set_metadata(name, context_length=length)
    return router


def test_the_length_of_a_text_is_estimated_from_its_bytes() -> None:
    router = text_router()
    fits = uf.Constraints(fit_context=True)
    lengths = [("sum ", "small", 1), ("sum " * 20, "mid", 20), ("sum " * 200, "large", 200)]
    for text, model, tokens in lengths:
        decision = router.route(text, constraints=fits)
        assert (decision.model, decision.tokens) == (model, tokens)
    texts = ["sum ", "sum " * 20, "sum " * 200, "sum " * 2000, ""]
    batch = router.route_batch(texts, constraints=fits)
    assert batch.models == ["small", "mid", "large", None, None]
    assert batch.status == ["ok", "ok", "ok", "no_candidate", "empty"]
    batch = router.route_batch(texts, constraints=fits, fallback="large")
    assert batch.fallback.tolist() == [False, False, False, True, False]
    assert batch.models[3] == "large"
    given = router.route_batch(texts[:2], constraints=fits, tokens=[500, 50])
    assert given.models == ["large", "mid"]
    roomy = uf.Constraints(fit_context=True, answer_tokens=200)
    decision = router.route("sum", constraints=roomy)
    assert decision.excluded[0].reasons == ["fit_context: takes 10 tokens, needs 201"]


def test_a_foreign_embedder_does_not_hide_the_length() -> None:
    class Ones:
        def embed(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 2))

    router = uf.Router(Ones(), [("nearest", np.zeros((1, 2), np.float32))])
    router.insert(["short", "long"], [1.0, 2.0], np.array([[0.1, 0.2]], np.float32))
    router.set_metadata("short", context_length=5)
    router.set_metadata("long", context_length=5000)
    fits = uf.Constraints(fit_context=True)
    assert router.route("word", constraints=fits).model == "short"
    assert router.route("word" * 30, constraints=fits).model == "long"
    assert router.route_batch(["word", "word" * 30], constraints=fits).models == ["short", "long"]


def test_each_prompt_of_a_batch_may_have_its_own_constraints() -> None:
    router = text_router()
    no_small = uf.Constraints(deny=["small"])
    cheap = uf.Constraints(max_cost=1.0)
    batch = router.route_batch(["sum"] * 4, constraints=[no_small, None, cheap, no_small])
    assert batch.models == ["mid", "small", "small", "mid"]
    assert len(router.route_batch([], constraints=[])) == 0


def test_equal_constraints_are_equal_hash_alike_and_pickle() -> None:
    make = {
        "allow": ["a*"],
        "deny": ["b"],
        "require_tags": ["x", ("y", "z")],
        "forbid_tags": ["w"],
        "max_cost": 1.5,
        "max_latency": 2.0,
        "fit_context": True,
        "answer_tokens": 7,
    }
    one, two = uf.Constraints(**make), uf.Constraints(**make)
    assert one == two
    assert hash(one) == hash(two)
    assert one != uf.Constraints()
    assert pickle.loads(pickle.dumps(one)) == one
    assert eval(repr(one), {"Constraints": uf.Constraints}) == one
    assert repr(uf.Constraints()) == "Constraints()"
    assert uf.Constraints(allow=[]) != uf.Constraints()


def test_many_different_constraints_in_turn_stay_right() -> None:
    router = text_router()
    for round_ in range(3):
        for i in range(200):
            denied = ["small", "mid", "large"][(i + round_) % 3]
            constraints = uf.Constraints(deny=[denied, f"unused{i}"])
            assert router.route("sum", constraints=constraints).model != denied


def test_a_change_of_the_pool_is_seen_by_the_same_constraints() -> None:
    router = text_router()
    tools = uf.Constraints(require_tags=["tools"])
    with pytest.raises(errors.NoCandidateError, match="require_tags 3"):
        router.route("sum", constraints=tools)
    router.set_metadata("large", tags=["tools"])
    assert router.route("sum", constraints=tools).model == "large"
    router.disable_model("large")
    with pytest.raises(errors.NoCandidateError, match="disabled 1, require_tags 2"):
        router.route("sum", constraints=tools)
    # A fallback that is disabled is none.
    with pytest.raises(errors.NoCandidateError):
        router.route("sum", constraints=tools, fallback="large")
    assert router.route("sum", constraints=tools, fallback="mid").model == "mid"


def test_bad_constraints_are_refused() -> None:
    router = text_router()
    invalid, wrong = errors.InvalidArgumentError, errors.ArgumentTypeError
    x = np.zeros((1, router.dim), np.float32)
    fits = uf.Constraints(fit_context=True)
    for error, message, call in [
        (invalid, "deny.*glob", lambda: uf.Constraints(deny=["a["])),
        (invalid, "allow: an empty pattern", lambda: uf.Constraints(allow=[""])),
        (invalid, "max_cost: -1", lambda: uf.Constraints(max_cost=-1)),
        (invalid, "max_latency: NaN", lambda: uf.Constraints(max_latency=float("nan"))),
        (wrong, "allow: a single str", lambda: uf.Constraints(allow="gpt*")),
        (wrong, "require_tags: a single str", lambda: uf.Constraints(require_tags="eu")),
        (wrong, "require_tags: a int among", lambda: uf.Constraints(require_tags=[("a", 3)])),
        (wrong, "deny: a int", lambda: uf.Constraints(deny=3)),
        (wrong, "constraints", lambda: router.route_batch(["sum"], constraints="eu")),
        (wrong, "constraints", lambda: router.route_batch(["sum"], constraints=3)),
        (
            invalid,
            "constraints: 2 values",
            lambda: router.route_batch(["a"], constraints=[None] * 2),
        ),
        (invalid, "tokens: 2 values", lambda: router.route_batch(["a"], tokens=[1, 2])),
        (invalid, "tokens: not given", lambda: router.route_batch(embeddings=x, constraints=fits)),
        (invalid, "tokens: not given", lambda: router.route(embeddings=x, constraints=fits)),
        (errors.UnknownModelError, "fallback", lambda: router.route("sum", fallback="nobody")),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_two_constraints_are_met_together() -> None:
    one = uf.Constraints(deny=["a"], require_tags=["eu"], max_cost=1.0, answer_tokens=10)
    other = uf.Constraints(
        allow=["x"], deny=["b"], require_tags=[("p", "q")], max_cost=2.0, max_latency=3.0,
        fit_context=True, answer_tokens=5,
    )  # fmt: skip
    assert one & other == uf.Constraints(
        allow=["x"], deny=["a", "b"], require_tags=["eu", ("p", "q")], max_cost=1.0,
        max_latency=3.0, fit_context=True, answer_tokens=10,
    )  # fmt: skip
    assert one & uf.Constraints() == one
    with pytest.raises(errors.InvalidArgumentError, match="allow: in both"):
        other & other
    with pytest.raises(TypeError):
        one & {"max_cost": 1.0}  # type: ignore[operator]
