"""Connections: whose requests are answered, what becomes of them at the end, and under a flood."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import select
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import TEXTS, call, make_router, route
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.serving import Server
from uniroute_fast.serving.keeper import Keeper

#: Tests that change no router share one.
pool = functools.cache(make_router)

CHAT = json.dumps({"model": "uniroute", "messages": [{"role": "user", "content": TEXTS[0]}]})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(pool(), port=0, log="off") as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=20)


def read_all(stream: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := stream.recv(65536):
            found += piece
    return found


def posted(body: bytes | str, path: str = "/v1/route") -> bytes:
    body = body.encode() if isinstance(body, str) else body
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def said(server: Server, head: str) -> tuple[int, str]:
    """Send a head; return the status and the code of the refusal."""
    with connect(server) as stream:
        stream.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        stream.shutdown(socket.SHUT_WR)
        status, _, body = read_all(stream).partition(b"\r\n\r\n")
    return int(status.split()[1]), json.loads(body).get("error", {}).get("code", "")


def eventually(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end, "not within 20 s"
        time.sleep(0.02)


# --- whose requests are answered ---


def test_another_host_is_not_answered(server: Server) -> None:
    port = server.address[1]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", "[::1]:1"):
        assert call(server, "GET", "/healthz", headers={"host": host}).status == 200
    for host in ("evil.example", f"evil.example:{port}", "192.168.0.1"):
        for method, path in (("GET", "/healthz"), ("GET", "/"), ("POST", "/v1/route")):
            reply = call(server, method, path, headers={"host": host})
            assert (reply.status, reply.code) == (421, "unknown_host")
            assert "allowed_hosts" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "head",
    [
        "GET /healthz HTTP/1.1",
        "GET /healthz HTTP/1.1\nhost: ",
        "GET /healthz HTTP/1.1\nhost: localhost\nhost: localhost",
        "GET /healthz HTTP/1.1\nhost: localhost\nHost: evil.example",
        "GET /healthz HTTP/1.1\nhost: local host",
        "GET /healthz HTTP/1.1\nhost: localhost:x",
        "GET /healthz HTTP/1.1\nhost: me@localhost",
        "GET http://evil.example/healthz HTTP/1.1\nhost: localhost",
        "GET http://localhost/healthz HTTP/1.1\nhost: evil.example",
        "GET http://localhost/healthz HTTP/1.1",
    ],
)
def test_a_request_names_one_host(server: Server, head: str) -> None:
    assert said(server, head) == (400, "invalid_host")


def test_old_clients_need_name_no_host(server: Server) -> None:
    assert said(server, "GET /healthz HTTP/1.0") == (200, "")
    assert said(server, "GET http://localhost/healthz HTTP/1.0") == (200, "")
    assert said(server, "GET http://evil.example/healthz HTTP/1.0") == (421, "unknown_host")
    assert said(server, "GET http://localhost/healthz HTTP/1.1\nhost: LocalHost") == (200, "")


def test_a_page_of_another_site_is_refused(server: Server) -> None:
    host, port = server.address
    own = {"origin": f"http://{host}:{port}", "sec-fetch-site": "same-origin"}
    assert call(server, "POST", "/v1/route", {"text": TEXTS[0]}, headers=own).status == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert call(server, "GET", "/", headers=link).status == 200
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://localhost:{port}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ):
        reply = call(server, "POST", "/v1/route", {"text": TEXTS[0]}, headers=headers)
        assert (reply.status, reply.code) == (403, "other_origin")


def test_hosts_and_origins_that_are_allowed() -> None:
    allowed = {"allowed_hosts": ["*.example", "router"], "allowed_origins": ["https://app.example"]}
    with Server(pool(), port=0, log="off", **allowed) as server:
        for host, status in (("router:8", 200), ("a.example", 200), ("b", 421), ("localhost", 200)):
            headers = {"host": host, "origin": "https://app.example"}
            assert call(server, "GET", "/healthz", headers=headers).status == status
    with Server(pool(), host="0.0.0.0", port=0, log="off") as server:
        assert call(server, "GET", "/healthz", headers={"host": "any.example"}).status == 200
        headers = {"host": "any.example", "origin": "http://evil.example"}
        assert call(server, "GET", "/healthz", headers=headers).code == "other_origin"
    for setting in ({"allowed_hosts": ["a:80"]}, {"allowed_origins": ["a"]}):
        with pytest.raises(InvalidArgumentError, match=next(iter(setting))):
            Server(pool(), port=0, log="off", **setting)


def test_a_refusal_is_seen_behind_a_long_body(server: Server) -> None:
    with connect(server) as stream:
        body = json.dumps({"text": "a" * 3_000_000})
        stream.sendall(posted(body).replace(b"host: localhost", b"host: evil.example"))
        stream.shutdown(socket.SHUT_WR)
        assert read_all(stream).startswith(b"HTTP/1.1 421 ")


# --- the end ---


def test_nothing_that_was_sent_is_lost_when_it_stops() -> None:
    lost, closed = [], []

    def ask(server: Server) -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        connection.connect()
        # A careful client: it sees that the connection closes, or is closed.
        while not select.select([connection.sock], [], [], 0)[0]:
            try:
                body = json.dumps({"text": TEXTS[0]})
                connection.request("POST", "/v1/route", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (http.client.HTTPException, OSError) as error:
                lost.append(error)
                return
            if answer.getheader("connection") == "close":
                closed.append(answer.status)
                return

    for drain in (0, 0.3):
        with Server(pool(), port=0, log="off", drain_seconds=drain) as server:
            clients = [threading.Thread(target=ask, args=(server,)) for _ in range(16)]
            for client in clients:
                client.start()
            time.sleep(0.1)
            server.stop()
            for client in clients:
                client.join()
            assert server.wait(20)
    assert not lost
    assert closed == [200] * 32


def test_who_has_connected_before_the_stop_is_answered() -> None:
    with Server(pool(), port=0, log="off") as server, contextlib.ExitStack() as open_:
        streams = [open_.enter_context(connect(server)) for _ in range(50)]
        server.stop()
        for stream in streams:
            stream.sendall(posted('{"text": "add 1"}'))
        for stream in streams:
            answer = read_all(stream)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close\r\n" in answer


# --- clients that have said all they have to say ---


class Upstream(socketserver.ThreadingTCPServer):
    """Reads a request and answers with whatever `answer` writes."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Callable[[Upstream, socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), Raw)
        self.answer = answer
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.left = threading.Event()


class Raw(socketserver.StreamRequestHandler):
    server: Upstream

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.rfile.read(length)
        self.server.asked.set()
        with contextlib.suppress(OSError):
            self.server.answer(self.server, self.connection)


WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextlib.contextmanager
def passing_on(
    answer: Callable[[Upstream, socket.socket], None], **settings: Any
) -> Iterator[tuple[Server, Upstream]]:
    with Upstream(answer) as upstream:
        thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{upstream.server_address[1]}/v1"
        upstreams = {"default": {"url": url}, "attempts": 1}
        try:
            with Server(pool(), port=0, log="off", upstreams=upstreams, **settings) as server:
                yield server, upstream
        finally:
            upstream.go_on.set()
            upstream.shutdown()
            thread.join()


def test_a_client_that_half_closes_gets_its_answer(server: Server) -> None:
    for length in (20, 400_000, 2_500_000):
        for _ in range(3):
            with connect(server) as stream:
                stream.sendall(posted(json.dumps({"text": "add " * (length // 4)})))
                stream.shutdown(socket.SHUT_WR)
                assert read_all(stream).startswith(b"HTTP/1.1 200 ")
    with connect(server) as stream:
        stream.sendall(posted(b'{"text": "add 1"}')[:-1])
        stream.shutdown(socket.SHUT_WR)
        answer = read_all(stream)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"invalid_body"' in answer


def test_a_client_that_half_closes_waits_for_the_upstream() -> None:
    def slow(upstream: Upstream, stream: socket.socket) -> None:
        upstream.go_on.wait(10)
        stream.sendall(WHOLE)

    with passing_on(slow) as (server, upstream), connect(server) as stream:
        stream.sendall(posted(CHAT, "/v1/chat/completions"))
        stream.shutdown(socket.SHUT_WR)
        assert upstream.asked.wait(10)
        upstream.go_on.set()
        assert read_all(stream).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [False, True])
def test_an_upstream_is_left_when_the_client_is_gone(begun: bool) -> None:
    """Before its answer began, after a reset; and in the middle of a stream."""

    def endless(upstream: Upstream, stream: socket.socket) -> None:
        if begun:
            stream.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while begun:
            try:
                stream.sendall(b"3\r\nabc\r\n")
            except OSError:
                break
            time.sleep(0.01)
        # The service has hung up.
        while not begun and stream.recv(100):
            pass
        upstream.left.set()

    with passing_on(endless) as (server, upstream), connect(server) as stream:
        stream.sendall(posted(CHAT, "/v1/chat/completions"))
        assert upstream.asked.wait(10)
        if begun:
            assert stream.recv(100)
        else:
            # Closed with a reset, as by a client that dies with answers unread.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        assert upstream.left.wait(10)


# --- what an upstream may answer ---


@pytest.mark.parametrize(
    "head",
    [
        "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket",
        "204 No Content",
        "205 Reset Content\r\ncontent-length: 0",
        "302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0",
        "304 Not Modified",
        "599 Odd\r\ncontent-length: 0",
        "600 Odder\r\ncontent-length: 0",
        "999 Oddest\r\ncontent-length: 0",
    ],
)
def test_an_upstream_that_does_not_answer_the_chat_failed(head: str) -> None:
    def odd(upstream: Upstream, stream: socket.socket) -> None:
        stream.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode())

    with passing_on(odd) as (server, _):
        reply = call(server, "POST", "/v1/chat/completions", CHAT.encode())
        assert (reply.status, reply.code) == (502, "upstream_failed")
        assert head[:3] in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx\x00: y\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 20 OK\r\n\r\n{}",
        b"HTTP/1.1 099 OK\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    ],
    ids=range(10),
)
def test_an_upstream_that_does_not_speak_http_failed(answer: bytes) -> None:
    def odd(upstream: Upstream, stream: socket.socket) -> None:
        stream.sendall(answer)
        stream.shutdown(socket.SHUT_WR)

    with passing_on(odd) as (server, _):
        reply = call(server, "POST", "/v1/chat/completions", CHAT.encode())
        assert reply.status == 502
        assert reply.code in ("upstream_unreachable", "upstream_failed")
        assert len(reply.body) < 2048


def test_interim_answers_are_no_answers() -> None:
    def interim(upstream: Upstream, stream: socket.socket) -> None:
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        stream.sendall(early + WHOLE)

    with passing_on(interim) as (server, _):
        reply = call(server, "POST", "/v1/chat/completions", CHAT.encode())
        assert (reply.status, reply.json) == (200, {})


# --- streams that nobody reads ---


def test_streams_that_nobody_reads_are_bounded() -> None:
    piece = b"1000\r\n" + b"a" * 4096 + b"\r\n"
    taken = []

    def flood(upstream: Upstream, stream: socket.socket) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        stream.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        stream.settimeout(0.5)
        count = 0
        with contextlib.suppress(OSError):
            while count < 2000:
                stream.sendall(piece)
                count += 1
        taken.append(count * 4096)
        upstream.go_on.wait(10)

    # Room for two streams: the third is refused.
    room = {"max_body_bytes": 20_000, "max_body_memory_bytes": 300_000}
    with passing_on(flood, **room) as (server, _), contextlib.ExitStack() as open_:
        for _ in range(2):
            stream = socket.socket()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.settimeout(20)
            open_.enter_context(stream).connect(server.address)
            stream.sendall(posted(CHAT, "/v1/chat/completions"))
            assert stream.recv(9) == b"HTTP/1.1 "
        reply = call(server, "POST", "/v1/chat/completions", CHAT.encode())
        assert (reply.status, reply.code) == (503, "busy")
        assert route(server, text=TEXTS[0])["status"] == "ok"
        eventually(lambda: len(taken) == 2)
        # What the service and the system keep of a stream, together.
        assert max(taken) < 1_000_000
        open_.close()
        eventually(lambda: call(server, "POST", "/v1/chat/completions", b"{}").code != "busy")


# --- floods of connections ---


def test_health_is_answered_beside_a_flood_of_half_open_connections() -> None:
    limits = {"max_connections": 20, "header_seconds": 60}
    with (
        Server(pool(), port=0, log="off", **limits) as server,
        contextlib.ExitStack() as open_,
    ):
        for round_ in range(5):
            # More than the limit and the reserve, again and again: silent ones, and half heads.
            for i in range(60):
                stream = open_.enter_context(connect(server))
                if i % 2:
                    with contextlib.suppress(OSError):
                        stream.sendall(b"GET /healthz HTTP/1.1\r\nhost: ")
            for path in ("/healthz", "/readyz", "/metrics"):
                reply = call(server, "GET", path)
                assert (reply.status, reply.headers["connection"]) == (200, "close"), round_
        reply = call(server, "POST", "/v1/route", {"text": TEXTS[0]})
        assert (reply.status, reply.code) == (503, "too_many_connections")
        assert reply.headers["connection"] == "close"
        # Those that had to make room are counted.
        metrics = call(server, "GET", "/metrics").body.decode()
        assert re.search(r"^uniroute_connections_refused_total [1-9]", metrics, re.M)


def test_a_silent_connection_in_the_reserve_is_turned_away() -> None:
    with Server(pool(), port=0, log="off", max_connections=1) as server:
        with connect(server) as first, connect(server) as late:
            first.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert first.recv(100).startswith(b"HTTP/1.1 200 ")
            answer = read_all(late)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"too_many_connections" in answer
        eventually(lambda: call(server, "POST", "/v1/route", {"text": TEXTS[0]}).status == 200)


# --- reloads that fail for a while ---


def test_a_reload_that_failed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pool.uniroute"
    make_router().save(path)
    failures = iter(range(2))
    load = Keeper.reload

    def reload(keeper: Keeper) -> None:
        if next(failures, None) is not None:
            raise OSError(24, "Too many open files")
        load(keeper)

    monkeypatch.setattr(Keeper, "reload", reload)
    with Server(make_router(), port=0, log="off", artifact=path, watch_seconds=0.05) as server:
        make_router(1, ["small", "middle"]).save(path)
        eventually(lambda: len(call(server, "GET", "/v1/models").json["data"]) == 2)
        metrics = call(server, "GET", "/metrics").body.decode()
        assert 'uniroute_reloads_total{outcome="failed"} 2\n' in metrics


# --- forks ---

FORKED = """
import contextlib, os, signal, socket, sys, threading, time
import serving
from uniroute_fast.serving import Server

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a child that waits for ever is one that failed
        work()
        sys.exit(0)  # with all that happens at exit
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

server = Server(serving.make_router(), port=0, log="off")
client = socket.create_connection(server.address)
client.sendall(b"GET /healthz HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n")
assert client.recv(100).startswith(b"HTTP/1.1 200 ")
"""

ENDED = """
def work():
    global server
    assert server.wait()
    server.stop()
    server.reload()
    with server:
        pass
    del server
    # Neither the port nor the accepted connection is here, the client's own end is.
    names = []
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            names.append(socket.socket(fileno=os.dup(number)).getsockname())
        except OSError:
            pass
    assert client.getsockname() in names
    assert address not in names, names

address = server.address
assert child(work) == 0
assert serving.call(server, "GET", "/healthz").status == 200

# A child that is still there does not keep the port.
pid = os.fork()
if pid == 0:
    time.sleep(60)
    os._exit(0)
try:
    server.stop()
    assert server.wait(20)
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
        raise AssertionError("the port is still open")
finally:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""

OBSERVE = """
router = serving.make_router()
begun = threading.Event()

def first():
    begun.set()
    router.explain("add 1")

thread = threading.Thread(target=first)
thread.start()
begun.wait()

def work():
    router.explain("add 1")
    router.observe("add 1", "small", 0.5)

codes = [child(work) for _ in range(3)]
thread.join()
assert codes == [0] * 3, codes
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_a_forked_child_the_service_has_ended() -> None:
    folder = str(Path(__file__).parent.parent)
    command = [sys.executable, "-W", "ignore", "-c", FORKED + ENDED + OBSERVE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    subprocess.run(command, check=True, timeout=120, env=environment)


def test_a_fork_waits_for_imports_that_are_under_way(tmp_path: Path) -> None:
    """What a thread imports late is whole in a child that is forked meanwhile."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.5)\nhere = True\n")
    script = """
import os, signal, sys, threading, time
from uniroute_fast._checks.extras import imported
thread = threading.Thread(target=imported, args=("slow_module", "fit", "a test"))
thread.start()
while "slow_module" not in sys.modules:
    time.sleep(0.001)
if (pid := os.fork()) == 0:
    signal.alarm(20)
    import slow_module
    os._exit(0 if slow_module.here else 1)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", script]
    subprocess.run(command, check=True, timeout=120, env=environment)
