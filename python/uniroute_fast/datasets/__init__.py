"""Scores of LLMs on prompts: the `Dataset`, and what reads and writes one."""

from uniroute_fast.datasets.dataset import Dataset
from uniroute_fast.datasets.folder import load, save

__all__ = ["Dataset", "load", "save"]
