"""Whole logs of prompts, routed: files of any size in, the same files with decisions out."""

from uniroute_fast.batch.decide import COLUMNS, BatchRouter
from uniroute_fast.batch.job import Summary, route_log
from uniroute_fast.batch.totals import Totals

__all__ = ["COLUMNS", "BatchRouter", "Summary", "Totals", "route_log"]
