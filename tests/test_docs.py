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

# What the shorter examples start from.
PREAMBLE = """
import json
import numpy as np
import uniroute_fast as uf

texts = prompts = ["what is 3 + 4", "what is 9 - 5", "a poem about rain", "a poem on snow"] * 25
poems = np.array([float("poem" in text) for text in texts])
measured = np.column_stack([poems, poems, poems, 0.3 * poems, 0 * poems])
router = uf.Router.fit(texts, n_clusters=2)
router.add_models(
    ["old", "mid", "flaky", "safe-default", "best"], [1e-4, 2e-4, 3e-4, 1e-3, 4e-3],
    texts, measured,
)
router.save("new.uniroute")
text, cost_weight, cheapest, true_cost = texts[0], 10.0, 1e-4, 2e-4
names, costs, losses = ["new"], [5e-4], poems[:, None]
teacher = np.random.default_rng(0).normal(size=(100, 8))
found = router.calibrate(texts, budget=1.0)
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_in_the_documentation_run(page: Path, tmp_path: Path) -> None:
    examples = BLOCK.findall(page.read_text())
    if not examples:
        pytest.skip("this page has no example in Python")
    # A page's examples follow one another; one that begins with NumPy stands on its own.
    preamble = "" if examples[0].startswith("import numpy") else PREAMBLE
    script = preamble + "\n".join(examples)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


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
