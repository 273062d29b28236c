"""The decision service under load, on loopback: one core serves, one core asks.

    python bench/serve.py ../shared/data/mmlu_pro [--pools DIR] [--seconds 8] [--minutes 0]

Needs `wrk`. Real prompts, each as its own JSON body; profiles and costs are drawn at random. Prints
decisions a second, the service's computing time for each, and latencies, for one prompt a request
and for 64, for three cluster maps; then,
with the default map, the same while the artifact is reloaded and the pool changed ten times a
second; with --minutes, the service's memory over a longer run. Every answer that is not 2xx, and
every socket error, is counted. With --pools the fitted pools are kept there for the next run;
--seconds 0 only fits them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets

TOKEN = "a-token-for-the-bench-only"

#: Makes wrk send the bodies of a file in turn, and print what it measured as JSON.
SCRIPT = """
local bodies, at = {}, 0
local headers = {["content-type"] = "application/json", ["Host"] = "127.0.0.1"}
for line in io.lines("%s") do
  bodies[#bodies + 1] = wrk.format("POST", "/v1/route", headers, line)
end
request = function()
  at = at %% #bodies + 1
  return bodies[at]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %%d, "us": %%d, "failed": %%d, "p50": %%d, "p99": %%d, "max": %%d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


MAPS = ("hard map, K 64", "soft map, K 64", "soft map, default")


def make_pools(outcomes: datasets.Dataset, models: int, out: Path) -> None:
    """Fit three routers, give each the same number of LLMs and save them."""
    texts = list(outcomes.texts)
    block = outcomes.complete_block()
    seen = uf.Outcomes((1 - block.scores)[:, ::2], costs=block.costs[::2])
    embedder = uf.LexicalEmbedder.fit(texts)
    routers = (
        uf.Router.fit(texts, embedder=embedder, n_clusters=64),
        uf.Router.fit(block.texts, embedder=embedder, n_clusters=64, seen=seen),
        uf.Router.fit(block.texts, embedder=embedder, seen=seen),
    )
    rng = np.random.default_rng(0)
    names = [f"llm-{i}" for i in range(models)]
    for name, router in zip(MAPS, routers, strict=True):
        shape = (router.n_clusters, models)
        router.insert(names, rng.random(models), rng.random(shape, dtype=np.float32))
        router.save(out / f"{name}.uniroute")


@contextlib.contextmanager
def serving(
    pool: Path, folder: Path, core: str, watch_seconds: float = 1.0
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Serve a pool on one core; give the port and the process."""
    token = folder / "token"
    token.write_text(TOKEN)
    config = folder / "config.json"
    config.write_text(json.dumps({"watch_seconds": watch_seconds}))
    command = ["taskset", "-c", core, sys.executable, "-m", "uniroute_fast.cli", "serve"]
    options = ["--port", "0", "--workers", "1", "--log", "warn"]
    options += ["--admin-token-file", str(token), "--config", str(config)]
    with subprocess.Popen(
        [*command, str(pool), *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            yield port, process
        finally:
            process.terminate()


def load(
    port: int, bodies: Path, seconds: float, connections: int, folder: Path, core: str
) -> dict:
    """Run wrk on one core for a while."""
    script = folder / "wrk.lua"
    script.write_text(SCRIPT % bodies)
    pinned = ["taskset", "-c", core]
    wrk = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--timeout",
        "10s",
        "-s",
        str(script),
    ]
    done = subprocess.run(
        [*pinned, *wrk, f"http://127.0.0.1:{port}"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def memory_mib(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+)", status)
    return int(match[1]) / 1024 if match else float("nan")


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Return the time that a process has computed, its own and the system's for it."""
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    what: str, process: subprocess.Popen[str], prompts: int, load: Callable[[], dict]
) -> None:
    """Run a load and print what came of it: a row of the table."""
    before = cpu_seconds(process)
    found = load()
    decisions = prompts * found["requests"]
    print(
        f"{what:34}{decisions / found['us'] * 1e6:14,.0f}"
        f"{(cpu_seconds(process) - before) / decisions * 1e6:9.2f}"
        f"{found['p50'] / 1e3:9.2f}{found['p99'] / 1e3:9.2f}"
        f"{found['max'] / 1e3:9.2f}{found['failed']:8}",
        flush=True,
    )


def churn(port: int, pool: Path, stop: threading.Event, done: dict[str, int]) -> None:
    """Replace the artifact and change a model, each ten times a second."""
    copies = pool.read_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    while not stop.wait(0.1):
        beside = pool.with_suffix(".next")
        beside.write_bytes(copies)
        beside.replace(pool)
        done["replaced"] += 1
        body = json.dumps({"cost": 0.1 + done["changed"] % 7})
        connection.request("PATCH", "/v1/models/llm-1", body, headers)
        answer = connection.getresponse()
        answer.read()
        done["changed"] += answer.status == 200


def reloads(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    match = re.search(r'uniroute_reloads_total\{outcome="ok"\} (\d+)', text)
    return int(match[1]) if match else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--pools", type=Path)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--cores", default="0,1", help="of the service and of its client")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(arguments, Path(name))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    outcomes = datasets.load(arguments.folder)
    texts = list(outcomes.texts)
    pools = arguments.pools or folder
    pools.mkdir(exist_ok=True)
    paths = {name: pools / f"{name}.uniroute" for name in MAPS}
    if not all(path.exists() for path in paths.values()):
        make_pools(outcomes, arguments.models, pools)
    ask = {"cost_weight": 0.1}
    one, many = folder / "one.jsonl", folder / "many.jsonl"
    one.write_text("".join(json.dumps({"text": t, **ask}) + "\n" for t in texts))
    batches = [texts[i : i + 64] for i in range(0, len(texts) - 63, 64)]
    many.write_text("".join(json.dumps({"texts": b, **ask}) + "\n" for b in batches))
    mean = np.mean([len(text.encode()) for text in texts])
    server, client = arguments.cores.split(",")
    seconds, connections = arguments.seconds, arguments.connections
    if seconds:
        print(f"{len(texts):,} prompts of {mean:.0f} bytes on average, {arguments.models:,} LLMs")
        columns = f"{'CPU us':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'failed':>8}"
        print(f"{'':34}{'decisions/s':>14}{columns}")
        for name, pool in paths.items():
            with serving(pool, folder, server) as (port, process):
                ask_one = partial(load, port, one, seconds, connections, folder, client)
                ask_many = partial(load, port, many, seconds, 4, folder, client)
                load(port, one, 1, connections, folder, client)
                measure(f"{name}, one", process, 1, ask_one)
                measure(f"{name}, 64", process, 64, ask_many)
        changing = folder / "changing.uniroute"
        changing.write_bytes(paths[MAPS[-1]].read_bytes())
        with serving(changing, folder, server, watch_seconds=0.1) as (port, process):
            load(port, one, 1, connections, folder, client)
            stop, done = threading.Event(), {"replaced": 0, "changed": 0}
            thread = threading.Thread(target=churn, args=(port, changing, stop, done))
            thread.start()
            ask_one = partial(load, port, one, seconds, connections, folder, client)
            measure(f"{MAPS[-1]}, one, changing", process, 1, ask_one)
            stop.set()
            thread.join()
            print(
                f"  {done['replaced']} artifacts put in place, {reloads(port)} reloaded, "
                f"{done['changed']} models changed"
            )
    if arguments.minutes:
        with serving(paths[MAPS[-1]], folder, server) as (port, process):
            load(port, one, 5, connections, folder, client)
            print("minutes    MiB")
            for minute in np.arange(0, arguments.minutes + 0.5, 0.5):
                print(f"{minute:7.1f}{memory_mib(process):8.1f}", flush=True)
                load(port, one, 30, connections, folder, client)


if __name__ == "__main__":
    main()
