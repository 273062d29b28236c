"""Serve decisions over HTTP: text in, model out.

POST /v1/route takes a text, a list of texts or a chat; / shows a page, /openapi.json says the rest.
The pool is loaded again when its file changes, and on SIGHUP; SIGTERM and Ctrl-C stop the service
once the requests under way are answered. Routes that change something are closed without
--admin-token-file. Other settings come from --config.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from uniroute_fast._native import legible
from uniroute_fast.cli.pool import add_pool, load_pool

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_pool(parser)
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (8080)")
    parser.add_argument("--workers", type=int, help="threads that answer (default: one a core)")
    parser.add_argument(
        "--cost-weight",
        type=float,
        metavar="L",
        help="of requests that name neither one nor a policy (default: 0, quality alone)",
    )
    parser.add_argument(
        "--admin-token-file", metavar="FILE", help="bearer token of the routes that change things"
    )
    parser.add_argument(
        "--client-token-file", metavar="FILE", help="bearer token without which nothing is routed"
    )
    parser.add_argument(
        "--upstreams",
        metavar="FILE",
        help="where /v1/chat/completions passes chats on to: TOML, or .json",
    )
    parser.add_argument("--config", metavar="FILE", help="all settings: TOML, or .json")
    parser.add_argument(
        "--log", choices=("off", "error", "warn", "info", "debug"), help="default: info"
    )


SETTINGS = (
    "host", "port", "workers", "cost_weight", "admin_token_file", "client_token_file", "log",
    "upstreams_file",
)  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Serve until told to stop."""
    from uniroute_fast.serving import Server

    args.upstreams_file = args.upstreams
    given = {name: getattr(args, name) for name in SETTINGS}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _raise_file_limit()
    _give_back_what_is_freed()
    server = Server(load_pool(args), artifact=args.pool, config=args.config, **settings)
    print(legible(f"serving {args.pool} on {server.url}"), flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: server.reload())
    server.wait()


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets this process have: each connection is one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_back_what_is_freed() -> None:
    """Have glibc return the memory of large bodies and answers as soon as they are gone.

    By itself it learns from the first of them to keep such blocks, in every thread's own heap: a
    service whose bodies take 16 MiB together then holds 100.
    """
    import ctypes

    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # Another C library.
        return
    trim_threshold, mmap_threshold = -1, -3
    for option in (trim_threshold, mmap_threshold):
        set_option(option, 128 << 10)
