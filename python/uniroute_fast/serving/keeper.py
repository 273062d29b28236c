"""What the service asks of Python: load the artifact again, profile, learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.router import Router

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


class Keeper:
    """Keeps a router up for the service, which calls this from threads of its own.

    Parameters
    ----------
    router : Router
    artifact : path, optional
        The file that `reload` loads.
    """

    def __init__(self, router: Router, artifact: str | os.PathLike[str] | None) -> None:
        self._router = router
        self._artifact = artifact

    def reload(self) -> None:
        """Put what the artifact holds now in place of what routes; without one, do nothing."""
        if self._artifact is None:
            return
        # An embedder of this package's own is in the file.
        embedder = self._router.embedder
        foreign = None if embedder is None or _is_own(embedder) else embedder
        self._router.replace(Router.load(self._artifact, embedder=foreign))

    def profile(self, texts: Sequence[str], losses: Sequence[float | None]) -> list[float]:
        """Return an LLM's expected losses, one a cluster, from its outcomes; None = not run."""
        fitted = Router(self._router.embedder, self._router.heads())
        fitted._profiler = self._router._profiler
        column = np.array([np.nan if loss is None else loss for loss in losses], np.float64)
        fitted.add_model("it", cost=0.0, texts=texts, losses=column)
        profile: list[float] = fitted.profiles[:, 0].tolist()
        return profile

    def observe(self, body: bytes) -> str:
        """Learn from an observed outcome."""
        raise InvalidArgumentError("observe: this router does not learn from outcomes")


def _is_own(embedder: object) -> bool:
    from uniroute_fast.embedders import LexicalEmbedder

    return isinstance(embedder, LexicalEmbedder)
