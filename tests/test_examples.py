"""The gateway of `examples/haproxy`, with a real HAProxy and a local upstream."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from serving import TEXTS, make_router
from uniroute_fast.serving import Server

HAPROXY = shutil.which("haproxy")
EXAMPLE = Path(__file__).parent.parent / "examples" / "haproxy"


class Echo(BaseHTTPRequestHandler):
    """Answers with the header that the gateway set."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["x-llm"].encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def gateway(service: str) -> Iterator[int]:
    upstream = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = free_port()
    environment = {
        **os.environ,
        "UNIROUTE_URL": service,
        "GATEWAY_ADDRESS": f"127.0.0.1:{port}",
        "UPSTREAM_ADDRESS": f"127.0.0.1:{upstream.server_address[1]}",
    }
    assert HAPROXY is not None
    with subprocess.Popen(
        [HAPROXY, "-db", "-f", "haproxy.cfg"], cwd=EXAMPLE, env=environment
    ) as running:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
        running.terminate()
    upstream.shutdown()
    upstream.server_close()


def ask(port: int, body: bytes) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
def test_the_gateway_sends_chats_where_the_router_says() -> None:
    router = make_router(names=["small", "middle", "large"])
    with Server(router, port=0, log="off") as server, gateway(server.url) as port:
        for text in TEXTS[::20]:
            chat = {"model": "any", "messages": [{"role": "user", "content": text}]}
            assert ask(port, json.dumps(chat).encode()) == router.route(text).model
        assert ask(port, b"{") == "default"
    with gateway("http://127.0.0.1:9") as port:
        assert ask(port, b"{}") == "default"
