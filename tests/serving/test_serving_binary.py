"""The service without Python answers as the one that Python starts, and is as well behaved."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import uniroute_fast as uf
from serving import TEXTS, TOKEN, call, make_router, route
from uniroute_fast.serving import Server

ROOT = Path(__file__).parents[2]
CONFIG = """
[policies.thrifty]
cost_weight = 0.5
[policies.tight.constraints]
max_cost = 2.5
deny = ["odd*"]
"""


@pytest.fixture(scope="module")
def binary() -> Path:
    """The binary: named by the environment, or built."""
    if given := os.environ.get("UNIROUTE_SERVER"):
        return Path(given)
    built = ROOT / "target/debug/uniroute-server"
    if shutil.which("cargo"):
        # With the features of the workspace, as its tests have them, so that little is built twice.
        build = ["cargo", "build", "--quiet", "--workspace", "--bin", "uniroute-server"]
        subprocess.run(build, cwd=ROOT, check=True)
    elif not built.exists():
        pytest.skip("uniroute-server is not built, and there is no cargo to build it with")
    return built


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "config.toml").write_text(CONFIG)
    make_router().save(tmp_path / "pool.uniroute")
    return tmp_path / "pool.uniroute"


@dataclass
class Served:
    """The binary, running."""

    process: subprocess.Popen[str]
    address: tuple[str, int]


@contextmanager
def served(binary: Path, pool: Path, *more: str) -> Iterator[Served]:
    command = [binary, pool, "--port", "0", "--log", "error", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().rpartition("http://")[2].strip().rpartition(":")
        yield Served(process, (host, int(port)))
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_same_requests_have_the_same_answers(binary: Path, pool: Path) -> None:
    token, config = pool.with_name("token"), pool.with_name("config.toml")
    flags = ("--admin-token-file", str(token), "--config", str(config))
    settings = {"port": 0, "log": "off", "admin_token_file": token, "config": config}
    lines = Path(__file__).with_name("requests.jsonl").read_text("utf-8").splitlines()
    with (
        served(binary, pool, *flags) as native,
        Server(uf.Router.load(pool), artifact=pool, **settings) as python,
    ):
        for line in lines:
            asked = json.loads(line)
            needs_python = asked.pop("needs_python", False)
            asked["token"] = TOKEN if asked.pop("admin", False) else None
            got = call(native, **asked)
            if needs_python:
                assert (got.status, got.code) == (501, "needs_python"), line
                continue
            expected = call(python, **asked)
            assert (got.status, got.body) == (expected.status, expected.body), line
            assert got.headers["content-type"] == expected.headers["content-type"]


def test_it_reloads_on_a_signal_and_ends_on_one(binary: Path, pool: Path) -> None:
    config = pool.with_name("config.toml")
    config.write_text("watch_seconds = 0")
    with served(binary, pool, "--config", str(config)) as native:
        before = route(native, text=TEXTS[0])["version"]
        router = uf.Router.load(pool)
        router.set_cost("small", 0.25)
        router.save(pool)
        native.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while route(native, text=TEXTS[0])["version"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert call(native, "GET", "/v1/models/small").json["cost"] == 0.25
        native.process.send_signal(signal.SIGINT)
        assert native.process.wait(20) == 0


def test_bad_input_is_one_line_and_a_status(binary: Path, pool: Path) -> None:
    (pool.with_name("bad.toml")).write_text("prot = 1\nport = 2")
    (pool.with_name("broken.toml")).write_text("port = = 2")
    for flags, said in [
        ([], "<POOL>"),
        ([pool.with_name("none")], "none"),
        ([pool.with_name("token")], "token"),
        ([pool, "--prot", "1"], "--prot"),
        ([pool, "--port", "99999"], "99999"),
        ([pool, "--log", "loud"], "loud"),
        ([pool, "--cost-weight=-1"], "cost_weight"),
        ([pool, "--host", "no.such.host.invalid"], "no.such.host.invalid"),
        ([pool, "--config", pool.with_name("bad.toml")], "prot"),
        ([pool, "--config", pool.with_name("broken.toml")], "broken.toml"),
        ([pool, "--admin-token-file", pool.with_name("none")], "none"),
    ]:
        done = subprocess.run([binary, *flags], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout) == (2, ""), flags
        assert done.stderr.startswith("uniroute-server: "), flags
        assert done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr, done.stderr
    for flag, said in (("--help", "--admin-token-file"), ("--version", uf.__version__)):
        done = subprocess.run([binary, flag], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout
