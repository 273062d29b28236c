"""The made-up outcomes that the tests of whole logs share."""

from __future__ import annotations

from uniroute_fast.cli.made_up import make_dataset

DATA = make_dataset(400, 5)
