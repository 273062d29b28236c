"""Explanations: every number in them is checked by routing again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uniroute_fast as uf

DIM = 3


def build(
    seed: int, models: int, *, soft: bool, ties: bool, metered: bool = False
) -> tuple[uf.Router, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, DIM)).astype(np.float32)
    head = ("softmax", weights, np.zeros(4), 0.0) if soft else ("nearest", weights)
    router = uf.Router(None, [head])
    losses = rng.integers(0, 5, (4, models)) / 4 if ties else rng.random((4, models))
    costs = rng.integers(0, 4, models) / 2 if ties else rng.lognormal(size=models)
    names = [f"m{i}" for i in range(models)]
    router.insert(names, costs, losses)
    if metered:  # Every other model is charged by the token.
        paid = names[::2]
        tokens = (
            rng.integers(0, 3, (4, len(paid))) * 1e6 if ties else rng.random((4, len(paid))) * 1e6
        )
        router.set_usage(paid, tokens, np.ones(len(paid)), np.zeros(len(paid)))
        for name in paid:
            input_price, output_price = rng.integers(0, 3, 2) / 2
            router.set_metadata(name, input_price=input_price, output_price=output_price)
    return router, rng.normal(size=DIM).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    models=st.integers(1, 10),
    soft=st.booleans(),
    ties=st.booleans(),
    weight=st.sampled_from([0.0, 0.01, 0.3, 2.0]),
    denied=st.lists(st.sampled_from([f"m{i}" for i in range(1, 10)]), max_size=4),
    current=st.sampled_from([None, "m0", "m1", "m2", "m3", "gone"]),
    switch=st.sampled_from([0.0, 0.5, 4.0]),
    metered=st.booleans(),
    most=st.sampled_from([None, 1.0]),
)
def test_flips_are_where_routing_flips(
    seed: int,
    models: int,
    soft: bool,
    ties: bool,
    weight: float,
    denied: list[str],
    current: str | None,
    switch: float,
    metered: bool,
    most: float | None,
) -> None:
    router, x = build(seed, models, soft=soft, ties=ties, metered=metered)
    constraints = uf.Constraints(deny=denied, max_cost=most)
    asked: dict = {"embeddings": x, "constraints": constraints, "tokens": 500_000}
    if current is not None:
        asked |= {"current_model": current, "switch_cost": switch}
    try:
        told = router.explain(cost_weight=weight, **asked)
    except uf.errors.NoCandidateError:
        with pytest.raises(uf.errors.NoCandidateError):
            router.route(cost_weight=weight, **asked)
        return

    def model(at: float) -> str:
        return router.route(cost_weight=at, **asked).model

    chosen = told.decision.model
    assert chosen == model(weight)
    for flip, towards in ((told.flip_up, 0.0), (told.flip_down, np.inf)):
        if flip is not None:
            assert model(flip.cost_weight) == flip.model != chosen
            assert model(float(np.nextafter(flip.cost_weight, towards))) == chosen
    if told.flip_up is None:
        assert model(1e12) == chosen
    if told.flip_down is None:
        assert model(0.0) == chosen
    assert sorted([chosen, *(a.model for a in told.alternatives), *(e.model for e in told.excluded)]
                  ) == sorted(router.models)  # fmt: skip
    if told.margin is not None:
        assert told.margin >= 0
    if told.flip_price is not None:
        assert told.flip_price >= told.decision.cost * (1 - 1e-9) - 1e-12
        for price, expected in ((0.999, chosen), (1.001, told.runner_up.model)):
            if told.margin is not None and told.margin > 1e-6 and told.flip_price > 1e-6:
                other = uf.Router(None, router.heads())
                costs = router.predict_cost(embeddings=x[None], tokens=500_000)[0]
                costs[told.decision.index] = told.flip_price * price
                other.insert(router.models, costs, router.profiles)
                allowed = [chosen, *(a.model for a in told.alternatives)]
                same = asked | {"constraints": uf.Constraints(allow=allowed)}
                again = other.route(cost_weight=weight, **same)
                assert again.model == expected
    assert sum(w for _, w in told.clusters) == pytest.approx(1)
    assert chosen in str(told)
    # Without the chosen one, the runner-up answers.
    if told.runner_up is not None:
        constraints = uf.Constraints(deny=[*denied, chosen], max_cost=most)
        again = router.route(cost_weight=weight, **asked | {"constraints": constraints})
        assert again.model == told.runner_up.model


def test_a_text_is_embedded_once() -> None:
    class Counting:
        calls = 0

        def embed(self, texts: list[str]) -> np.ndarray:
            self.calls += 1
            return np.ones((len(texts), DIM), np.float32)

    router = uf.Router(Counting(), [("nearest", np.eye(2, DIM, dtype=np.float32))])
    router.insert(["a", "b"], [1.0, 2.0], np.array([[0.3, 0.25]] * 2, np.float32))
    router.explain("anything", 0.1)
    assert router.embedder.calls == 1


def test_cached_tokens_are_a_switch_at_the_prices_of_the_model() -> None:
    router = uf.Router(None, [("nearest", np.eye(2, DIM, dtype=np.float32))])
    router.insert(["old", "new"], [2.0, 1.0], np.array([[0.3, 0.25]] * 2, np.float32))
    router.set_metadata("old", input_price=5.0, cached_input_price=1.0)
    x = np.ones(DIM, np.float32)
    left, kept = (
        router.explain(embeddings=x, cost_weight=0.1, current_model="old", cached_tokens=tokens)
        for tokens in (100_000, 1_000_000)
    )
    # Leaving costs 0.1 x 0.4, or 0.1 x 4, of 0.3 + 0.2 against 0.25 + 0.1.
    assert (left.decision.model, kept.decision.model) == ("new", "old")
    assert left.margin == pytest.approx(0.15 - 0.04)
    assert kept.margin == pytest.approx(0.40 - 0.15)
    assert left.flip_price == pytest.approx(2.0 + (0.05 / 0.1) - 0.4)
    assert "kept for the conversation" in str(kept)
    assert "but for the switch" in str(kept)
    assert "conversation" not in str(left)
    for bad in ({"current_model": "old"}, {"current_model": "old", "switch_cost": -1.0}):
        with pytest.raises(uf.errors.InvalidArgumentError, match="switch_cost"):
            router.explain(embeddings=x, **bad)


def test_it_reads_well_for_a_text() -> None:
    texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    router = uf.Router.fit(texts, n_clusters=2)
    router.add_model("small", cost=1.0, texts=texts, losses=np.full(40, 0.5))
    router.add_model("large", cost=9.0, texts=texts, losses=np.full(40, 0.1))
    router.add_model("other", cost=2.0, texts=texts, losses=np.full(40, 0.6))
    router.disable_model("other")
    lines = str(router.explain("5 * 3", 0.01)).splitlines()
    assert lines[0].startswith("large: predicted loss 0.1")
    assert lines[2].startswith("  such as: ")
    assert any(line.startswith("  then small: predicted loss 0.5") for line in lines)
    assert "above cost weight 0.05: small" in lines
    assert "above a cost of 41: small" in lines
    assert lines[-1] == "excluded other: disabled"


def test_it_tells_standard_errors_and_typical_prompts() -> None:
    texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    router = uf.Router.fit(texts, n_clusters=2, typical_prompts=2)
    losses = np.random.default_rng(0).integers(0, 2, (40, 2)).astype(float)
    router.add_models(["a", "b"], [1.0, 2.0], texts, losses)
    router.insert(["ready"], [3.0], np.full((router.n_clusters, 1), 0.5, np.float32))
    told = router.explain("name a lake")
    assert set(told.standard_errors) == {"a", "b"}
    [(cluster, _)] = told.clusters
    assert told.standard_errors["b"] == pytest.approx(router.standard_errors()[cluster, 1])
    assert 0 < len(told.typical_prompts[cluster]) <= 2
    assert set(told.typical_prompts[cluster]) <= set(texts)
    assert "standard error" in str(told)
    # Kept with the router; nothing is kept where that is not wanted.
    again = uf.Router.from_bytes(router.to_bytes())
    assert again.explain("name a lake").typical_prompts == told.typical_prompts
    private = uf.Router.fit(texts, n_clusters=2, typical_prompts=0)
    private.add_models(["a", "b"], [1.0, 2.0], texts, losses)
    assert private.explain("name a lake").typical_prompts == {cluster: []}
    assert "lake" not in private.learner.to_parts(private.models, records=True)[0]


def test_how_far_out_of_distribution_a_prompt_is_can_be_seen() -> None:
    rng = np.random.default_rng(0)
    weights = np.vstack([rng.normal(size=(3, DIM)), np.zeros(DIM)]).astype(np.float32)
    soft = ("softmax", weights, np.zeros(4), 0.0)
    router = uf.Router(None, [soft, soft, ("familiarity", np.zeros((1, DIM), np.float32), 1.0)])
    router.insert(["a", "b"], [1.0, 2.0], rng.random((8, 2)))
    near, far = np.zeros(DIM, np.float32), np.full(DIM, 9.0, np.float32)
    told = router.explain(embeddings=near)
    assert told.backgrounds == {3, 7}
    assert told.out_of_distribution == pytest.approx(0.25)
    told = router.explain(embeddings=far)
    assert told.out_of_distribution == pytest.approx(1.0, abs=1e-4)
    assert "out of distribution: 100%" in str(told)
    # Without landmarks nothing is out of distribution: a cluster whose score is 0 is no background.
    router = uf.Router(None, [soft])
    router.insert(["a", "b"], [1.0, 2.0], rng.random((4, 2)))
    assert router.explain(embeddings=near).backgrounds == set()
    assert "distribution" not in str(router.explain(embeddings=near))


def test_a_fitted_router_knows_its_backgrounds() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, DIM)).astype(np.float32)
    seen = uf.Outcomes(rng.random((200, 4)))  # Too few to rehearse: landmarks come by default.
    router = uf.Router.fit(embeddings=x, seen=seen)
    router.add_model("a", cost=1.0, embeddings=x, losses=rng.random(200))
    told = router.explain(embeddings=np.full(DIM, 50.0, np.float32))
    assert told.out_of_distribution == pytest.approx(1.0, abs=1e-3)
    assert len(told.backgrounds) == sum(head[0] == "softmax" for head in router.heads())
