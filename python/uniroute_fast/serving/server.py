"""The decision service, started from Python."""

from __future__ import annotations

import atexit
import json
import os
import socket
import stat
import weakref
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast import _native
from uniroute_fast.errors import ArgumentTypeError, UniRouteError
from uniroute_fast.router import Router
from uniroute_fast.serving.keeper import Keeper

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Server:
    """A router as a decision service over HTTP, on threads of its own.

    Decisions are made in Rust and never hold the GIL. Python may go on with other things, and
    change the router: requests see the change at once.

    Parameters
    ----------
    router : Router
    artifact : path, optional
        The file that the router came from: loaded again when it changes and on `reload`.
    config : path, optional
        Settings in TOML, or in JSON where the name ends in ``.json``.
    **settings
        Override those of `config`: ``host``, ``port`` (0 takes a free one), ``workers``,
        ``admin_token_file``, ``policies`` and the others of the serving page.

    Raises
    ------
    InvalidArgumentError, ArgumentTypeError
        A setting that is unknown or cannot be used.
    ArtifactError, ArtifactIOError
        Settings or tokens that cannot be read, a port that cannot be had.

    Notes
    -----
    In a forked child it has ended, and its port is closed: fork first, then start.

    Examples
    --------
    >>> import json, urllib.request
    >>> import numpy as np, uniroute_fast as uf
    >>> from uniroute_fast.serving import Server
    >>> texts = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10
    >>> router = uf.Router.fit(texts, n_clusters=2)
    >>> router.add_model("small", cost=1.0, texts=texts, losses=np.full(40, 0.5))
    >>> with Server(router, port=0, log="error") as server:
    ...     request = urllib.request.Request(
    ...         server.url + "/v1/route",
    ...         json.dumps({"text": "5 * 3"}).encode(),
    ...         {"content-type": "application/json"},
    ...     )
    ...     json.load(urllib.request.urlopen(request))["model"]
    'small'
    """

    def __init__(
        self,
        router: Router,
        *,
        artifact: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        if not hasattr(_native, "Server"):
            raise UniRouteError(
                "Server: not part of this build, as on Windows; expected one with the feature "
                "`serve`, on Linux or macOS"
            )
        if not isinstance(router, Router):
            raise ArgumentTypeError(f"router: a {type(router).__name__}; expected a Router")
        try:
            chosen = json.dumps(settings, default=os.fspath, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(f"settings: {error}; expected values that JSON has") from None
        self._native = _native.Server(router, Keeper(router, artifact), chosen, config, artifact)
        _all.add(self)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        return self._native.address

    @property
    def url(self) -> str:
        """Where it is reached, such as ``http://127.0.0.1:8080``."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def reload(self) -> None:
        """Ask it to load the artifact again. What cannot be loaded leaves all as it was."""
        self._native.reload()

    def stop(self) -> None:
        """Ask it to stop: no new connections, an end once the requests under way are answered."""
        self._native.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end, for so many seconds at most; return whether it has ended."""
        return self._native.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it and wait for its end."""
        self.stop()
        self.wait()


#: Every service of this process that is still there.
_all: weakref.WeakSet[Server] = weakref.WeakSet()


def _stop_all() -> None:
    """End all services before the interpreter goes, for their threads may call Python."""
    running = list(_all)
    for server in running:
        server.stop()
    for server in running:
        server.wait()


def _leave_sockets() -> None:
    """Close what a forked child has inherited of the services' sockets; the parent has its own.

    A port would stay taken, and clients would not see that their connection is closed.
    """
    places = {server.address for server in _all if server._native.listening}
    folders = (Path("/proc/self/fd"), Path("/dev/fd"))
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if not places or folder is None:
        return
    for number in [int(entry.name) for entry in folder.iterdir()]:
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                own = found.family in (socket.AF_INET, socket.AF_INET6)
                own = own and found.type == socket.SOCK_STREAM
                own = own and any(_is_at(found.getsockname(), place) for place in places)
            if own:
                os.close(number)
        except OSError:
            # The list's own descriptor, closed by now.
            continue


def _is_at(name: tuple[Any, ...], place: tuple[str, int]) -> bool:
    """Return whether a socket is on a service's port: it listens there, or was accepted there."""
    host, port = place
    return name[1] == port and (name[0] == host or ip_address(host).is_unspecified)


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_sockets)
