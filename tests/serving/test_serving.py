"""The decision service: it answers as the router does, and the pool changes under it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from serving import COSTS, NAMES, TEXTS, TOKEN, call, make_router, route
from uniroute_fast.serving import Server

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "add 3"},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "user", "content": [{"type": "text", "text": "river 4\n"}, {"type": "image_url"}]},
]


@pytest.fixture(scope="module")
def router() -> uf.Router:
    return make_router()


@pytest.fixture(scope="module")
def server(router: uf.Router, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    (folder / "token").write_text(TOKEN)
    config = folder / "config.toml"
    config.write_text(
        """
        [policies.thrifty]
        cost_weight = 0.5
        [policies.tight.constraints]
        max_cost = 2.5
        deny = ["odd*"]
        [policies.impossible]
        fallback = "middle"
        [policies.impossible.constraints]
        max_cost = 0.0
        [policies.paced]
        cost_weight = 0.1
        [policies.paced.budget]
        amount = 20.0
        seconds = 3600.0
        """
    )
    settings = {"port": 0, "log": "error", "admin_token_file": folder / "token"}
    with Server(router, config=config, **settings) as running:
        yield running


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.2, 3.0])
def test_one_text_goes_where_the_router_sends_it(
    server: Server, router: uf.Router, weight: float
) -> None:
    for text in TEXTS[::9]:
        got = route(server, text=text, cost_weight=weight, top=4)
        expected = router.route(text, weight)
        assert got["status"] == "ok"
        assert got["version"] == expected.version
        assert got["model"] == expected.model
        assert np.float32(got["predicted_loss"]) == np.float32(expected.predicted_loss)
        assert (got["cost"], got["cluster"]) == (expected.cost, expected.cluster)
        assert got["tokens"] == expected.tokens
        ranked = [(r["model"], r["cost"], r["objective"]) for r in got["ranked"]]
        own = expected.predicted_loss + weight * expected.cost
        others = [(a.model, a.cost, a.objective) for a in expected.alternatives]
        assert [r[0] for r in ranked] == [expected.model, *(o[0] for o in others)]
        assert ranked[0][2] == pytest.approx(own)
        assert [r[1:] for r in ranked[1:]] == [o[1:] for o in others]


def test_many_texts_go_where_the_router_sends_them(server: Server, router: uf.Router) -> None:
    texts = [*TEXTS, None, "", "\u0416"]
    for extra in ({}, {"top": 2}):
        got = route(server, texts=texts, cost_weight=0.05, **extra)
        expected = router.route_batch(texts, 0.05)
        decisions = got["decisions"]
        assert [d["model"] for d in decisions] == expected.models
        assert [d["status"] for d in decisions] == expected.status
        assert all(len(d.get("ranked", [])) == extra.get("top", 0) for d in decisions[:100])
    weights = np.linspace(0, 1, len(texts))
    got = route(server, texts=texts, cost_weight=weights.tolist())
    models = [d["model"] for d in got["decisions"]]
    assert models == router.route_batch(texts, weights).models
    assert route(server, texts=[])["decisions"] == []


def test_a_chat_is_routed_on_what_the_user_wrote(server: Server, router: uf.Router) -> None:
    got = route(server, messages=CHAT, model="uniroute:thrifty", temperature=0.3, tools=[{"x": 1}])
    expected = router.route(uf.chat_text(CHAT), 0.5)
    assert (got["model"], got["cost_weight"]) == (expected.model, 0.5)
    assert got["tokens"] == expected.tokens


def test_constraints_policies_and_fallback(server: Server, router: uf.Router) -> None:
    text = TEXTS[0]
    constraints = uf.Constraints(deny=["l*"], max_cost=2.0)
    got = route(server, text=text, constraints={"deny": ["l*"], "max_cost": 2})
    assert got["model"] == router.route(text, constraints=constraints).model
    # A request may ask for more than its policy, never for less.
    tight = route(server, text=text, policy="tight", constraints={"max_cost": 100}, top=4)
    assert {r["model"] for r in tight["ranked"]} == {"small"}
    reply = call(server, "POST", "/v1/route", {"text": text, "constraints": {"allow": []}})
    assert (reply.status, reply.code) == (422, "no_candidate")
    got = route(server, text=text, policy="impossible")
    assert (got["model"], "ranked" in got) == ("middle", False)
    assert got["reason"].startswith("fallback")
    many = route(server, texts=[text], constraints={"allow": []})["decisions"]
    assert (many[0]["status"], many[0]["model"]) == ("no_candidate", None)


def test_a_conversation_is_left_only_where_that_pays(server: Server, router: uf.Router) -> None:
    stayed = 0
    for text in TEXTS[::9]:
        for current in (*NAMES, "gone"):
            for switch in (0.0, 1.0, 100.0):
                asked = {"current_model": current, "switch_cost": switch}
                got = route(server, text=text, cost_weight=0.05, top=4, **asked)
                expected = router.route(text, 0.05, **asked)
                assert got["model"] == expected.model
                assert got.get("stayed", False) == expected.stayed
                assert got["reason"].startswith("the current model") == expected.stayed
                stayed += expected.stayed
    assert stayed > 20
    # One for each of many, ranked or not; a first turn has no model yet.
    texts = TEXTS[:40]
    currents = [*NAMES, None] * 8
    costs = [float(i % 3) for i in range(40)]
    expected = router.route_batch(texts, 0.05, current_model=currents, switch_cost=costs)
    for top in (0, 2):
        got = route(
            server,
            texts=texts,
            cost_weight=0.05,
            current_model=currents,
            switch_cost=costs,
            top=top,
        )
        assert [d["model"] for d in got["decisions"]] == expected.models
        assert [d.get("stayed", False) for d in got["decisions"]] == expected.stayed.tolist()
    chat = route(server, messages=CHAT, cost_weight=0.05, current_model="large", switch_cost=100)
    assert (chat["model"], chat["stayed"]) == ("large", True)
    assert route(server, text=TEXTS[0], current_model=None, cached_tokens=0)["status"] == "ok"


def test_lengths_of_prompts_may_differ() -> None:
    router = make_router()
    router.set_metadata("small", input_price=3e6, output_price=0.0)
    router.set_usage(["small"], np.zeros((router.n_clusters, 1)), [1.0], [0.0])
    with Server(router, port=0, log="error") as server:
        tokens = [1, 10**6, 7]
        expected = router.route_batch(TEXTS[:3], 0.05, tokens=tokens)
        for top in (0, 1):
            got = route(server, texts=TEXTS[:3], cost_weight=0.05, tokens=tokens, top=top)
            assert [d["cost"] for d in got["decisions"]] == expected.cost.tolist()
        for asked in ({"texts": TEXTS[:2]}, {"text": TEXTS[0]}):
            reply = call(server, "POST", "/v1/route", {**asked, "tokens": tokens})
            assert (reply.status, reply.code) == (400, "invalid_argument")
            assert "tokens: " in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/route", {"text": 5}, "text"),
        ("/v1/route", {"texts": ["a", 5]}, "texts[1]"),
        ("/v1/route", {"text": "a", "cost_weight": "1"}, "cost_weight"),
        ("/v1/route", {"text": "a", "tokens": 1.5}, "tokens"),
        ("/v1/route", {"text": "a", "constraints": {"max_cost": "1"}}, "constraints.max_cost"),
        ("/v1/route", {"text": "a", "top": -1}, "top"),
        ("/v1/models/new", {"cost": "1"}, "cost"),
        ("/v1/models/new", {"cost": 1, "profile": [None]}, "profile[0]"),
        ("/v1/models/new", {"cost": 1, "metadata": {"tags": 3}}, "metadata.tags"),
        ("/v1/observe", {"model": "small", "loss": "0", "text": "a"}, "loss"),
        ("/v1/observe", {"model": "small", "loss": 0, "text": "a", "why": 1}, "why"),
        (
            "/v1/observe",
            {"observations": [{"model": "small", "loss": 0, "text": "a", "weight": None}]},
            "observations[0].weight",
        ),
        (
            "/v1/observe",
            {"half_life": "1", "observations": [{"model": "small", "loss": 0, "text": "a"}]},
            "half_life",
        ),
    ],
)
def test_a_field_of_the_wrong_type_is_named(
    path: str, body: dict[str, object], param: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    with Server(make_router(), port=0, log="error", admin_token_file=token) as server:
        method = "PUT" if "models" in path else "POST"
        reply = call(server, method, path, body, token=token.read_text())
        assert (reply.status, reply.code) == (400, "invalid_argument")
        error = reply.json["error"]
        assert error["message"].startswith(param + ": "), error
        assert error["param"] == param


def test_a_cache_is_worth_what_it_saves() -> None:
    router = make_router()
    with Server(router, port=0, log="error") as server:
        asked = {"text": TEXTS[0], "cost_weight": 0.05, "current_model": "large"}
        # Without an input price nothing is lost.
        assert "stayed" not in route(server, **asked, cached_tokens=10**9)
        router.set_metadata("large", input_price=0.01)
        for tokens in (0, 10, 10**12):
            got = route(server, **asked, cached_tokens=tokens)
            expected = router.route(TEXTS[0], 0.05, current_model="large", cached_tokens=tokens)
            assert (got["model"], got.get("stayed", False)) == (expected.model, expected.stayed)
        assert expected.stayed


@pytest.mark.parametrize(
    "asked",
    [
        {"current_model": "small"},
        {"current_model": "small", "switch_cost": 1, "cached_tokens": 1},
        {"current_model": "small", "switch_cost": -1},
        {"current_model": "small", "switch_cost": "1"},
        {"current_model": 3, "switch_cost": 1},
        {"current_model": "small", "cached_tokens": -1},
        {"current_model": "small", "cached_tokens": 1.5},
        {"current_model": ["small"], "switch_cost": 1},
        {"current_model": ["small", None], "switch_cost": [1]},
        {"current_model": "small", "switch_cost": [1, 2]},
        {"switch_cost": 1, "cached_tokens": 1},
    ],
    ids=range(11),
)
def test_switches_that_cannot_be_meant(server: Server, asked: dict) -> None:
    for body in ({"texts": TEXTS[:3], **asked}, {"text": TEXTS[0], **asked}):
        reply = call(server, "POST", "/v1/route", body)
        assert (reply.status, reply.code) == (400, "invalid_argument")


STAY = {"current_model": "small", "switch_cost": 0.5}


def test_explanations_are_those_of_the_router(server: Server, router: uf.Router) -> None:
    flips = 0
    for text in TEXTS[::11]:
        for weight, current in ((0.0, {}), (0.03, {}), (0.3, {}), (0.03, STAY), (0.3, STAY)):
            asked = {"text": text, "cost_weight": weight, **current}
            got = route(server, **asked, explain=True)["explanation"]
            expected = router.explain(**asked)
            for side in ("flip_up", "flip_down"):
                flip = getattr(expected, side)
                flips += flip is not None
                pair = None if flip is None else (flip.cost_weight, flip.model)
                found = got[side] and (got[side]["cost_weight"], got[side]["model"])
                assert found == pair
            runner_up = expected.runner_up and expected.runner_up.model
            assert got["runner_up"] == runner_up
            for name in ("margin", "flip_price", "out_of_distribution"):
                assert got[name] == getattr(expected, name), name
            assert got["clusters"][0]["cluster"] == expected.clusters[0][0]
    assert flips > 5


def test_a_budget_is_a_hard_cap(server: Server) -> None:
    costs = []
    for _ in range(60):
        reply = call(server, "POST", "/v1/route", {"text": TEXTS[0], "policy": "paced"})
        if reply.status != 200:
            assert (reply.status, reply.code) == (429, "budget_exhausted")
            break
        costs.append(reply.json["cost"])
    assert 19.0 < sum(costs) <= 20.0
    metrics = call(server, "GET", "/metrics").body.decode()
    assert f'uniroute_budget_spent{{policy="paced"}} {sum(costs)}' in metrics


def test_embeddings_of_a_foreign_embedder() -> None:
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    router = uf.Router(None, [("nearest", x[:4])])
    router.insert(["a", "b"], [1.0, 2.0], np.random.default_rng(1).random((4, 2)))
    with Server(router, port=0, log="error") as server:
        got = route(server, embeddings=x.tolist(), cost_weight=0.1)["decisions"]
        expected = router.route_batch(embeddings=x, cost_weight=0.1)
        assert [d["model"] for d in got] == expected.models
        one = route(server, embedding=x[7].tolist(), cost_weight=0.1)
        assert one["model"] == expected.models[7]
        for body in ({"text": "a"}, {"embedding": [1.0]}, {"embeddings": [[1.0], x[0].tolist()]}):
            assert call(server, "POST", "/v1/route", body).code == "invalid_argument"


def test_models_are_listed_as_openai_does(server: Server, router: uf.Router) -> None:
    listed = call(server, "GET", "/v1/models").json
    assert [m["id"] for m in listed["data"]] == router.models
    assert [m["cost"] for m in listed["data"]] == COSTS
    one = call(server, "GET", "/v1/models/odd%2Fname%20%C3%A9").json
    assert one["id"] == NAMES[3]
    np.testing.assert_array_equal(np.float32(one["profile"]), router.profiles[:, 3])
    assert call(server, "GET", "/v1/models/nobody").code == "unknown_model"


def test_a_model_joins_changes_and_leaves(server: Server, router: uf.Router) -> None:
    clusters = router.n_clusters
    new = {"cost": 0.5, "profile": [0.0] * clusters, "metadata": {"tags": ["eu"], "latency": 2.0}}
    made = call(server, "PUT", "/v1/models/new%2Fone", new, token=TOKEN)
    assert made.status == 201
    assert "new/one" in router.models
    assert route(server, text=TEXTS[0])["model"] == "new/one"
    change = {"cost": 0.7, "enabled": False, "metadata": {"latency": None, "context_length": 10}}
    changed = call(server, "PATCH", "/v1/models/new%2Fone", change, token=TOKEN).json
    assert (changed["cost"], changed["enabled"]) == (0.7, False)
    assert changed["metadata"] == {"tags": ["eu"], "context_length": 10}
    assert route(server, text=TEXTS[0])["model"] != "new/one"
    again = call(server, "PUT", "/v1/models/new%2Fone", {**new, "metadata": {}}, token=TOKEN)
    assert (again.status, again.json["enabled"], again.json["metadata"]) == (200, True, {})
    gone = call(server, "DELETE", "/v1/models/new%2Fone", token=TOKEN)
    assert gone.json["deleted"] is True
    assert router.models == NAMES
    assert call(server, "DELETE", "/v1/models/new%2Fone", token=TOKEN).code == "unknown_model"


def test_a_model_joins_by_its_outcomes(server: Server, router: uf.Router) -> None:
    losses = [float(text.startswith("add")) for text in TEXTS]
    losses[3] = None
    body = {"cost": 1.5, "texts": TEXTS, "losses": losses}
    assert call(server, "PUT", "/v1/models/measured", body, token=TOKEN).status == 201
    column = np.array([np.nan if v is None else v for v in losses])
    other = make_router()
    other.add_model("measured", cost=1.5, texts=TEXTS, losses=column)
    np.testing.assert_array_equal(router.profiles[:, -1], other.profiles[:, -1])
    assert call(server, "DELETE", "/v1/models/measured", token=TOKEN).status == 200
    for bad in (
        {"cost": 1, "texts": TEXTS, "losses": [0.0]},
        {"cost": 1, "texts": TEXTS},
        {"cost": 1, "texts": ["a"], "losses": [7.0]},
        {"cost": -1, "profile": [0.0] * router.n_clusters},
        {"cost": 1, "profile": [0.0]},
        {"cost": 1},
    ):
        reply = call(server, "PUT", "/v1/models/measured", bad, token=TOKEN)
        assert (reply.status, reply.code) == (400, "invalid_argument")
    for bad in ({}, {"cost": None}, {"metadata": {"latancy": None}}, {"metadata": {"tags": [""]}}):
        reply = call(server, "PATCH", "/v1/models/small", bad, token=TOKEN)
        assert (reply.status, reply.code) == (400, "invalid_argument")
    assert router.models == NAMES


def test_outcomes_are_learnt_from(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    router, other = make_router(), make_router()
    with Server(router, port=0, log="off", admin_token_file=tmp_path / "token") as server:

        def tell(**body: object) -> object:
            return call(server, "POST", "/v1/observe", body, token=TOKEN)

        found = tell(text=TEXTS[0], model="small", loss=1.0)
        assert found.json == {"used": [True], "version": router.version}
        other.observe(TEXTS[0], "small", 1.0)
        many = [{"text": t, "model": "large", "loss": 0.5, "weight": 2} for t in (TEXTS[1], "")]
        assert tell(observations=many, half_life=10).json["used"] == [True, False]
        other.observe_many([TEXTS[1], ""], "large", [0.5, 0.5], [2, 2], half_life=10)
        tell(cluster=2, model="small", loss=0)
        other.observe(2, "small", 0.0)
        np.testing.assert_array_equal(router.profiles, other.profiles)
        assert tell(text="a", model="nobody", loss=1).code == "unknown_model"
        for bad in (
            {},
            {"text": TEXTS[0], "model": "small"},
            {"text": TEXTS[0], "model": "small", "loss": 2},
            {"text": TEXTS[0], "model": "small", "loss": True},
            {"text": TEXTS[0], "cluster": 1, "model": "small", "loss": 1},
            {"text": TEXTS[0], "model": "small", "loss": 1, "wieght": 1},
            {"observations": many, "model": "small"},
            {"observations": [*many, {"cluster": 1, "model": "small", "loss": 1}]},
        ):
            reply = tell(**bad)
            assert (reply.status, reply.code) == (400, "invalid_argument")
        # A profile that was set has no outcomes behind it.
        profile = {"profile": [0.5] * router.n_clusters}
        assert call(server, "PATCH", "/v1/models/small", profile, token=TOKEN).status == 200
        assert tell(text=TEXTS[0], model="small", loss=1.0).code == "invalid_argument"
        # One that was measured has.
        body = {"cost": 1.0, "texts": TEXTS, "losses": [0.5] * len(TEXTS), "enabled": False}
        made = call(server, "PUT", "/v1/models/measured", body, token=TOKEN)
        assert (made.status, made.json["enabled"]) == (201, False)
        assert tell(text=TEXTS[0], model="measured", loss=1.0).status == 200
        body["losses"] = [0.0] * len(TEXTS)
        assert call(server, "PUT", "/v1/models/measured", body, token=TOKEN).status == 200
        assert tell(text=TEXTS[0], model="measured", loss=1.0).code == "invalid_argument"


def test_trace_context_is_passed_through(server: Server) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = call(server, "GET", "/healthz", headers={"traceparent": parent, "tracestate": "a=1"})
    assert (reply.headers["traceparent"], reply.headers["tracestate"]) == (parent, "a=1")


def test_metrics_count_decisions() -> None:
    router = make_router()
    with Server(router, port=0, log="error") as server:
        models = [d["model"] for d in route(server, texts=[*TEXTS, ""])["decisions"]]
        route(server, text=TEXTS[0])
        call(server, "GET", "/nowhere")
        text = call(server, "GET", "/metrics").body.decode()
        found = dict(
            re.findall(r'^uniroute_decisions_total\{model="(.*)",status="ok"\} (\d+)', text, re.M)
        )
        expected = {name: models.count(name) for name in NAMES if name in models}
        expected[models[0]] += 1
        assert {name: int(n) for name, n in found.items()} == expected
        assert 'uniroute_decisions_total{model="",status="empty"} 1\n' in text
        assert 'uniroute_requests_total{route="other",code="404"} 1\n' in text
        assert 'uniroute_decision_seconds_count{kind="many"} 1\n' in text
        assert f"uniroute_snapshot_version {router.version}\n" in text
        assert text.endswith("# EOF\n")


def test_ready_only_with_models() -> None:
    router = uf.Router.fit(TEXTS, n_clusters=2)
    with Server(router, port=0, log="off") as server:
        assert call(server, "GET", "/healthz").status == 200
        assert call(server, "GET", "/readyz").code == "not_ready"
        assert call(server, "POST", "/v1/route", {"text": "a"}).code == "empty_pool"
        router.insert(["a"], [1.0], np.zeros((2, 1), np.float32))
        assert call(server, "GET", "/readyz").json["version"] == router.version


def test_a_changed_artifact_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pool.uniroute"
    make_router(0).save(path)
    other = make_router(1, NAMES[:2])
    router = uf.Router.load(path)
    with Server(router, artifact=path, port=0, watch_seconds=0.02, log="off") as server:
        other.save(path)
        _until(lambda: router.models == NAMES[:2])
        # A file that cannot be loaded leaves everything as it was.
        version = router.version
        path.write_bytes(b"damaged")
        _until(lambda: 'outcome="failed"' in call(server, "GET", "/metrics").body.decode())
        assert (router.version, router.models) == (version, NAMES[:2])
        assert route(server, text=TEXTS[0])["model"] == other.route(TEXTS[0]).model
        # What was profiled from outcomes before goes on with the new profiler.
        make_router(0).save(path)
        _until(lambda: router.models == NAMES)
        router.add_model("late", cost=1.0, texts=TEXTS, losses=np.zeros(len(TEXTS)))


def test_no_wrong_answer_while_pool_and_artifact_change(tmp_path: Path) -> None:
    """Two artifacts take turns, models come and go: each answer is that of its version."""
    artifacts = [tmp_path / "a", tmp_path / "b"]
    for seed, path in enumerate(artifacts):
        make_router(seed).save(path)
    path = tmp_path / "pool"
    path.write_bytes(artifacts[0].read_bytes())
    router = uf.Router.load(path)
    published = {router.version: router.snapshot()}
    answers: list[tuple[str, dict]] = []
    failures: list[object] = []
    stop = threading.Event()

    def ask(offset: int) -> None:
        i = offset
        while not stop.is_set():
            text = TEXTS[i % len(TEXTS)]
            reply = call(server, "POST", "/v1/route", {"text": text, "cost_weight": 0.05})
            if reply.status == 200:
                answers.append((text, reply.json))
            else:
                failures.append(reply)
            i += 7

    def note() -> None:
        # Faster than changes are made, so that every version is seen.
        while not stop.is_set():
            snapshot = router.snapshot()
            published.setdefault(snapshot.version, snapshot)

    with Server(router, artifact=path, port=0, watch_seconds=0, log="error") as server:
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(2)]
        threads.append(threading.Thread(target=note))
        for thread in threads:
            thread.start()
        for turn in range(30):
            beside = tmp_path / "next"
            beside.write_bytes(artifacts[turn % 2].read_bytes())
            beside.replace(path)
            server.reload()
            router.insert([f"new{turn}"], [0.1 * turn], np.full((router.n_clusters, 1), 0.3))
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    versions = {answer["version"] for _, answer in answers}
    assert len(versions) > 20
    checked = 0
    for text, answer in answers:
        snapshot = published.get(answer["version"])
        if snapshot is not None:
            checked += 1
            assert snapshot.route(text, 0.05).model == answer["model"]
    assert checked > 0.5 * len(answers)


def test_the_command_serves_reloads_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "pool.uniroute"
    make_router(0).save(path)
    command = [sys.executable, "-m", "uniroute_fast.cli", "serve", str(path), "--port", "0"]
    config = tmp_path / "c.json"
    config.write_text('{"watch_seconds": 0}')
    with subprocess.Popen(
        [*command, "--config", str(config), "--log", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        port = int(line.rsplit(":", 1)[1])
        server = type("There", (), {"address": ("127.0.0.1", port)})
        assert call(server, "GET", "/readyz").status == 200
        make_router(1, NAMES[:2]).save(path)
        process.send_signal(signal.SIGHUP)
        _until(lambda: len(call(server, "GET", "/v1/models").json["data"]) == 2)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert '"message":"artifact reloaded"' in log
    assert all(line.startswith("{") for line in log.splitlines())


def test_bad_settings_are_refused(router: uf.Router, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("abc")
    for settings, error in (
        ({"prot": 1}, uf.errors.InvalidArgumentError),
        ({"port": -1}, uf.errors.InvalidArgumentError),
        ({"host": "256.0.0.1"}, uf.errors.ArtifactIOError),
        ({"admin_token_file": short}, uf.errors.InvalidArgumentError),
        ({"admin_token_file": tmp_path / "none"}, uf.errors.ArtifactIOError),
        ({"policies": {"a": {"constraints": {"deny": [""]}}}}, uf.errors.InvalidArgumentError),
        ({"log": "loud"}, uf.errors.InvalidArgumentError),
        ({"port": object()}, uf.errors.ArgumentTypeError),
    ):
        with pytest.raises(error):
            Server(router, **{"port": 0, **settings})
    with pytest.raises(uf.errors.ArgumentTypeError):
        Server("pool.uniroute")


def _until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
