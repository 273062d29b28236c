"""The made-up outcomes that the tests of whole logs share."""

from __future__ import annotations

from uniroute_fast.cli.made_up import make_dataset
from uniroute_fast.evaluate.deferral import area_of
from uniroute_fast.profiles import fit

DATA = make_dataset(400, 5)


def fit_profiler(*arguments, **options):
    """Fit a profiler with settings chosen as `Router.fit` chooses them."""
    return fit.fit_profiler(*arguments, **options, area=area_of)
