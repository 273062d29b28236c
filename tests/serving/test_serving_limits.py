"""Clients that are slow, greedy, broken or not let in: refused in JSON; the service lives on."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import TEXTS, TOKEN, Reply, call, make_router, route
from uniroute_fast.serving import Server

BODY_LIMIT = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    token = tmp_path_factory.mktemp("limits") / "token"
    token.write_text(TOKEN + "\n")
    settings = {"max_body_bytes": BODY_LIMIT, "header_seconds": 0.5, "body_seconds": 0.5}
    with Server(
        make_router(),
        port=0,
        log="off",
        admin_token_file=token,
        max_batch=50,
        **settings,
    ) as running:
        yield running
        assert route(running, text=TEXTS[0])["status"] == "ok"


def post(length: int | None = None, *, kind: str = "application/json") -> bytes:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    head = (
        f"POST /v1/route HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n"
    )
    return head.encode()


def read_all(stream: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    found = b""
    while piece := stream.recv(65536):
        found += piece
    return found


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"text": "a"} trailing', "invalid_json"),
        (b'{"text": "\xff\xfe"}', "invalid_json"),
        (b'{"text": "\\ud800"}', "invalid_json"),
        (b'{"text": "a", "cost_weight": 1e999}', "invalid_json"),
        (b'{"text": "a", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_argument"),
        (b'{"messages": [{"role": "user", "content": ' + b"[" * 5000, "invalid_json"),
        (b"[" * 50_000, "invalid_argument"),
        (b'{"text": NaN}', "invalid_json"),
        (b"null", "invalid_argument"),
        (b'{"text": 3}', "invalid_argument"),
        (b'{"text": "a", "unknown": 1}', "invalid_argument"),
        (b'{"text": "a", "cost_weight": -1}', "invalid_argument"),
        (b'{"text": "a", "policy": "none"}', "invalid_argument"),
        (b'{"text": "a", "fallback": "none"}', "unknown_model"),
        (b'{"text": "a", "constraints": {"allow": ["[z"]}}', "invalid_argument"),
        (b'{"texts": ["a", "b"], "cost_weight": [1]}', "invalid_argument"),
        (json.dumps({"texts": ["a"] * 51}).encode(), "invalid_argument"),
        (b'{"text": "a", "text": "b"}', "invalid_argument"),
        (b'{"text": "a", "constraints": {"deny": [], "deny": ["b"]}}', "invalid_argument"),
        (b'{"messages": [{"role": "user", "role": "system", "content": "a"}]}', "invalid_argument"),
        (b'{"messages": [{"role": "user", "content": "a"}], "x": "\xff"}', "invalid_json"),
        (b'{"text": "a", "tokens": 99999999999999999999999}', "invalid_argument"),
        (b'{"text": "a", "tokens": -99999999999999999999999}', "invalid_argument"),
        (b'{"text": "a", "top": 18446744073709551616}', "invalid_argument"),
        (b'{"text": "a", "cost_weight": ' + b"9" * 1000 + b"}", "invalid_json"),
        (b'{"text": "a", "cost_weight": -Infinity}', "invalid_json"),
        (b'{"text": "a\x00"}', "invalid_json"),
        (b'\xef\xbb\xbf{"text": "a"}', "invalid_json"),
        (
            b'{"text": "a", "constraints": {"allow": [' + b'"*",' * 20_000 + b'"*"]}}',
            "invalid_argument",
        ),
        (
            b'{"text": "a", "constraints": {"deny": ["' + b"*a" * 40_000 + b'"]}}',
            "invalid_argument",
        ),
    ],
    ids=range(32),
)
def test_a_body_that_cannot_be_used(server: Server, body: bytes, code: str) -> None:
    reply = call(server, "POST", "/v1/route", body)
    assert (reply.status, reply.code) == (400, code)


def test_prompts_that_cannot_be_routed_say_why(server: Server) -> None:
    for text, code in (("", "empty"), (" \n", "blank"), ("\u0416", "unknown")):
        reply = call(server, "POST", "/v1/route", {"text": text})
        assert (reply.status, reply.code) == (422, code)


def test_other_content_types_and_methods(server: Server) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    reply = call(server, "POST", "/v1/route", b"{}", headers=form)
    assert (reply.status, reply.code) == (415, "unsupported_media_type")
    for method, path, allow in (
        ("GET", "/v1/route", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models/small", "GET, HEAD, PUT, PATCH, DELETE"),
        ("DELETE", "/", "GET, HEAD"),
    ):
        reply = call(server, method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert reply.headers["allow"] == allow
    assert call(server, "GET", "/v2/route").code == "unknown_route"
    assert call(server, "GET", "/v1/models/%ff").code == "invalid_argument"
    for path in ("/healthz", "/v1/models", "/", "/metrics"):
        assert call(server, "HEAD", path).body == b""
    reply = call(server, "OPTIONS", "/v1/route")
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "POST")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/models/small"),
        ("PATCH", "/v1/models/small"),
        ("DELETE", "/v1/models/small"),
        ("POST", "/v1/observe"),
    ],
)
def test_what_changes_something_needs_the_token(server: Server, method: str, path: str) -> None:
    body = {"cost": 1.0}
    for token in (None, "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        reply = call(server, method, path, body, token=token)
        assert (reply.status, reply.code) == (401, "unauthorised")
        assert reply.headers["www-authenticate"] == "Bearer"
    with Server(make_router(), port=0, log="off") as closed:
        reply = call(closed, method, path, body, token=TOKEN)
        assert (reply.status, reply.code) == (403, "closed")


def test_a_client_token_closes_routing(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with Server(make_router(), port=0, log="off", client_token_file=token) as server:
        assert call(server, "POST", "/v1/route", {"text": "add 1"}).status == 401
        assert call(server, "POST", "/v1/route", {"text": "add 1"}, token=TOKEN).status == 200
        assert call(server, "GET", "/healthz").status == 200


def test_it_listens_on_this_machine_alone_by_default() -> None:
    with Server(make_router(), port=0, log="off") as server:
        assert server.address[0] == "127.0.0.1"


def test_bodies_that_are_too_long(server: Server) -> None:
    text = {"text": "a" * (BODY_LIMIT - 100)}
    assert call(server, "POST", "/v1/route", text).status in (200, 422)
    # Declared: refused before it is read. 100 MB, of which the client gets to send what it can.
    with socket.create_connection(server.address, timeout=20) as stream:
        stream.sendall(post(100_000_000))
        try:
            for _ in range(100):
                stream.sendall(b"a" * 1_000_000)
        except OSError:
            pass
        assert refusal(read_all(stream)) == (413, "body_too_large")
    # Not declared: refused once it has grown too long.
    with socket.create_connection(server.address, timeout=20) as stream:
        stream.sendall(post())
        for _ in range(BODY_LIMIT // 10_000 + 1):
            stream.sendall(b"2710\r\n" + b"a" * 10_000 + b"\r\n")
        assert refusal(read_all(stream)) == (413, "body_too_large")


def test_clients_that_are_slow(server: Server) -> None:
    # A head that never ends: the connection is closed.
    with socket.create_connection(server.address, timeout=20) as stream:
        stream.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        begun = time.monotonic()
        read_all(stream)
        assert time.monotonic() - begun < 10
    # One that sends nothing at all: likewise.
    with socket.create_connection(server.address, timeout=20) as stream:
        read_all(stream)
    # A body that does not come: told so.
    with socket.create_connection(server.address, timeout=20) as stream:
        stream.sendall(post(100) + b'{"text"')
        assert refusal(read_all(stream)) == (408, "body_timeout")


def test_heads_that_are_too_long(server: Server) -> None:
    many = b"".join(b"x-%d: a\r\n" % i for i in range(100))
    for headers in (b"x: " + b"a" * 100_000 + b"\r\n", many):
        with socket.create_connection(server.address, timeout=20) as stream:
            stream.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n")
            assert b" 431 " in read_all(stream).splitlines()[0]


def test_requests_in_a_row_are_answered_in_order(server: Server) -> None:
    weights = [i / 10 for i in range(40)]
    bodies = [json.dumps({"text": TEXTS[0], "cost_weight": w}).encode() for w in weights]
    with socket.create_connection(server.address, timeout=20) as stream:
        stream.sendall(b"".join(post(len(body)) + body for body in bodies))
        stream.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answers = read_all(stream).split(b"HTTP/1.1 200 OK\r\n")[1:]
    found = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [answer["cost_weight"] for answer in found[:-1]] == weights
    assert found[-1] == {"status": "ok"}


def test_a_body_in_chunks(server: Server) -> None:
    body = json.dumps({"text": TEXTS[0]}).encode()
    chunks = b"".join(b"1;extension=x\r\n%c\r\n" % byte for byte in body)
    for end, status in ((b"0\r\n\r\n", 200), (b"0\r\ntrailer: x\r\n\r\n", 200), (b"x\r\n", 400)):
        with socket.create_connection(server.address, timeout=20) as stream:
            stream.sendall(post() + chunks + end)
            head, _, answer = stream.recv(65536).partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert status == 200 or json.loads(answer)["error"]["code"] == "invalid_body"


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nhost: localhost\r\n\r\n",
        post(10).replace(b"content-length: 10", b"content-length: 10\r\ncontent-length: 11"),
        post(10).replace(b"content-length: 10", b"content-length: -1"),
        post(10).replace(b"content-length: 10", b"content-length: 99999999999999999999"),
        post(10).replace(b"content-length: 10", b"transfer-encoding: gzip"),
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx\x00y: z\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
    ids=range(10),
)
def test_heads_that_are_not_http(server: Server, head: bytes) -> None:
    with socket.create_connection(server.address, timeout=20) as stream:
        stream.sendall(head)
        with contextlib.suppress(ConnectionResetError):
            assert read_all(stream)[:10] in (b"", b"HTTP/1.1 4")
    assert call(server, "GET", "/healthz").status == 200


def test_a_client_that_never_reads_is_dropped() -> None:
    """It pipelines requests for long answers, until the service can write no more of them."""
    router = make_router()
    names = [f"{i:0200}" for i in range(300)]
    router.insert(names, [1.0] * 300, [[0.5] * 300] * router.n_clusters)
    asked = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
    limits = {"max_body_bytes": BODY_LIMIT, "max_body_memory_bytes": 150_000}
    with Server(router, port=0, log="off", write_seconds=1.0, **limits) as server:
        length = len(call(server, "GET", "/v1/models").body)
        assert length > 75_000
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.settimeout(20)
        with stream:
            stream.connect(server.address)
            stream.sendall(asked * 200)
            # The answer that waits to be written holds its share of the memory: there is none for
            # another long one, while short ones go on.
            seen = until(lambda: call(server, "GET", "/v1/models"), 503)
            assert seen.code == "busy"
            assert route(server, text=TEXTS[0])["status"] == "ok"
            # Then the time is up, and all is given back.
            assert len(until(lambda: call(server, "GET", "/v1/models"), 200).body) == length
            got = 0
            with contextlib.suppress(ConnectionResetError):
                got = len(read_all(stream))
            assert got < 200 * length


def until(ask: Callable[[], Reply], status: int) -> Reply:
    """Ask until the answer has this status."""
    end = time.monotonic() + 20
    while (reply := ask()).status != status:
        assert time.monotonic() < end, f"{reply.status} for 20 s; expected {status}"
        time.sleep(0.02)
    return reply


def test_long_bodies_share_a_bounded_memory() -> None:
    limits = {"max_body_bytes": BODY_LIMIT, "max_body_memory_bytes": 2 * BODY_LIMIT + 2048}
    with (
        Server(make_router(), port=0, log="off", **limits) as server,
        contextlib.ExitStack() as open_,
    ):
        # What is announced and not sent keeps nothing from others.
        for _ in range(8):
            open_.enter_context(begin(server, BODY_LIMIT))
        big = {"text": "add 1 " * (BODY_LIMIT // 7)}
        assert call(server, "POST", "/v1/route", big).status == 200

        def fill_and_ask() -> Reply:
            for _ in range(2):
                stream = open_.enter_context(begin(server, BODY_LIMIT))
                stream.sendall(b"{" + b" " * (BODY_LIMIT - 2))
            return call(server, "POST", "/v1/route", big)

        reply = until(fill_and_ask, 503)
        assert reply.code == "busy"
        # Short bodies that ask for long answers wait as well.
        reply = call(server, "POST", "/v1/route", {"texts": ["add 1"] * 200, "top": 4})
        assert (reply.status, reply.code) == (503, "busy")
        # Short ones go on.
        assert route(server, text=TEXTS[0])["status"] == "ok"


def begin(server: Server, length: int) -> socket.socket:
    """Begin a request, and return once the service has begun to read its body."""
    stream = socket.create_connection(server.address, timeout=20)
    stream.sendall(
        post(length).replace(b"host: localhost", b"host: localhost\r\nexpect: 100-continue")
    )
    assert stream.recv(65536).startswith(b"HTTP/1.1 100 ")
    return stream


def test_connections_beyond_the_limit_are_told_to_come_back() -> None:
    with Server(make_router(), port=0, log="off", max_connections=8) as server:
        with contextlib.ExitStack() as idle:
            for _ in range(8):
                stream = socket.create_connection(server.address, timeout=20)
                idle.enter_context(stream)
                # Answered, and so let in.
                stream.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")
            with socket.create_connection(server.address, timeout=20) as late:
                assert refusal(read_all(late)) == (503, "too_many_connections")
        # Once they are gone others are let in: it takes the service a moment to notice.
        for _ in range(200):
            with contextlib.suppress(OSError):
                if call(server, "GET", "/healthz").status == 200:
                    break
            time.sleep(0.05)
        metrics = call(server, "GET", "/metrics").body.decode()
        assert re.search(r"^uniroute_connections_refused_total [1-9]", metrics, re.M)
        assert re.search(r"^uniroute_connections [1-8]$", metrics, re.M)


def test_ten_thousand_connections_do_not_fill_the_memory(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count, spare = 10_000, 300
    if hard != resource.RLIM_INFINITY and hard < count + spare:
        pytest.skip(f"the system allows a process {hard} open files; this takes {count + spare}")
    pool, config = tmp_path / "pool.uniroute", tmp_path / "config.json"
    make_router().save(pool)
    config.write_text(json.dumps({"max_connections": count - 1000, "port": 0}))
    command = [sys.executable, "-m", "uniroute_fast.cli", "serve", str(pool)]
    streams: list[socket.socket] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + spare), hard))
    try:
        with subprocess.Popen(
            [*command, "--config", str(config), "--log", "off"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            before = _resident(process.pid)
            for _ in range(count):
                stream = socket.create_connection(("127.0.0.1", port), timeout=20)
                streams.append(stream)
                # Half a request: the service has to keep what came so far. Beyond its limit it has
                # hung up by then.
                with contextlib.suppress(OSError):
                    stream.sendall(b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\n")
            # A client that was let in is served; one that comes late is told to come back.
            body = json.dumps({"text": TEXTS[0]}).encode()
            head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            streams[0].sendall(head + body)
            assert streams[0].recv(65536).startswith(b"HTTP/1.1 200 ")
            assert refusal(read_all(streams[-1])) == (503, "too_many_connections")
            grown = _resident(process.pid) - before
            assert grown < 20_000 * count, f"{grown / count:.0f} bytes a connection"
            for stream in streams:
                stream.close()
            process.terminate()
        assert process.returncode == 0
    finally:
        for stream in streams:
            stream.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_requests_under_way_end_before_the_service_does() -> None:
    body = json.dumps({"text": TEXTS[0]}).encode()
    with Server(make_router(), port=0, log="off") as server:
        stream = begin(server, len(body))
        server.stop()
        waiting = threading.Thread(target=server.wait)
        waiting.start()
        until_refused(server)
        stream.sendall(body)
        answer = read_all(stream)
        stream.close()
        waiting.join()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.wait(0)


def test_a_load_balancer_gets_time_to_take_notice() -> None:
    with Server(make_router(), port=0, log="off", drain_seconds=2.0) as server:
        server.stop()
        while (reply := call(server, "GET", "/readyz")).status == 200:
            pass
        assert reply.code == "not_ready"
        assert route(server, text=TEXTS[0])["status"] == "ok"
        server.wait()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(server.address, timeout=5)


def until_refused(server: Server) -> None:
    """Connect until nobody listens any more."""
    for _ in range(400):
        try:
            socket.create_connection(server.address, timeout=5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    raise AssertionError("it goes on listening")


def _resident(process: int) -> int:
    """Return the bytes of memory that a process has."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS in its status")
