"""Decisions: what comes back with them, what stands behind them, and other ways to take them."""

from uniroute_fast._native import Alternative, Change, Exclusion, PackedPool
from uniroute_fast.decisions.explore import Comparison, Exploration

__all__ = ["Alternative", "Change", "Comparison", "Exclusion", "Exploration", "PackedPool"]
