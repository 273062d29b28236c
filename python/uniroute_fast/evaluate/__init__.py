"""How good a router is: deferral curves, the figures read off them, and repeated trials."""

from uniroute_fast.evaluate.deferral import (
    DeferralCurve,
    area,
    area_of,
    deferral_curve,
    qnc,
    reaches_best,
)
from uniroute_fast.evaluate.leaks import LeakError, check_leaks
from uniroute_fast.evaluate.methods import METHODS, Method, describe
from uniroute_fast.evaluate.off_policy import Estimate, OffPolicy, off_policy
from uniroute_fast.evaluate.table import Row, Table
from uniroute_fast.evaluate.teacher import against_teacher
from uniroute_fast.evaluate.trial import Split, Trial, random_split
from uniroute_fast.evaluate.trials import run_trials
from uniroute_fast.evaluate.whole_pool import WholePool, route_whole_pool

__all__ = [
    "METHODS",
    "DeferralCurve",
    "Estimate",
    "LeakError",
    "Method",
    "OffPolicy",
    "Row",
    "Split",
    "Table",
    "Trial",
    "WholePool",
    "against_teacher",
    "area",
    "area_of",
    "check_leaks",
    "deferral_curve",
    "describe",
    "off_policy",
    "qnc",
    "random_split",
    "reaches_best",
    "route_whole_pool",
    "run_trials",
]
