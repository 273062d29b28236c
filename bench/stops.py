"""Requests that are lost when the service is stopped under load.

    python bench/stops.py [--stops 20] [--clients 64]

Clients with kept-alive connections ask without pause, and look before each request whether the
service has closed the connection, as careful clients do. After a moment the service gets SIGTERM.
There are so many stops with ``drain_seconds`` 0, and as many with 1.5. Prints how many clients lost
a request and how many were asked to close; ends with status 1 if any was lost.
"""

from __future__ import annotations

import argparse
import http.client
import json
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import uniroute_fast as uf

TEXTS = [f"{topic} {n}" for topic in ("add", "river", "poem", "rust") for n in range(25)]
HEADERS = {"content-type": "application/json"}


class Client(threading.Thread):
    """Asks until it is asked to close, or a request is lost."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.connect()
        self.answered, self.lost, self.asked_to_close = 0, False, False

    def run(self) -> None:
        """Ask."""
        while not self.asked_to_close:
            if select.select([self.connection.sock], [], [], 0)[0]:
                return  # Closed while idle.
            try:
                self.connection.request("POST", "/v1/route", '{"text": "add 1"}', HEADERS)
                answer = self.connection.getresponse()
                answer.read()
            except (http.client.HTTPException, OSError):
                self.lost = True
                return
            self.answered += 1
            self.asked_to_close = answer.getheader("connection") == "close"


def stop_once(folder: Path, clients: int, drain: float) -> tuple[list[Client], float]:
    """Start a service, stop it under load; return the clients and how long the stop took."""
    config = folder / "config.json"
    config.write_text(json.dumps({"port": 0, "drain_seconds": drain, "log": "off"}))
    command = [sys.executable, "-m", "uniroute_fast.cli", "serve", str(folder / "pool")]
    with subprocess.Popen(
        [*command, "--config", str(config)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        threads = [Client(port) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        process.terminate()
        began = time.monotonic()
        process.wait(30)
        took = time.monotonic() - began
        for thread in threads:
            thread.join()
    return threads, took


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    router = uf.Router.fit(TEXTS, n_clusters=4)
    losses = np.random.default_rng(0).random((router.n_clusters, 3))
    router.insert(["small", "middle", "large"], [1.0, 3.0, 9.0], losses)
    lost_in_all = 0
    with tempfile.TemporaryDirectory() as folder:
        router.save(Path(folder) / "pool")
        for drain in (0.0, 1.5):
            stops = [
                stop_once(Path(folder), arguments.clients, drain) for _ in range(arguments.stops)
            ]
            clients = [client for threads, _ in stops for client in threads]
            lost = sum(client.lost for client in clients)
            closed = sum(client.asked_to_close for client in clients)
            lost_in_all += lost
            longest = max(took for _, took in stops)
            print(
                f"drain_seconds {drain}: {len(stops)} stops, {len(clients)} clients, "
                f"{sum(client.answered for client in clients)} answers, {lost} requests lost, "
                f"{closed} clients asked to close, the longest stop {longest:.2f} s"
            )
    return int(lost_in_all > 0)


if __name__ == "__main__":
    sys.exit(main())
