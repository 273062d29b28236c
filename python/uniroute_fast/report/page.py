"""From figures to a page.

A page holds its figures as JSON, and a script that draws them: what it shows is what it holds. All
text, prompts above all, reaches the document as text and never as markup, and a content security
policy lets no script run but the page's own. Times differ from run to run and are left out: the
same data and seed give the same page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from uniroute_fast import _native
from uniroute_fast._checks.files import whole_file
from uniroute_fast._checks.json import without_nan

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


def evaluation_page(figures: Mapping[str, Any]) -> str:
    """Return the page of an evaluation.

    Parameters
    ----------
    figures : mapping
        `Table.to_dict`, with that of a `WholePool` under ``pool``.
    """
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in figures["methods"]]
    return _page("evaluation", f"Routing on {figures['dataset']}", {**figures, "methods": rows})


def what_if_page(figures: Mapping[str, Any], log: str) -> str:
    """Return the page of a what-if.

    Parameters
    ----------
    figures : mapping
        `WhatIf.to_dict`.
    log : str
        What the title calls the log.
    """
    timeless = {k: v for k, v in figures.items() if k != "seconds"}
    return _page("what_if", f"What if: {log}", timeless)


def save_page(page: str, path: str | os.PathLike[str]) -> None:
    """Write a page, whole or not at all; a link of that name is replaced."""
    with whole_file(path) as file:
        file.write(page.encode())


def _page(kind: str, title: str, figures: Mapping[str, Any]) -> str:
    assets = resources.files("uniroute_fast.report") / "assets"

    def asset(name: str) -> str:
        return (assets / name).read_text(encoding="utf-8")

    style = asset("style.css")
    script = "\n".join(asset(name) for name in ("core.js", "chart.js", "pool.js", f"{kind}.js"))
    parts = {
        # The name of a folder may hold bytes that are no text.
        "TITLE": html.escape(title.encode("utf-8", "replace").decode()),
        "VERSION": html.escape(_native.__version__),
        "STYLE": style,
        "STYLE_HASH": _hash(style),
        "SCRIPT": script,
        "SCRIPT_HASH": _hash(script),
        "FIGURES": _as_json(figures),
    }
    # One pass: what a part holds is not looked at again.
    pieces = asset("page.html").split("%%")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _hash(text: str) -> str:
    """Return what a content security policy calls an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _as_json(figures: Mapping[str, Any]) -> str:
    """Return JSON of ASCII alone, without the characters that could end a script element."""
    text = json.dumps(without_nan(figures), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
