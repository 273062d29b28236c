"""What the tests of the decision service share: a pool, a service, a client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import uniroute_fast as uf
from uniroute_fast.serving import Server

TOKEN = "a-token-for-the-tests-only"
TEXTS = [f"{a} {b}" for a in ("add", "river", "poem", "rust") for b in map(str, range(25))]
NAMES = ["small", "middle", "large", "odd/name é"]
COSTS = [1.0, 3.0, 9.0, 2.0]


def make_router(seed: int = 0, names: list[str] = NAMES) -> uf.Router:
    """Return a router with a few LLMs, each good at something."""
    rng = np.random.default_rng(seed)
    router = uf.Router.fit(TEXTS, n_clusters=4)
    skill = rng.random((4, len(names)))
    topic = np.arange(len(TEXTS)) // 25
    losses = (rng.random((len(TEXTS), len(names))) < skill[topic]).astype(float)
    router.add_models(names, COSTS[: len(names)], TEXTS, losses)
    return router


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal; what is refused says so in JSON."""
        assert self.headers["content-type"] == "application/json"
        error = self.json["error"]
        assert set(error) == {"message", "type", "code", "param"}
        return error["code"]


def call(
    server: Server,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] = {},
) -> Reply:
    """Send one request; a body that is not bytes goes as JSON."""
    sent = dict(headers)
    if body is not None:
        sent.setdefault("content-type", "application/json")
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    host, port = server.address
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def route(server: Server, **body: Any) -> Any:
    """Route, and expect it to work."""
    reply = call(server, "POST", "/v1/route", body)
    assert reply.status == 200, reply.body
    return reply.json
