"""What the service asks of Python: load the artifact again, profile, learn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from uniroute_fast.arguments import as_number, shown
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
        if "observations" in asked:
            outcomes, single = asked.pop("observations"), False
            if asked:
                raise InvalidArgumentError(
                    f"{min(asked)}: no such field; expected observations and half_life"
                )
            if not isinstance(outcomes, list):
                raise InvalidArgumentError("observations: expected a list")
        else:
            outcomes, single = [asked], True
        if half_life is not None:
            half_life = as_number("half_life", half_life, 0, above=True)
        prompts, models, losses, weights = _columns(outcomes, single)
        used = self._router.observe_many(prompts, models, losses, weights, half_life=half_life)
        return json.dumps({"used": used.tolist(), "version": self._router.version})


#: Fields of an outcome: what each may be, and in words.
FIELDS: dict[str, tuple[Any, str]] = {
    "text": (str, "a string"),
    "cluster": (int, "an integer"),
    "model": (str, "the name of a model"),
    "loss": ((int, float), "a number, 0 to 1"),
    "weight": ((int, float), "a number above 0"),
}


def _columns(
    outcomes: list[Any], single: bool
) -> tuple[list[Any], list[str], list[float], list[float]]:
    """Return prompts, models, losses and weights of some outcomes; a single one has no index."""
    for i, outcome in enumerate(outcomes):
        place = "" if single else f"observations[{i}]"
        prefix = "" if single else f"{place}."
        if not isinstance(outcome, dict):
            raise InvalidArgumentError(f"{place}: expected an object")
        for name, value in outcome.items():
            if name not in FIELDS:
                raise InvalidArgumentError(
                    f"{prefix}{name}: no such field; expected model, loss, text or cluster, and "
                    "weight"
                )
            kind, expected = FIELDS[name]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InvalidArgumentError(
                    f"{prefix}{name}: {shown(json.dumps(value))}; expected {expected}"
                )
        for name in ("model", "loss"):
            if name not in outcome:
                raise InvalidArgumentError(f"{prefix}{name}: missing; expected {FIELDS[name][1]}")
        if ("text" in outcome) == ("cluster" in outcome):
            raise InvalidArgumentError(f"{prefix}text: expected exactly one of text and cluster")
    if len({"text" in outcome for outcome in outcomes}) > 1:
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
