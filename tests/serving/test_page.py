"""The service's page, in a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

import uniroute_fast as uf
from serving import TEXTS, make_router, route
from uniroute_fast.serving import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

NAMES = ["small", "middle", "<b>large</b>", 'odd"name é']


@pytest.fixture(scope="module")
def router() -> uf.Router:
    return make_router(names=NAMES)


@pytest.fixture(scope="module")
def server(router: uf.Router) -> Iterator[Server]:
    policies = {"capped": {"cost_weight": 0.1, "budget": {"amount": 50.0, "seconds": 3600.0}}}
    with Server(router, port=0, log="off", policies=policies) as running:
        route(running, texts=TEXTS)
        yield running


@pytest.fixture
def look(server: Server, tmp_path: Path) -> Callable[..., str]:
    """Open the page and return what it has become after a few seconds."""

    def open_page(**asked: object) -> str:
        assert CHROMIUM is not None
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/c"]
        wait = ["--virtual-time-budget=6000", "--dump-dom"]
        address = f"{server.url}/#{urlencode(asked)}"
        done = subprocess.run(
            [CHROMIUM, *quiet, *wait, address], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return open_page


def element(page: str, name: str) -> str:
    """Return the text of the element with an id."""
    found = re.search(rf'<(\w+)[^>]* id="{name}"[^>]*>(.*?)</\1>', page, re.S)
    found = found or re.search(rf'<(\w+) id="{name}"[^>]*>(.*?)</\1>', page, re.S)
    assert found, f"no element {name}"
    return html.unescape(re.sub(r"<[^>]+>", "|", found[2]))


def test_the_page_shows_the_decision(look: Callable[..., str], router: uf.Router) -> None:
    shown = set()
    for weight in (0, 0.05, 10):
        page = look(text=TEXTS[0], cost_weight=weight)
        expected = router.explain(TEXTS[0], float(weight))
        assert element(page, "model") == expected.decision.model
        assert element(page, "error") == ""
        shown.add(expected.decision.model)
        for other in expected.alternatives:
            assert other.model in element(page, "ranked")
        for flip in (expected.flip_up, expected.flip_down):
            assert flip is None or f"to {flip.model} at" in element(page, "details")
        # Names are text, never markup.
        assert "<b>large" not in page
    assert len(shown) > 1


def test_the_page_shows_traffic_drift_and_budgets(look: Callable[..., str]) -> None:
    page = look(text=TEXTS[0])
    assert "%" in element(page, "traffic")
    assert "coverage of late" in element(page, "drift")
    assert "alarm above" in element(page, "drift")
    assert "50 left" in element(page, "budget")
    assert "models may be chosen" in element(page, "facts")


def test_the_page_says_what_is_wrong(look: Callable[..., str]) -> None:
    page = look(text="")
    assert element(page, "model") == "no model"
    assert "empty" in element(page, "error")
