"""Which LLM should answer this prompt: UniRoute at the speed of the hardware."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from uniroute_fast import _native, errors
from uniroute_fast._checks.extras import importing
from uniroute_fast._native import (
    Constraints,
    Decision,
    Decisions,
    DriftReport,
    ModelInfo,
    Prompts,
    Snapshot,
    __version__,
    get_num_threads,
    set_num_threads,
)
from uniroute_fast._versions import show_versions, warn_if_debug_build
from uniroute_fast.clusters.nearest import Centroids, nearest_centroid
from uniroute_fast.costs.pacing import BudgetPacer
from uniroute_fast.costs.plan import SpendingPlan
from uniroute_fast.decisions.cascade import Cascade
from uniroute_fast.decisions.explore import Explorer
from uniroute_fast.embedding.chat import chat_text
from uniroute_fast.embedding.external import OpenAIEmbedder, SentenceTransformerEmbedder
from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.profiles.outcomes import Outcomes
from uniroute_fast.router import Router

if TYPE_CHECKING:
    from uniroute_fast import batch, datasets, evaluate, integrations, serving

__all__ = [
    "BudgetPacer",
    "Cascade",
    "Centroids",
    "Constraints",
    "Decision",
    "Decisions",
    "DriftReport",
    "Explorer",
    "LexicalEmbedder",
    "ModelInfo",
    "OpenAIEmbedder",
    "Outcomes",
    "Prompts",
    "Router",
    "SentenceTransformerEmbedder",
    "Snapshot",
    "SpendingPlan",
    "__version__",
    "batch",
    "chat_text",
    "datasets",
    "errors",
    "evaluate",
    "get_num_threads",
    "integrations",
    "nearest_centroid",
    "serving",
    "set_num_threads",
    "show_versions",
]

_ROOMS = ("batch", "datasets", "evaluate", "integrations", "serving")


def __getattr__(name: str) -> Any:
    """Import what serving does not need when it is first asked for, as ``uf.evaluate``."""
    if name in _ROOMS:
        with importing:
            return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})


_native.isa()  # Refuses to go on where UNIROUTE_ISA cannot be honoured.
warn_if_debug_build()
