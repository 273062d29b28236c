"""Requests made to hurt: work and memory that a small body asks for, and changes by halves."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uniroute_fast as uf
from serving import TEXTS, TOKEN, call, make_router, route
from uniroute_fast.serving import Server

MIB = 1 << 20


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def big_router(models: int) -> uf.Router:
    """Return a router over many LLMs of the same cost."""
    router = uf.Router.fit(TEXTS, n_clusters=4)
    losses = np.random.default_rng(0).random((router.n_clusters, models))
    router.insert([f"m{i}" for i in range(models)], np.ones(models), losses)
    return router


def constraints(**terms: Any) -> dict[str, Any]:
    return {"text": "add 1", "explain": True, "fallback": "m0", "constraints": terms}


def test_rules_are_limited_and_only_what_is_answered_is_worked_out() -> None:
    with Server(big_router(5000), port=0, log="off") as server:
        groups = [[f"t{k}"] for k in range(9990)]
        reply = call(server, "POST", "/v1/route", constraints(require_tags=groups))
        assert (reply.status, reply.code) == (400, "invalid_argument")
        assert reply.json["error"]["param"].startswith("constraints.require_tags")
        assert "64 at most" in reply.json["error"]["message"]
        # What is within the limits is answered, in as much as it lists.
        for terms in (
            {"require_tags": groups[:64]},
            {"require_tags": [[f"t{k}" for k in range(9990)]]},
            {"forbid_tags": ["*"], "deny": [f"m{i}" for i in range(9000)]},
        ):
            reply = call(server, "POST", "/v1/route", constraints(**terms))
            assert reply.status == 200, reply.body
            explanation = reply.json["explanation"]
            assert len(explanation["excluded"]) <= 20
            assert len(reply.body) < 200_000
            if "require_tags" in terms:
                assert explanation["excluded_count"] == 5000


def test_policies_and_requests_share_one_limit_of_rules() -> None:
    policy = {"constraints": {"require_tags": [f"p{i}" for i in range(40)]}}
    with Server(make_router(), port=0, log="off", policies={"p": policy}) as server:
        asked = {"text": TEXTS[0], "policy": "p"}
        tags = [f"q{i}" for i in range(30)]
        reply = call(server, "POST", "/v1/route", asked | {"constraints": {"require_tags": tags}})
        assert (reply.status, reply.code) == (400, "invalid_argument")
        assert "70 groups" in reply.json["error"]["message"]


NESTED = "a" + "{" * 17 + "b" + "}" * 17


@pytest.mark.parametrize(
    "glob",
    [
        "{" * 250 + "a" + "}" * 250,
        "{" * 60_000,
        "{a," * 60_000,
        "[" * 60_000,
        "*" * 60_000,
        NESTED,
        "{" * 16 + "a",
        "[z-a]",
        "\\",
        "a" * 255 + "*[",
    ],
    ids=range(10),
)
def test_globs_that_cannot_be_used_are_errors_of_this_package(glob: str) -> None:
    for argument in ("allow", "deny", "forbid_tags"):
        with pytest.raises(uf.errors.InvalidArgumentError, match=f"^{argument}: "):
            uf.Constraints(**{argument: [glob]})
    with pytest.raises(uf.errors.InvalidArgumentError, match=r"^require_tags: "):
        uf.Constraints(require_tags=[glob])
    with Server(make_router(), port=0, log="off") as server:
        body = {"text": TEXTS[0], "constraints": {"deny": [glob]}}
        reply = call(server, "POST", "/v1/route", body)
        assert (reply.status, reply.code) == (400, "invalid_argument")
        assert len(reply.body) <= 2048


def test_globs_that_are_deep_but_within_limits_work() -> None:
    router = make_router()
    deep = "{" * 16 + "small" + "}" * 16
    chosen = router.route(TEXTS[0], constraints=uf.Constraints(allow=[deep]))
    assert chosen.model == "small"


DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/observe", b'{"observations": ' + DEEP + b"}"),
        ("POST", "/v1/observe", b'{"model": "small", "loss": 0, "text": ' + DEEP + b"}"),
        ("POST", "/v1/observe", DEEP),
        ("POST", "/v1/route", b'{"text": "a", "constraints": ' + DEEP + b"}"),
        ("POST", "/v1/route", b'{"messages": ' + DEEP + b"}"),
        ("PUT", "/v1/models/x", b'{"cost": 1, "metadata": {"tags": ' + DEEP + b"}}"),
        ("PATCH", "/v1/models/small", b'{"metadata": {"tags": ' + DEEP + b"}}"),
        ("PATCH", "/v1/models/small", b'{"metadata": {"x": ' + b'{"a":' * 60_000),
    ],
    ids=range(8),
)
def test_deep_nesting_is_refused(token: Path, method: str, path: str, body: bytes) -> None:
    router = make_router()
    version = router.version
    with Server(router, port=0, log="off", admin_token_file=token) as server:
        reply = call(server, method, path, body, token=TOKEN)
        assert reply.status == 400, reply.body
        assert reply.code in ("invalid_json", "invalid_argument")
        assert len(reply.body) <= 2048
    assert router.version == version


LONG = "\x1b[2J" + "x" * 3_000_000 + "\u202e"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/route", {"text": "a", LONG: 1}),
        ("POST", "/v1/route", {"text": "a", "policy": LONG}),
        ("POST", "/v1/route", {"text": "a", "fallback": LONG}),
        ("POST", "/v1/route", {"text": "a", "cost_weight": LONG}),
        ("POST", "/v1/route", {"text": "a", "constraints": {"deny": ["[" + LONG]}}),
        ("POST", "/v1/route", {"text": "a", "constraints": {LONG: 1}}),
        ("POST", "/v1/observe", {"model": LONG, "loss": 0, "text": "add 1"}),
        ("POST", "/v1/observe", {LONG: LONG}),
        ("PUT", "/v1/models/x", {"cost": LONG}),
        ("PUT", "/v1/models/x", {"cost": 1, "profile": [0] * 4, "metadata": {"tags": [LONG]}}),
        ("PATCH", "/v1/models/small", {"metadata": {LONG: LONG}}),
        ("GET", "/" + "x" * 20_000, None),
        ("GET", "/v1/models/" + "x" * 20_000, None),
        ("DELETE", "/v1/models/" + "%1b" * 5_000, None),
    ],
    ids=range(14),
)
def test_refusals_are_short_and_can_be_printed(
    token: Path, method: str, path: str, body: Any
) -> None:
    with Server(make_router(), port=0, log="off", admin_token_file=token) as server:
        reply = call(server, method, path, body, token=TOKEN)
        assert 400 <= reply.status < 500, reply.status
        assert len(reply.body) <= 2048
        message = reply.json["error"]["message"]
        assert "\x1b" not in message
        assert "\u202e" not in message


def test_a_model_that_is_added_disabled_never_answers(token: Path) -> None:
    router = make_router()
    with Server(router, port=0, log="off", admin_token_file=token) as server:
        before = router.version
        put = {"cost": 0.0, "texts": TEXTS, "losses": [0.0] * 100, "enabled": False}
        put["metadata"] = {"tags": ["slow"], "input_price": 1.5}
        assert call(server, "PUT", "/v1/models/off", put, token=TOKEN).status == 201
        assert [(c.version, c.action) for c in router.changes(since=before)] == [
            (before + 1, "add")
        ]
        info = router.info("off")
        assert (info.enabled, info.tags, info.input_price) == (False, ["slow"], 1.5)
        # Nothing of a model that is refused stays.
        for wrong in ({"metadata": {"latency": -1}}, {"losses": [2.0] * 100}, {"cost": -1}):
            version = router.version
            reply = call(server, "PUT", "/v1/models/bad", put | wrong, token=TOKEN)
            assert reply.status == 400, reply.body
            assert (router.version, "bad" in router.models) == (version, False)


def test_add_model_is_one_version() -> None:
    router = make_router()
    before = router.version
    losses = np.zeros((len(TEXTS), 2))
    known = [{"tags": ["a"], "context_length": 10}, None]
    router.add_models(["p", "q"], [0.0, 0.0], TEXTS, losses, metadata=known, enabled=False)
    assert router.version == before + 1
    assert (router.info("p").tags, router.info("q").tags) == (["a"], [])
    assert not router.info("p").enabled
    assert not router.info("q").enabled
    assert router.route(TEXTS[0]).model not in ("p", "q")
    for bad in ([{}], [{}, {}, {}], [{"tag": 1}, {}], [3, 4], {"tags": ["a"]}, "ab"):
        with pytest.raises(uf.errors.UniRouteError, match=r"metadata|tag"):
            router.add_models(["r", "s"], [0.0, 0.0], TEXTS, losses, metadata=bad)
    for bad in (1, "yes", [True, False]):
        with pytest.raises(uf.errors.ArgumentTypeError, match=r"^enabled: "):
            router.add_models(["r"], [0.0], TEXTS, losses[:, :1], enabled=bad)
    assert router.version == before + 1


def test_a_request_that_is_alone_is_never_told_to_wait(token: Path) -> None:
    limits = {"max_body_bytes": MIB, "max_body_memory_bytes": MIB}
    with Server(make_router(), port=0, log="off", admin_token_file=token, **limits) as server:
        outcomes = {"cost": 1.0, "texts": TEXTS * 100, "losses": [0.5] * len(TEXTS) * 100}
        assert call(server, "PUT", "/v1/models/x", outcomes, token=TOKEN).status == 201
        asked = {"texts": [*TEXTS, "add 1 " * 150_000], "top": 4}
        assert call(server, "POST", "/v1/route", asked).status == 200


def test_prompts_without_a_model_are_counted_too() -> None:
    with Server(make_router(), port=0, log="off") as server:
        for text in ("", " ", "add 1"):
            body = {"text": text, "constraints": {"allow": ["nobody"]}}
            assert call(server, "POST", "/v1/route", body).status == 422
        text = call(server, "GET", "/metrics").body.decode()
        for status in ("empty", "blank", "no_candidate"):
            assert f'uniroute_decisions_total{{model="",status="{status}"}} 1' in text
        assert 'uniroute_reloads_total{outcome="ok"} 0' in text


def test_no_decision_goes_to_a_model_that_is_put_disabled(token: Path) -> None:
    """While disabled LLMs that would win are added and removed, none of them is chosen."""
    router = make_router()
    stop = threading.Event()
    wrong: list[str] = []

    def ask(server: Server) -> None:
        while not stop.is_set():
            got = route(server, texts=TEXTS, cost_weight=1.0)
            wrong.extend(d["model"] for d in got["decisions"] if d["model"].startswith("off"))

    with Server(router, port=0, log="off", admin_token_file=token) as server:
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        put = {"cost": 0.0, "texts": TEXTS, "losses": [0.0] * 100, "enabled": False}
        for turn in range(30):
            assert call(server, "PUT", f"/v1/models/off{turn}", put, token=TOKEN).status == 201
            assert call(server, "DELETE", f"/v1/models/off{turn}", token=TOKEN).status == 200
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_series_of_models_that_were_removed_go(token: Path) -> None:
    router = make_router()
    with Server(router, port=0, log="off", admin_token_file=token) as server:
        for turn in range(5):
            name = f"new{turn}"
            router.insert([name], [0.0], np.zeros((router.n_clusters, 1)))
            assert route(server, text=TEXTS[0], cost_weight=1.0)["model"] == name
            router.remove_model(name)
        route(server, text=TEXTS[0], cost_weight=1.0)
        found = set(re.findall(r'model="([^"]*)"', call(server, "GET", "/metrics").body.decode()))
        assert found <= set(router.models)
        assert found


def test_numbers_at_the_edge_of_what_json_says() -> None:
    router = uf.Router.fit(TEXTS, n_clusters=4)
    router.insert(["a", "b"], [1e10, 1e200], [[0.5, 0.1]] * router.n_clusters)
    with Server(router, port=0, log="off") as server:
        zero = route(server, text=TEXTS[0], cost_weight=0.0, explain=True)
        assert route(server, text=TEXTS[0], cost_weight=-0.0, explain=True) == zero
        got = route(server, text=TEXTS[0], cost_weight=1e308, explain=True)
        assert got["model"] == "a"
        assert all(isinstance(one["objective"], float) for one in got["ranked"])
        assert isinstance(got["explanation"]["margin"], float)


def worst_bodies(size: int) -> dict[str, tuple[str, str, bytes]]:
    """Bodies of a size that would make the most of memory, by what they try."""

    def filled(head: str, item: str, tail: str) -> bytes:
        return (head + item * ((size - len(head) - len(tail)) // len(item)) + tail).encode()

    post = "POST", "/v1/route"
    chat = "POST", "/v1/chat/completions"
    observe = "POST", "/v1/observe"
    put = "PUT", "/v1/models/x"
    return {
        "tokens": (*post, filled('{"texts":["a"],"tokens":[', "0,", "0]}")),
        "weights": (*post, filled('{"texts":["a"],"cost_weight":[', "0,", "0]}")),
        "current": (*post, filled('{"texts":["a"],"current_model":[', '"",', '""]}')),
        "texts": (*post, filled('{"texts":[', '"",', '""]}')),
        "one text": (*post, filled('{"text":"', "add 1 ", '"}')),
        "escapes": (*post, filled('{"text":"', "\\u0061", '"}')),
        "rows": (*post, filled('{"embeddings":[', "[],", "[]]}")),
        "numbers": (*post, filled('{"embedding":[', "0,", "0]}")),
        "deny": (*post, filled('{"text":"a","constraints":{"deny":[', '"a",', '"a"]}}')),
        "groups": (
            *post,
            filled('{"text":"a","constraints":{"require_tags":[[', '"a",', '"a"]]}}'),
        ),
        "parts": (*chat, filled('{"messages":[{"role":"user","content":[', '"",', '""]}]}')),
        "messages": (*chat, filled('{"messages":[', '{"role":"user"},', '{"role":"user"}]}')),
        "ignored": (
            *chat,
            filled('{"messages":[{"role":"user","content":"a"}],"x":[', "0,", "0]}"),
        ),
        "fields": (*chat, filled('{"messages":[],', '"":0,', '"":0}')),
        "outcomes": (*observe, filled('{"observations":[', "{},", "{}]}")),
        "observed": (
            *observe,
            filled(
                '{"observations":[',
                '{"text":"","model":"small","loss":0},',
                '{"text":"","model":"small","loss":0}]}',
            ),
        ),
        "losses": (*put, filled('{"cost":1,"texts":[],"losses":[', "0,", "0]}")),
        "put texts": (*put, filled('{"cost":1,"losses":[],"texts":[', '"",', '""]}')),
        "profile": (*put, filled('{"cost":1,"profile":[', "0,", "0]}")),
        "tags": (*put, filled('{"cost":1,"profile":[],"metadata":{"tags":[', '"a",', '"a"]}}')),
    }


@pytest.fixture
def service(tmp_path: Path, token: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a service as a process of its own, with bodies of a mebibyte at most."""
    started: list[subprocess.Popen[str]] = []
    make_router().save(tmp_path / "pool")

    def start(**settings: Any) -> subprocess.Popen[str]:
        config = tmp_path / "config.json"
        limits = {"max_body_bytes": MIB, "max_body_memory_bytes": 16 * MIB, "workers": 2}
        upstreams = {"default": {"url": "http://127.0.0.1:1"}, "attempts": 1}
        config.write_text(
            json.dumps(
                limits
                | {"port": 0, "log": "off", "admin_token_file": str(token)}
                | {"upstreams": upstreams}
                | settings
            )
        )
        command = [sys.executable, "-m", "uniroute_fast.cli", "serve", str(tmp_path / "pool")]
        process = subprocess.Popen(
            [*command, "--config", str(config)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        process.port = int(process.stdout.readline().rsplit(":", 1)[1])  # type: ignore[attr-defined]
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def memory(process: subprocess.Popen[str], kind: str) -> int:
    """Return the bytes that a process holds, or held at most."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_within_the_documented_bound(service: Any) -> None:
    """No body, on no route, makes the process hold more than docs/serving.md says."""
    process = service()
    statuses: dict[str, set[int]] = {}

    def send(name: str, method: str, path: str, body: bytes) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        client = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
        try:
            client.request(method, path, body, headers)
            status = client.getresponse().status
        finally:
            client.close()
        statuses.setdefault(name, set()).add(status)

    send("warm", "POST", "/v1/route", b'{"text": "add 1"}')
    send("warm", "POST", "/v1/observe", b'{"text": "add 1", "model": "small", "loss": 0.5}')
    base = memory(process, "VmRSS")
    # Bodies and answers together, and what each of two threads makes of one; the rest is the
    # allocator's.
    bound = base + 16 * MIB + 2 * 8 * MIB + 8 * MIB
    for name, (method, path, body) in worst_bodies(MIB).items():
        arguments = (name, method, path, body)
        threads = [threading.Thread(target=send, args=arguments) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        peak = memory(process, "VmHWM")
        assert peak <= bound, f"{name}: {(peak - base) / MIB:.0f} MiB above {base / MIB:.0f}"
    assert process.poll() is None
    # Refused or busy; none of them was a failure of the service.
    for name, found in statuses.items():
        assert 500 not in found, name
    assert statuses["one text"] <= {200, 503}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_constraints_of_many_requests_are_not_kept(service: Any) -> None:
    process = service()
    base = memory(process, "VmRSS")

    class Running:
        address = ("127.0.0.1", process.port)

    for turn in range(80):
        tags = [f"q{turn}_{k}" for k in range(9000)]
        body = {"text": "add 1", "constraints": {"forbid_tags": tags}}
        assert call(Running, "POST", "/v1/route", body).status == 200  # type: ignore[arg-type]
    assert memory(process, "VmRSS") - base < 48 * MIB


def test_a_file_that_lies_about_its_size_leaves_the_service_as_it_is(
    service: Any, tmp_path: Path
) -> None:
    process = service(watch_seconds=0.05)
    size = 1 << 40
    header = json.dumps(
        {
            "extra.x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
            "__metadata__": {"uniroute": '{"checksum":"0","format":5,"manifest":{}}'},
        }
    ).encode()
    hostile = tmp_path / "hostile"
    with hostile.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    hostile.rename(tmp_path / "pool")

    class Running:
        address = ("127.0.0.1", process.port)

    def failed() -> bool:
        text = call(Running, "GET", "/metrics").body.decode()  # type: ignore[arg-type]
        return 'uniroute_reloads_total{outcome="failed"}' in text

    for _ in range(200):
        if failed():
            break
        process.poll()
        threading.Event().wait(0.05)
    assert failed()
    assert route(Running, text="add 1")["status"] == "ok"  # type: ignore[arg-type]
    if Path("/proc/self/status").exists():
        assert memory(process, "VmHWM") < 1 << 30
