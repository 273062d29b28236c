"""What the service asks of Python: load the artifact again, profile, learn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.errors import InvalidArgumentError
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
        self, name: str, cost: float, texts: Sequence[str], losses: Sequence[float | None]
    ) -> None:
        """Add an LLM, profiled by its outcomes; None = not run."""
        self._router.add_model(name, cost=cost, texts=texts, losses=_column(losses))

    def profile(self, texts: Sequence[str], losses: Sequence[float | None]) -> list[float]:
        """Return an LLM's expected losses, one a cluster, from its outcomes."""
        fitted = Router(self._router.embedder, self._router.heads())
        fitted._profiler = self._router._profiler
        fitted.add_model("it", cost=0.0, texts=texts, losses=_column(losses))
        profile: list[float] = fitted.profiles[:, 0].tolist()
        return profile

    def hold(self) -> None:
        """Keep the router from learning until `release`, which the same thread calls."""
        self._router._lock.__enter__()

    def release(self, name: str, changed: bool) -> None:
        """End `hold`; if an LLM was changed, forget the outcomes that its profile came from."""
        if changed:
            self._router._records.remove([name])
        self._router._lock.__exit__(None, None, None)

    def observe(self, body: bytes) -> str:
        """Learn from observed outcomes, as one new version.

        Parameters
        ----------
        body : bytes
            JSON: one outcome, or a list of them under ``observations``; each with ``model``,
            ``loss``, either ``text`` or ``cluster``, and optionally ``weight``. ``half_life`` may
            stand beside them.

        Returns
        -------
        str
            JSON: ``used``, one bool an outcome, and ``version``.
        """
        try:
            asked = json.loads(body)
        except ValueError as error:
            raise InvalidArgumentError(f"body: {error}; expected JSON") from None
        if not isinstance(asked, dict):
            raise InvalidArgumentError("body: expected an object")
        half_life = asked.pop("half_life", None)
        outcomes = asked.pop("observations", None)
        if outcomes is None:
            outcomes, asked = [asked], {}
        if asked or not isinstance(outcomes, list):
            raise InvalidArgumentError(
                f"body: fields {sorted(asked)}; expected one outcome, or a list as observations"
            )
        prompts, models, losses, weights = _columns(outcomes)
        if half_life is not None and not isinstance(half_life, (int, float)):
            raise InvalidArgumentError(f"half_life: {half_life!r}; expected a number above 0")
        used = self._router.observe_many(prompts, models, losses, weights, half_life=half_life)
        return json.dumps({"used": used.tolist(), "version": self._router.version})


#: Fields of an outcome, and what each may be.
FIELDS: dict[str, Any] = {
    "text": str,
    "cluster": int,
    "model": str,
    "loss": (int, float),
    "weight": (int, float),
}


def _columns(outcomes: list[Any]) -> tuple[list[Any], list[str], list[float], list[float]]:
    """Return prompts, models, losses and weights of some outcomes."""
    for i, outcome in enumerate(outcomes):
        if not isinstance(outcome, dict):
            raise InvalidArgumentError(f"observations[{i}]: expected an object")
        for name, value in outcome.items():
            kind = FIELDS.get(name)
            if kind is None or not isinstance(value, kind) or isinstance(value, bool):
                raise InvalidArgumentError(
                    f"observations[{i}].{name}: {value!r}; expected model, loss, text or cluster, "
                    "and weight"
                )
        if not {"model", "loss"} <= set(outcome):
            raise InvalidArgumentError(f"observations[{i}]: expected model and loss")
    kinds = [("text" in outcome, "cluster" in outcome) for outcome in outcomes]
    if len(set(kinds)) > 1 or not set(kinds) <= {(True, False), (False, True)}:
        raise InvalidArgumentError("observations: expected a text each, or a cluster each")
    prompts = [outcome["text" if "text" in outcome else "cluster"] for outcome in outcomes]
    return (
        prompts,
        [outcome["model"] for outcome in outcomes],
        [outcome["loss"] for outcome in outcomes],
        [outcome.get("weight", 1.0) for outcome in outcomes],
    )


def _column(losses: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if loss is None else loss for loss in losses], np.float64)


def _is_own(embedder: object) -> bool:
    from uniroute_fast.embedders import LexicalEmbedder

    return isinstance(embedder, LexicalEmbedder)
