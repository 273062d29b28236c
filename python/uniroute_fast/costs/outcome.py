"""What a rule spends on many prompts, and how good its answers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Outcome:
    """Spend and quality of a log, or of labelled prompts, under one rule.

    Attributes
    ----------
    name : str
    cost_weight : float
        NaN for rules without one.
    rows : int
        Prompts that it answers.
    spend : float
        In the unit of the pool's costs; of "as served" what the log says, where it does.
    quality, quality_2se : float
        Mean quality, expected or measured, in [0, 1], and two standard errors of it.
    gain, gain_2se : float
        Quality less that of the reference rule on the same prompts, and two standard errors of it.
    models : dict of str to int
        Prompts by LLM, the most first.
    llms : list of dict
        For each LLM that answers: ``model``, ``prompts``, ``spend``, ``quality``, ``quality_2se``;
        the most prompts first.
    clusters : list of dict
        For each cluster: ``cluster`` (its number), ``prompts``, ``spend``, ``quality``,
        ``quality_2se``, and the LLM that has most of it, ``model``, with its ``model_share``.
    """

    name: str
    cost_weight: float
    rows: int
    spend: float
    quality: float
    quality_2se: float
    gain: float
    gain_2se: float
    models: dict[str, int]
    llms: list[dict[str, Any]]
    clusters: list[dict[str, Any]]
