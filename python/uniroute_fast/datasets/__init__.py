"""Scores of LLMs on prompts: the `Dataset`, and what reads and writes one."""

from uniroute_fast.datasets.dataset import Dataset
from uniroute_fast.datasets.embedllm import from_embedllm
from uniroute_fast.datasets.folder import load, save
from uniroute_fast.datasets.llmrouterbench import from_llmrouterbench
from uniroute_fast.datasets.lm_eval import from_lm_eval
from uniroute_fast.datasets.routerbench import from_routerbench
from uniroute_fast.datasets.sprout import from_sprout

__all__ = [
    "Dataset",
    "from_embedllm",
    "from_llmrouterbench",
    "from_lm_eval",
    "from_routerbench",
    "from_sprout",
    "load",
    "save",
]
