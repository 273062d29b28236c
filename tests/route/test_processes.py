"""A preloaded router in forked workers with threads, and exits that leave work under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = """
import os, signal, sys, threading, time
import numpy as np
import uniroute_fast as uf

uf.set_num_threads(4)
rng = np.random.default_rng(0)
router = uf.Router(None, [("nearest", rng.normal(size=(32, 8)).astype(np.float32))])
names = [f"m{i}" for i in range(2000)]
router.insert(names, rng.random(2000), rng.random((32, 2000)))
x = rng.normal(size=(5000, 8)).astype(np.float32)
router.set_baseline(embeddings=x)
expected = router.route_batch(embeddings=x, cost_weight=0.3).index
"""

WORKERS = """
def serve(wrong):
    for _ in range(5):
        wrong.append((router.route_batch(embeddings=x, cost_weight=0.3).index != expected).sum())
        wrong.append(router.route(embeddings=x[0], cost_weight=0.3).index != expected[0])
        router.drift()

warm = [threading.Thread(target=serve, args=([],)) for _ in range(2)]
for thread in warm:
    thread.start()
for thread in warm:
    thread.join()
children = []
for n in range(6):
    router.set_cost(f"m{n}", float(router.costs[n]))
    child = os.fork()
    if child == 0:
        wrong = []
        threads = [threading.Thread(target=serve, args=(wrong,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        router.snapshot().route_batch(embeddings=x)
        for thread in threads:
            thread.join()
        sys.exit(int(len(wrong) != 30 or any(wrong)))
    children.append(child)
serve([])  # this process goes on beside its workers
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(int(codes != [0] * 6))
"""

BUSY = """
def route():
    while True:
        router.route_batch(embeddings=x, cost_weight=0.3)
        router.route(embeddings=x[0], cost_weight=0.3)

def write():
    while True:
        router.set_profiles(["m0", "m1"], router.profiles[:, :2])  # all hulls are built anew

for job in (route, route, write):
    threading.Thread(target=job, daemon=True).start()
time.sleep(0.1)
codes = []
for _ in range(150):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # a child that waits for ever is one that failed
        right = []
        def serve():
            found = router.route_batch(embeddings=x, cost_weight=0.3).index
            right.append((found == expected).all())
        threads = [threading.Thread(target=serve) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        router.set_cost("m3", float(router.costs[3]))
        os._exit(int(right != [True] * 3))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.exit(int(any(codes)))
"""

UNDER_WAY = """
for _ in range(3):
    threading.Thread(
        target=lambda: [router.route_batch(embeddings=x) for _ in range(10**6)], daemon=True
    ).start()
time.sleep(0.1)
sys.exit(0)
"""

GUNICORN = """
def app(environ, start_response):
    wrong = int((router.route_batch(embeddings=x, cost_weight=0.3).index != expected).sum())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(wrong).encode()]
"""


def run(script: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SETUP + script]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_workers_forked_from_a_preloaded_process_route_on_all_threads() -> None:
    run(WORKERS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_workers_forked_while_others_route_and_write_find_nothing_half_done() -> None:
    run(BUSY)


def test_a_process_exits_while_its_threads_route() -> None:
    run(UNDER_WAY)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_gunicorn_with_preload_serves_and_stops(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    import http.client
    import socket
    import time

    (tmp_path / "service.py").write_text(SETUP + GUNICORN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--threads", "4",
         "--bind", f"127.0.0.1:{port}", "service:app"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        answers = []
        while len(answers) < 40:
            assert time.monotonic() < deadline, "the workers do not answer"
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", "/")
                answers.append(connection.getresponse().read())
            except ConnectionRefusedError:
                time.sleep(0.1)
            finally:
                connection.close()
        assert answers == [b"0"] * 40
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
        server.wait()
