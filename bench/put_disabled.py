"""Decisions while disabled LLMs that would win come and go over HTTP: none may go to them.

    python bench/put_disabled.py --seconds 60

Adds an LLM of loss 0 and cost 0 with ``"enabled": false`` and removes it again, at a fixed rate,
while other clients have prompts routed. Prints how many changes and decisions there were, and how
many decisions went to an LLM that was never to answer; ends with status 1 if any did.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time

import numpy as np

import uniroute_fast as uf
from uniroute_fast.serving import Server

TOKEN = "a-token-of-this-bench-only"
TEXTS = [f"{topic} {n}" for topic in ("add", "river", "poem", "rust") for n in range(25)]


def client(server: Server) -> http.client.HTTPConnection:
    """Return a connection that is kept."""
    return http.client.HTTPConnection(*server.address, timeout=30)


def send(to: http.client.HTTPConnection, method: str, path: str, body: object = None) -> object:
    """Send one request and return the JSON of its answer, which has to be a good one."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    to.request(method, path, None if body is None else json.dumps(body), headers)
    answer = to.getresponse()
    found = answer.read()
    assert answer.status in (200, 201), found
    return json.loads(found)


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0, help="changes a second")
    parser.add_argument("--models", type=int, default=1000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    router = uf.Router.fit(TEXTS, n_clusters=4)
    names = [f"m{m}" for m in range(arguments.models)]
    router.insert(names, rng.random(len(names)), rng.random((router.n_clusters, len(names))))
    decisions, wrong, changes = [0, 0], [0, 0], 0
    end = time.monotonic() + arguments.seconds

    def ask(server: Server, me: int) -> None:
        connection = client(server)
        while time.monotonic() < end:
            got = send(connection, "POST", "/v1/route", {"texts": TEXTS[:20], "cost_weight": 0.1})
            for decision in got["decisions"]:  # type: ignore[index]
                decisions[me] += 1
                wrong[me] += decision["model"].startswith("off")

    with tempfile.NamedTemporaryFile("w") as token:
        token.write(TOKEN)
        token.flush()
        with Server(router, port=0, log="off", admin_token_file=token.name) as server:
            threads = [threading.Thread(target=ask, args=(server, me)) for me in range(2)]
            for thread in threads:
                thread.start()
            put = {"cost": 0.0, "texts": TEXTS[:20], "losses": [0.0] * 20, "enabled": False}
            put["metadata"] = {"tags": ["slow"]}
            connection, began = client(server), time.monotonic()
            while time.monotonic() < end:
                send(connection, "PUT", f"/v1/models/off{changes}", put)
                send(connection, "DELETE", f"/v1/models/off{changes}")
                changes += 2
                time.sleep(max(0.0, began + changes / arguments.rate - time.monotonic()))
            took = time.monotonic() - began
            for thread in threads:
                thread.join()
    print(
        f"{changes} changes in {took:.0f} s ({changes / took:.0f} a second), {sum(decisions)} "
        f"decisions, {sum(wrong)} of them to an LLM that was never to answer"
    )
    return int(sum(wrong) > 0)


if __name__ == "__main__":
    sys.exit(main())
