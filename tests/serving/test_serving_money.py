"""What the decision service makes of money and text is what Python makes of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_serving_chat import Upstream, upstream  # noqa: F401

import uniroute_fast as uf
from serving import TEXTS, call, make_router, route
from uniroute_fast.costs.tokens import estimate_tokens
from uniroute_fast.serving import Server

CHATS = "/v1/chat/completions"
FRAGMENTS = ["", "a", "river 3", "é", "\u4f60\u597d", "\n", "\x00", '"\\', "\U0001f600 poem 7", " "]


@pytest.fixture(scope="module")
def router() -> uf.Router:
    """Return a pool in which two LLMs are charged by the token."""
    router = make_router()
    clusters = router.n_clusters
    rng = np.random.default_rng(0)
    priced = ["small", "large"]
    router.set_usage(priced, rng.uniform(10, 400, (clusters, 2)), [1.0, 1.3], [5.0, 0.0])
    router.set_metadata("small", input_price=2e4, output_price=8e3)
    router.set_metadata("large", input_price=9e4, output_price=3e4, cached_input_price=1e4)
    return router


@pytest.fixture(scope="module")
def server(router: uf.Router) -> Iterator[Server]:
    with Server(router, port=0, log="off") as running:
        yield running


def some(rng: random.Random, *others: Any) -> Any:
    """Return some text, or something else."""
    return rng.choice(["".join(rng.choices(FRAGMENTS, k=rng.randrange(4))), *others])


def part(rng: random.Random) -> Any:
    if rng.random() < 0.05:
        return rng.choice([None, 3, ["text"], True])
    if rng.random() < 0.3:
        return some(rng)
    kind = rng.choice(["text", "text", "input_text", "image_url", None, 7])
    found = {"type": kind, "text": some(rng), "image_url": {"url": "data:"}}
    for name in list(found):
        if rng.random() < 0.05:
            del found[name]
        elif rng.random() < 0.03:
            found[name] = rng.choice([None, 1.5, [], {}])
    return found


def message(rng: random.Random) -> Any:
    if rng.random() < 0.02:
        return rng.choice([None, "user", 3, ["user", "hello"]])
    content = some(rng, None, [part(rng) for _ in range(rng.randrange(4))])
    if rng.random() < 0.05:
        content = rng.choice([3, {"text": "a"}, False, 0.5])
    found = {"role": rng.choice(["user", "user", "system", "tool"]), "content": content}
    if rng.random() < 0.05:
        del found[rng.choice(["role", "content"])]
    return dict(sorted(found.items(), reverse=rng.random() < 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_a_chat_is_the_same_text(server: Server, router: uf.Router, seed: int) -> None:
    rng = random.Random(seed)
    taken = refused = 0
    for _ in range(400):
        messages = [message(rng) for _ in range(rng.randrange(4))]
        reply = call(server, "POST", "/v1/route", {"messages": messages, "top": 0})
        try:
            text = uf.chat_text(messages)
        except uf.errors.UniRouteError:
            text = None
        if text is None:
            assert (reply.status, reply.code) == (400, "invalid_argument"), messages
            refused += 1
            continue
        alone = call(server, "POST", "/v1/route", {"text": text, "top": 0})
        assert (reply.status, reply.body) == (alone.status, alone.body), messages
        if reply.status == 200:
            assert reply.json["tokens"] == estimate_tokens([text])[0] == -(-len(text.encode()) // 4)
            taken += 1
    assert taken > 20
    assert refused > 20


def test_tokens_are_estimated_alike(server: Server, router: uf.Router) -> None:
    rng = random.Random(0)
    for _ in range(100):
        text = TEXTS[0] + " " + "".join(rng.choices(FRAGMENTS, k=rng.randrange(9)))
        tokens = route(server, text=text, top=0)["tokens"]
        assert tokens == router.route(text).tokens == estimate_tokens([text])[0]
    # What cannot be routed has none.
    texts = ["abcde", "\ud800 is no character", None, ""]
    assert estimate_tokens(texts).tolist() == [2, 0, 0, 0]
    assert router.route_batch(texts).status[1:] == ["invalid", "null", "empty"]


@pytest.mark.parametrize("planned", [False, True])
def test_a_budget_is_paced_alike(planned: bool) -> None:
    router = make_router()
    router.insert(["free"], [0.0], np.full((router.n_clusters, 1), 0.9))
    # So long a period that it does not matter when exactly a prompt comes.
    budget: dict[str, Any] = {"amount": 60.0, "seconds": 1e300, "gain": 0.2}
    now = [0.0]
    plan = uf.SpendingPlan.of(router, TEXTS) if planned else None
    if plan is not None:
        budget |= {"plan": plan.state(), "trust": 0.7}
    pacer = uf.BudgetPacer(
        60.0,
        cost_weight=0.01,
        seconds=1e300,
        gain=0.2,
        plan=plan,
        trust=0.7,
        clock=lambda: now[0],
    )
    policies = {"paced": {"cost_weight": 0.01, "budget": budget}}
    rng = random.Random(0)
    outcomes = set()
    with Server(router, port=0, log="off", policies=policies) as server:
        for _ in range(150):
            now[0] += 1.0
            asked: dict[str, Any] = {"text": rng.choice(TEXTS)}
            # What costs nothing lets the price fall.
            terms = {"allow": ["free"]} if rng.random() < 0.6 else {"deny": ["free"]}
            sent = asked | {"policy": "paced", "constraints": terms, "top": 0}
            reply = call(server, "POST", "/v1/route", sent)
            weight = pacer.cost_weight
            try:
                decision = pacer.route(router, **asked, constraints=uf.Constraints(**terms))
            except uf.errors.BudgetExhaustedError:
                assert (reply.status, reply.code) == (429, "budget_exhausted")
                outcomes.add("exhausted")
                continue
            got = reply.json
            assert (got["model"], got["cost"]) == (decision.model, decision.cost)
            assert got["cost_weight"] == pytest.approx(weight, rel=1e-12)
            outcomes.add(got["model"])
        assert metric(server, "spent") == pacer.spent
        assert metric(server, "remaining") == pacer.remaining
        assert metric(server, "cost_weight") == pytest.approx(pacer.cost_weight, rel=1e-12)
    assert {"free", "small", "exhausted"} <= outcomes


def metric(server: Server, name: str) -> float:
    lines = call(server, "GET", "/metrics").body.decode().splitlines()
    [line] = [line for line in lines if line.startswith(f"uniroute_budget_{name}{{")]
    return float(line.split()[-1])


@pytest.fixture
def chats(router: uf.Router, upstream: Upstream) -> Iterator[Server]:  # noqa: F811
    url = f"http://127.0.0.1:{upstream.server_address[1]}/api"
    policies = {"paced": {"cost_weight": 1e-3, "budget": {"amount": 1e6, "seconds": 86_400.0}}}
    upstreams = {"default": {"url": url}}
    with Server(router, port=0, log="off", policies=policies, upstreams=upstreams) as running:
        yield running


def test_a_chat_costs_its_budget_what_it_was_booked_at(
    router: uf.Router,
    chats: Server,
    upstream: Upstream,  # noqa: F811
) -> None:
    total = 0.0
    models = set()
    for text in [*TEXTS[::7], "poem " * 300]:
        chat = {"model": "uniroute:paced", "messages": [{"role": "user", "content": text}]}
        # The best answers; it fails, and the next answers; all fail; the upstream refuses the chat.
        for failing, mood, status in (
            (0, "", 200),
            (1, "500", 200),
            (9, "503", 502),
            (9, "400", 400),
        ):
            decision = router.route(text, metric(chats, "cost_weight"))
            ranked = [(decision.model, decision.cost)]
            ranked += [(other.model, other.cost) for other in decision.alternatives]
            upstream.moods = dict.fromkeys([model for model, _ in ranked[:failing]], mood)
            reply = call(chats, "POST", CHATS, chat)
            assert reply.status == status
            if status == 200:
                model, cost = ranked[failing]
                assert reply.headers["x-uniroute-model"].encode("latin-1").decode() == model
                total += cost
                models.add(model)
            assert metric(chats, "spent") == pytest.approx(total, rel=1e-12)
    assert {"small", "large"} & models
