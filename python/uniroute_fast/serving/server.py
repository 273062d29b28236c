"""The decision service, started from Python."""

from __future__ import annotations

import atexit
import json
import os
import weakref
from typing import TYPE_CHECKING, Any

from uniroute_fast import _native
from uniroute_fast.errors import ArgumentTypeError
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
    A forked child has no service: fork first, then start.

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
        if not isinstance(router, Router):
            raise ArgumentTypeError(f"router: a {type(router).__name__}; expected a Router")
        try:
            chosen = json.dumps(settings, default=os.fspath, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(f"settings: {error}; expected values that JSON has") from None
        self._native = _native.Server(router, Keeper(router, artifact), chosen, config, artifact)
        _stop_at_exit(self)

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


def _stop_at_exit(server: Server) -> None:
    """End the service before the interpreter goes, for its threads may call Python."""
    known = weakref.ref(server)

    def stop() -> None:
        running = known()
        if running is not None:
            running.stop()
            running.wait()

    atexit.register(stop)
