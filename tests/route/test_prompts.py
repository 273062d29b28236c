"""`router.embed`: prompts embedded once, and taken wherever texts are."""

from __future__ import annotations

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast.batch.losses import LossReader
from uniroute_fast.batch.prompter import Prompter

TEXTS = [f"{kind} {i}" for i in range(30) for kind in ("add up", "name the river", "rhyme on")]
NAMES, COSTS = ["small", "large"], [1.0, 9.0]
LOSSES = np.random.default_rng(0).random((len(TEXTS), 2)) * [1.0, 0.5]


class Counting:
    """An embedder that is not of this package, and counts how often it is given each text."""

    def __init__(self) -> None:
        self.own = uf.LexicalEmbedder.fit(TEXTS, dim=16)
        self.given: list[str] = []

    def embed(self, texts: list[str]) -> np.ndarray:
        self.given += texts
        return self.own.embed(texts)


@pytest.fixture
def embedder() -> Counting:
    return Counting()


@pytest.fixture
def router(embedder: Counting) -> uf.Router:
    """A router over that embedder, with prices, whose counts begin anew."""
    router = uf.Router.fit(TEXTS, embedder=embedder, n_clusters=4)
    router.add_models(NAMES, COSTS, TEXTS, LOSSES)
    embedder.given.clear()
    return router


def price(router: uf.Router) -> None:
    """Charge the LLMs by the token."""
    k = router.n_clusters
    router.set_usage(NAMES, np.full((k, 2), 100.0, np.float32), [1.0, 1.0], [0.0, 0.0])
    for name, dollars in zip(NAMES, COSTS, strict=True):
        router.set_metadata(name, input_price=dollars, output_price=dollars)


CALLS = {
    "embed": lambda router, p: router.embed(p),
    "route_batch": lambda router, p: router.route_batch(p),
    "predict_loss": lambda router, p: router.predict_loss(p),
    "predict_cost": lambda router, p: router.predict_cost(p),
    "calibrate": lambda router, p: router.calibrate(p, quality_drop=0.01),
    "observe_many": lambda router, p: router.observe_many(p, "small", np.ones(len(p))),
    "add_models": lambda router, p: router.add_models(
        ["a", "b"], None, p, LOSSES, input_prices=COSTS, output_prices=COSTS, output_tokens=LOSSES
    ),
    "add_model": lambda router, p: router.add_model("a", cost=1.0, texts=p, losses=LOSSES[:, 0]),
    "add_model_from_preferences": lambda router, p: router.add_model_from_preferences(
        "a", cost=1.0, opponents="small", wins=LOSSES[:, 0] > 0.5, texts=p
    ),
    "suggest_probes": lambda router, p: router.suggest_probes(3, p),
    "fit_tokens": lambda router, p: router.fit_tokens(p, LOSSES * 100),
    "set_baseline": lambda router, p: router.set_baseline(p),
    "drift": lambda router, p: router.drift(p),
    "SpendingPlan.of": lambda router, p: uf.SpendingPlan.of(router, p),
    "Cascade.fit": lambda router, p: uf.Cascade.fit(router, p, {"small": LOSSES[:, 0]}, LOSSES),
}

ONE = {
    "route": lambda router, p: router.route(p),
    "explain": lambda router, p: router.explain(p, 0.01),
    "observe": lambda router, p: router.observe(p, "small", 1.0),
    "Explorer.route": lambda router, p: uf.Explorer(within=1.0).route(router, p),
    "Explorer.compare": lambda router, p: uf.Explorer(within=1.0).compare(router, p),
}


@pytest.mark.parametrize("metered", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_embeds_each_text_once_and_prompts_never(
    router: uf.Router, embedder: Counting, call: str, metered: bool
) -> None:
    if metered:
        price(router)
    CALLS[call](router, TEXTS)
    assert embedder.given == TEXTS
    for name in set(router.models) - set(NAMES):
        router.remove_model(name)
    prompts = router.embed(TEXTS)
    embedder.given.clear()
    CALLS[call](router, prompts)
    assert not embedder.given


@pytest.mark.parametrize("call", ONE)
def test_one_prompt_is_embedded_once(router: uf.Router, embedder: Counting, call: str) -> None:
    ONE[call](router, TEXTS[0])
    assert embedder.given == TEXTS[:1]
    prompt = router.embed(TEXTS)[0]
    embedder.given.clear()
    ONE[call](router, prompt)
    assert not embedder.given
    with pytest.raises(errors.InvalidArgumentError, match=r"prompts; expected one"):
        ONE[call](router, router.embed(TEXTS[:2]))


def test_a_cascade_embeds_once(router: uf.Router, embedder: Counting) -> None:
    price(router)
    cascade = uf.Cascade.fit(router, TEXTS, {"small": LOSSES[:, 0]}, LOSSES)
    embedder.given.clear()
    cascade.first(TEXTS[0], 0.01)
    assert embedder.given == TEXTS[:1]
    prompt = router.embed(TEXTS[:1])
    embedder.given.clear()
    cascade.first(prompt, 0.01)
    assert not embedder.given


def test_a_log_s_losses_embed_once(router: uf.Router, embedder: Counting) -> None:
    price(router)
    for losses in LossReader(Prompter(router)).of(TEXTS):
        assert len(losses.values)
    assert embedder.given == TEXTS


@pytest.mark.parametrize("kind", ["lexical", "hard", "soft"])
def test_prompts_are_what_texts_are(kind: str) -> None:
    fitted = uf.Router.fit(TEXTS, seen=uf.Outcomes(LOSSES) if kind == "lexical" else None)
    if kind == "lexical":
        router = fitted
    else:
        weights = np.random.default_rng(1).normal(size=(5, fitted.dim)).astype(np.float32)
        head = ("nearest", weights) if kind == "hard" else ("softmax", weights, np.zeros(5), 0.1)
        router = uf.Router(fitted.embedder, [head])
    psi = np.random.default_rng(2).random((router.n_clusters, 2), np.float32)
    router.insert(NAMES, COSTS, psi)
    texts = [*TEXTS, "", "  ", None, "\ud800", "zzzz qqqq"]
    prompts = router.embed(texts)
    assert len(prompts) == len(texts) == len(prompts.status)
    for weight in (0.0, 0.03):
        for options in ({}, {"constraints": uf.Constraints(deny=["small"])}):
            expected = router.route_batch(texts, weight, **options)
            found = router.route_batch(prompts, weight, **options)
            for name in ("index", "cluster", "predicted_loss", "cost", "coverage"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            assert found.status == expected.status
    np.testing.assert_array_equal(prompts.status, router.route_batch(texts).status)
    np.testing.assert_array_equal(prompts.phi, router.phi(texts))
    np.testing.assert_array_equal(prompts.vectors, router.embedder.embed(texts))
    np.testing.assert_array_equal(router.predict_loss(prompts), router.predict_loss(texts))
    np.testing.assert_array_equal(prompts.ok, [status == "ok" for status in prompts.status])
    one, same = router.route(TEXTS[3], 0.01), router.route(prompts[3], 0.01)
    assert (one.model, one.cost, one.tokens) == (same.model, same.cost, same.tokens)
    assert [o.model for o in one.alternatives] == [o.model for o in same.alternatives]
    with pytest.raises(errors.UnroutableError, match="empty"):
        router.route(prompts[len(TEXTS)])
    assert router.snapshot().embed(TEXTS).keys is None


def test_some_of_the_prompts(router: uf.Router) -> None:
    prompts = router.embed(TEXTS)
    keep = np.arange(len(TEXTS)) % 3 == 0
    for index in (slice(3, 9), np.array([4, 1, 1]), keep, -1):
        some, rows = prompts[index], np.atleast_1d(np.arange(len(TEXTS))[index])
        assert len(some) == len(rows)
        for name in ("vectors", "phi", "tokens", "coverage", "keys"):
            np.testing.assert_array_equal(getattr(some, name), getattr(prompts, name)[rows])
    with pytest.raises(IndexError):
        prompts[len(TEXTS)]
    assert repr(prompts) == f"Prompts({len(TEXTS)} of 16 dimensions)"


def test_prompts_are_known_again_by_their_keys() -> None:
    router = uf.Router.fit(TEXTS, seen=uf.Outcomes(LOSSES))
    first, second = router, uf.Router.from_bytes(router.to_bytes())
    first.add_models(NAMES, COSTS, TEXTS, LOSSES)
    second.add_models(NAMES, COSTS, second.embed(TEXTS), LOSSES)
    np.testing.assert_array_equal(first.profiles, second.profiles)


def test_another_router_refuses_prompts_or_places_them_anew(
    router: uf.Router, embedder: Counting
) -> None:
    prompts = router.embed(TEXTS)
    other = uf.Router.fit(TEXTS, embedder=embedder, n_clusters=7)
    other.add_models(NAMES, COSTS, TEXTS, LOSSES)
    expected = other.predict_loss(TEXTS)
    embedder.given.clear()
    np.testing.assert_array_equal(other.predict_loss(prompts), expected)
    np.testing.assert_array_equal(other.embed(prompts).phi, other.phi(embeddings=prompts.vectors))
    assert not embedder.given
    for stranger in (Counting(), None):
        third = uf.Router.fit(TEXTS, embedder=stranger)
        third.insert(NAMES, COSTS, np.zeros((third.n_clusters, 2)))
        with pytest.raises(errors.InvalidArgumentError, match="prompts: of another embedder"):
            third.route_batch(prompts)
        with pytest.raises(errors.InvalidArgumentError, match="prompts: of another embedder"):
            third.suggest_probes(3, prompts)


def test_the_same_embedder_from_a_file_is_the_same() -> None:
    router = uf.Router.fit(TEXTS)
    router.add_models(NAMES, COSTS, TEXTS, LOSSES)
    prompts = router.embed(TEXTS)
    again = uf.Router.from_bytes(router.to_bytes())
    np.testing.assert_array_equal(again.predict_loss(prompts), router.predict_loss(TEXTS))
    router.replace(again)
    np.testing.assert_array_equal(router.predict_loss(prompts), router.predict_loss(TEXTS))


def test_routed_prompts_count_as_traffic() -> None:
    router = uf.Router.fit(TEXTS)
    router.add_models(NAMES, COSTS, TEXTS, LOSSES)
    router.route_batch(router.embed(TEXTS))
    router.route(router.embed(TEXTS)[0])
    assert router.drift().prompts == len(TEXTS) + 1
