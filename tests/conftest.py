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


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a router fitted on the made-up outcomes."""
    import made_up
    import uniroute_fast as uf

    data = made_up.DATA
    texts = list(data.texts)
    router = uf.Router.fit(texts, n_clusters=8)
    router.add_models(data.models, data.costs, texts, data.losses)
    path = tmp_path_factory.mktemp("pool") / "pool.uniroute"
    router.save(path)
    return path
