"""What the service asks of Python: load the artifact again, profile, learn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.profiles.learner import Labels
from uniroute_fast.router import Router

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray


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

    def add(
        self,
        name: str,
        cost: float,
        texts: Sequence[str],
        losses: Sequence[float | None],
        metadata: str,
        enabled: bool,
    ) -> None:
        """Add an LLM, profiled by its outcomes (None = not run), as one new version.

        `metadata` is JSON.
        """
        self._router.add_model(
            name,
            cost=cost,
            texts=texts,
            losses=_column(losses),
            metadata=json.loads(metadata),
            enabled=enabled,
        )

    def profile(self, texts: Sequence[str], losses: Sequence[float | None]) -> list[float]:
        """Return an LLM's expected losses, one a cluster, from its outcomes."""
        labels = Labels.of(["it"], texts, _column(losses)[:, None])
        profile: list[float] = self._router.learner.profile(self._router, labels)[:, 0].tolist()
        return profile

    def hold(self) -> None:
        """Keep the router from learning until `release`, which the same thread calls."""
        self._router.learner.lock.__enter__()

    def release(self, name: str, changed: bool) -> None:
        """End `hold`; if an LLM was changed, forget the outcomes that its profile came from."""
        try:
            if changed:
                self._router.learner.records.remove([name])
        finally:
            self._router.learner.lock.__exit__(None, None, None)

    def observe(
        self,
        prompts: list[str] | list[int],
        models: list[str],
        losses: list[float],
        weights: list[float],
        half_life: float | None,
    ) -> list[bool]:
        """Learn from observed outcomes, as one new version; return which could be used."""
        used = self._router.observe_many(prompts, models, losses, weights, half_life=half_life)
        return [bool(one) for one in used]


def _column(losses: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if loss is None else loss for loss in losses], np.float64)


def _is_own(embedder: object) -> bool:
    from uniroute_fast.embedding.lexical import LexicalEmbedder

    return isinstance(embedder, LexicalEmbedder)
