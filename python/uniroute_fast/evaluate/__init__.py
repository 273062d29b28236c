"""How good a router is: deferral curves, the figures read off them, and repeated trials."""

from uniroute_fast.deferral import DeferralCurve, area, deferral_curve, qnc, reaches_best
from uniroute_fast.evaluate.leaks import LeakError, check_leaks
from uniroute_fast.evaluate.methods import METHODS, Method
from uniroute_fast.evaluate.table import Row, Table
from uniroute_fast.evaluate.teacher import against_teacher
from uniroute_fast.evaluate.trial import Split, Trial, random_split
from uniroute_fast.evaluate.trials import run_trials

__all__ = [
    "METHODS",
    "DeferralCurve",
    "LeakError",
    "Method",
    "Row",
    "Split",
    "Table",
    "Trial",
    "against_teacher",
    "area",
    "check_leaks",
    "deferral_curve",
    "qnc",
    "random_split",
    "reaches_best",
    "run_trials",
]
