"""What several tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(os.environ.get("UNIROUTE_DATA", Path(__file__).parent.parent.parent / "shared/data"))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Give the folder of a set of real outcomes; skip the test where there is none."""

    def folder(name: str) -> Path:
        if not (DATA / name / "scores.parquet").exists():
            pytest.skip(f"no real outcomes at {DATA / name}: set UNIROUTE_DATA")
        return DATA / name

    return folder
