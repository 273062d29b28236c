"""Which LLM should answer this prompt: UniRoute at the speed of the hardware."""

from __future__ import annotations

from uniroute_fast import errors
from uniroute_fast._native import (
    Alternative,
    Change,
    Constraints,
    Decision,
    Decisions,
    DriftReport,
    Exclusion,
    ModelInfo,
    PackedPool,
    Snapshot,
    __version__,
    get_num_threads,
    set_num_threads,
)
from uniroute_fast._versions import show_versions, warn_if_debug_build
from uniroute_fast.cascade import Cascade
from uniroute_fast.centroids import Centroids, nearest_centroid
from uniroute_fast.chat import chat_text
from uniroute_fast.embedders import (
    LexicalEmbedder,
    OpenAIEmbedder,
    SentenceTransformerEmbedder,
)
from uniroute_fast.exploration import Comparison, Exploration, Explorer
from uniroute_fast.outcomes import Outcomes
from uniroute_fast.pacing import BudgetPacer
from uniroute_fast.router import Router
from uniroute_fast.spending import SpendingPlan

__all__ = [
    "Alternative",
    "BudgetPacer",
    "Cascade",
    "Centroids",
    "Change",
    "Comparison",
    "Constraints",
    "Decision",
    "Decisions",
    "DriftReport",
    "Exclusion",
    "Exploration",
    "Explorer",
    "LexicalEmbedder",
    "ModelInfo",
    "OpenAIEmbedder",
    "Outcomes",
    "PackedPool",
    "Router",
    "SentenceTransformerEmbedder",
    "Snapshot",
    "SpendingPlan",
    "__version__",
    "chat_text",
    "errors",
    "get_num_threads",
    "nearest_centroid",
    "set_num_threads",
    "show_versions",
]

warn_if_debug_build()
