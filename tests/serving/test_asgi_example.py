"""The ASGI application of `examples/asgi`, called as a server would."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from serving import TEXTS, make_router

APP = Path(__file__).parent.parent.parent / "examples" / "asgi" / "app.py"


def load(pool: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("UNIROUTE_POOL", str(pool))
    spec = importlib.util.spec_from_file_location("asgi_example", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def post(app: object, *pieces: bytes) -> tuple[int, dict]:
    events = [
        {"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1}
        for i, piece in enumerate(pieces)
    ]
    sent: list[dict] = []

    async def receive() -> dict:
        return events.pop(0)

    async def send(event: dict) -> None:
        sent.append(event)

    asyncio.run(app({"type": "http", "method": "POST", "path": "/"}, receive, send))
    return sent[0]["status"], json.loads(b"".join(event.get("body", b"") for event in sent))


def test_it_answers_as_the_router_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    router = make_router()
    router.save(tmp_path / "pool.uniroute")
    app = load(tmp_path / "pool.uniroute", monkeypatch).app
    for text in TEXTS[::11]:
        chat = {"messages": [{"role": "user", "content": text}], "cost_weight": 0.05}
        body = json.dumps(chat).encode()
        status, answer = post(app, body[:10], body[10:])
        assert (status, answer["model"]) == (200, router.route(text, 0.05).model)
    for bad in (b"{", b"{}", b"[]", b'{"messages": [{"role": "user", "content": ""}]}'):
        status, answer = post(app, bad)
        assert (status, set(answer)) == (400, {"error"})
