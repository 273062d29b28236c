"""What the documentation shows runs, and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import uniroute_fast

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = {
    f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}": match[1]
    for page in PAGES
    for match in BLOCK.finditer(page.read_text())
}


@pytest.mark.parametrize("place", SCRIPTS)
def test_examples_in_the_documentation_run(place: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPTS[place]], check=True, cwd=tmp_path)


def modules() -> list[str]:
    found = pkgutil.walk_packages(uniroute_fast.__path__, "uniroute_fast.")
    return [m.name for m in found if not m.name.endswith(("_native", "__main__"))]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert not results.failed


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
