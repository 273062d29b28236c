"""Whole logs of prompts, routed: files of any size in, the same files with decisions out."""

from uniroute_fast.batch.decide import COLUMNS, BatchRouter
from uniroute_fast.batch.job import Summary, route_log
from uniroute_fast.batch.progress import Progress
from uniroute_fast.batch.totals import Totals
from uniroute_fast.batch.whatif import WhatIf, what_if
from uniroute_fast.costs.outcome import Outcome

__all__ = [
    "COLUMNS",
    "BatchRouter",
    "Outcome",
    "Progress",
    "Summary",
    "Totals",
    "WhatIf",
    "route_log",
    "what_if",
]
