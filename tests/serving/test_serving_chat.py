"""Chats passed on to upstreams: streamed, renamed, and handed to the next model on failure."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import uniroute_fast as uf
from serving import TEXTS, call, make_router
from uniroute_fast.serving import Server

PATH = "/v1/chat/completions"
CHAT = {"model": "uniroute", "messages": [{"role": "user", "content": TEXTS[0]}]}


class Upstream(ThreadingHTTPServer):
    """Answers as OpenAI does, or misbehaves as `moods` says, by the model's upstream name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moods: dict[str, str] = {}
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        # Set once the client has seen the first piece of a streamed answer.
        self.seen = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((body, headers))
        mood = self.server.moods.get(body["model"], "well")
        if self.path != "/api/chat/completions":
            self.send_error(404)
        elif mood.isdigit():
            self.reply(int(mood), {"error": {"message": "from upstream"}})
        elif mood == "hangs":
            time.sleep(5)
        elif mood == "breaks":
            self.close_connection = True
        elif body.get("stream"):
            self.stream(stalls=mood == "stalls")
        else:
            self.reply(200, {"id": "1", "model": body["model"], "choices": []})

    def reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *, stalls: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for i, piece in enumerate((b"data: one\n\n", b"data: [DONE]\n\n")):
            if i == 1 and stalls:
                time.sleep(5)
            # The second piece leaves only once the first one has arrived.
            assert i == 0 or stalls or self.server.seen.wait(10)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def router() -> uf.Router:
    return make_router()


def ranking(router: uf.Router, **asked: Any) -> list[str]:
    decision = router.route(TEXTS[0], **asked)
    return [decision.model, *(a.model for a in decision.alternatives)]


@pytest.fixture
def server(
    router: uf.Router, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.setenv("AN_UPSTREAM_KEY", "the-key")
    url = f"http://127.0.0.1:{upstream.server_address[1]}/api/"
    settings: dict[str, Any] = {
        "upstreams": {
            "default": {"url": url, "api_key_env": "AN_UPSTREAM_KEY"},
            "models": {"small": {"url": url, "model": "vendor/small-2"}},
            "timeout_seconds": 2.0,
            "stall_seconds": 1.5,
        },
        "policies": {"thrifty": {"cost_weight": 100.0}},
    }
    with Server(router, port=0, log="off", **settings) as running:
        yield running


def test_the_best_model_is_asked(server: Server, router: uf.Router, upstream: Upstream) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    chat = {**CHAT, "temperature": 0.25, "cost_weight": 0, "seed": 12345678901234567890}
    reply = call(
        server, "POST", PATH, chat, headers={"traceparent": parent, "authorization": "Bearer mine"}
    )
    assert reply.status == 200
    best = ranking(router)[0]
    assert reply.json["model"] == best
    assert reply.headers["x-uniroute-version"] == str(router.version)
    body, headers = upstream.asked[0]
    # What is ours stays here; the rest goes on as it was, to the last digit.
    assert body == {**CHAT, "temperature": 0.25, "seed": 12345678901234567890, "model": best}
    assert headers["traceparent"] == parent
    assert headers["authorization"] == "Bearer the-key"


def test_an_upstream_has_its_own_name_for_a_model(server: Server, upstream: Upstream) -> None:
    reply = call(server, "POST", PATH, {**CHAT, "model": "uniroute:thrifty"})
    assert reply.headers["x-uniroute-model"] == "small"
    body, headers = upstream.asked[0]
    assert body["model"] == "vendor/small-2"
    assert "authorization" not in headers


@pytest.mark.parametrize("mood", ["429", "500", "503", "hangs", "breaks"])
def test_the_next_model_is_asked_when_one_fails(
    server: Server, router: uf.Router, upstream: Upstream, mood: str
) -> None:
    ranked = ranking(router, cost_weight=0.01)
    upstream.moods[_upstream_name(ranked[0])] = mood
    reply = call(server, "POST", PATH, {**CHAT, "cost_weight": 0.01})
    assert reply.status == 200
    assert [_upstream_name(model) for model in ranked[:2]] == [
        body["model"] for body, _ in upstream.asked
    ]
    metrics = call(server, "GET", "/metrics").body.decode()
    outcome = {"429": "overloaded", "hangs": "timeout", "breaks": "unreachable"}.get(mood, "failed")
    failed = f'uniroute_upstream_requests_total{{model="{ranked[0]}",outcome="upstream_{outcome}"}}'
    assert f"{failed} 1\n" in metrics


def test_when_all_fail_the_client_is_told_why(
    server: Server, router: uf.Router, upstream: Upstream
) -> None:
    for mood, status in (("429", 429), ("500", 502), ("hangs", 504)):
        upstream.asked.clear()
        upstream.moods = {_upstream_name(model): mood for model in router.models}
        reply = call(server, "POST", PATH, CHAT)
        assert reply.status == status
        assert reply.code.startswith("upstream_")
        assert len(upstream.asked) == 3


def test_what_the_upstream_refuses_is_the_clients_business(
    server: Server, router: uf.Router, upstream: Upstream
) -> None:
    upstream.moods = {_upstream_name(model): "400" for model in router.models}
    reply = call(server, "POST", PATH, CHAT)
    assert (reply.status, reply.json) == (400, {"error": {"message": "from upstream"}})
    assert len(upstream.asked) == 1


def test_a_model_that_the_client_chose(server: Server, upstream: Upstream) -> None:
    assert call(server, "POST", PATH, {**CHAT, "model": "large"}).json["model"] == "large"
    assert call(server, "POST", PATH, {**CHAT, "model": "nobody"}).code == "unknown_model"
    upstream.moods["large"] = "500"
    assert call(server, "POST", PATH, {**CHAT, "model": "large"}).status == 502
    assert len(upstream.asked) == 2


def test_answers_are_streamed(server: Server, upstream: Upstream) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    body = json.dumps({**CHAT, "stream": True}).encode()
    connection.request("POST", PATH, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.read1(1000) == b"data: one\n\n"
    upstream.seen.set()
    assert answer.read() == b"data: [DONE]\n\n"
    connection.close()


def test_a_stream_that_stalls_is_cut(server: Server, router: uf.Router, upstream: Upstream) -> None:
    upstream.moods = {_upstream_name(model): "stalls" for model in router.models}
    with pytest.raises(http.client.IncompleteRead):
        call(server, "POST", PATH, {**CHAT, "stream": True})


def test_bad_chats(server: Server, upstream: Upstream) -> None:
    for body in ({"model": "uniroute"}, {**CHAT, "messages": "hi"}, {"text": "a"}):
        reply = call(server, "POST", PATH, body)
        assert (reply.status, reply.code) == (400, "invalid_argument")
    empty = {**CHAT, "messages": [{"role": "system", "content": "x"}]}
    assert call(server, "POST", PATH, empty).code == "empty"
    assert not upstream.asked


def test_only_models_with_an_upstream_are_asked(router: uf.Router, upstream: Upstream) -> None:
    url = f"http://127.0.0.1:{upstream.server_address[1]}/api"
    worst = ranking(router)[-1]
    upstreams = {"models": {worst: {"url": url}}}
    with Server(router, port=0, log="off", upstreams=upstreams) as server:
        assert call(server, "POST", PATH, CHAT).headers["x-uniroute-version"]
        assert [body["model"] for body, _ in upstream.asked] == [worst]
        denied = {**CHAT, "constraints": {"allow": [m for m in router.models if m != worst]}}
        assert call(server, "POST", PATH, denied).code == "no_upstream"


def test_without_upstreams_chats_are_closed(router: uf.Router) -> None:
    with Server(router, port=0, log="off") as server:
        assert call(server, "POST", PATH, CHAT).code == "no_upstreams"


def test_bad_upstreams_are_refused(router: uf.Router) -> None:
    for config in (
        {"default": {"url": "ftp://a"}},
        {"default": {"url": "not an address"}},
        {"default": {"url": "http://a", "api_key_env": "A_VARIABLE_THAT_IS_NOT_SET"}},
        {"attempts": 0},
        {"unknown": 1},
    ):
        with pytest.raises(uf.errors.InvalidArgumentError):
            Server(router, port=0, log="off", upstreams=config)


def _upstream_name(model: str) -> str:
    return "vendor/small-2" if model == "small" else model
