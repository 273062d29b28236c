"""Deferral curves as a picture: SVG, PNG or PDF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from uniroute_fast._checks.extras import imported
from uniroute_fast._checks.files import whole_file
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate.curves import BUDGETS

if TYPE_CHECKING:
    from uniroute_fast.evaluate import Table

FORMATS = (".svg", ".png", ".pdf")


def save_curves(table: Table, path: str | os.PathLike[str]) -> None:
    """Draw the mean deferral curves of a table, with bands of two standard errors.

    Parameters
    ----------
    table : Table
    path : path
        Its suffix, one of `FORMATS`, says the format. The same table gives the same bytes.

    Raises
    ------
    As `check_format`.
    """
    suffix = check_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for i, (name, curve) in enumerate(table.mean_curves().items()):
        style = ("-", "--", ":")[i // 10 % 3]
        (line,) = axes.plot(BUDGETS, curve.quality, style, label=name)
        low, high = curve.quality - curve.quality_2se, curve.quality + curve.quality_2se
        axes.fill_between(BUDGETS, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(
        title=f"{table.dataset}: {table.trials} trials, ± 2 standard errors",
        xlabel="budget: from the cheapest LLM's cost (0) to the dearest one's (1)",
        ylabel="mean quality",
        xlim=(0, 1),
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    # Without these a file would hold the time and random names.
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": None}[suffix]
    with matplotlib.rc_context({"svg.hashsalt": "uniroute_fast"}), whole_file(path) as file:
        figure.savefig(file, format=suffix[1:], dpi=150, metadata=undated)


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a figure that can be drawn, before the work is done.

    Raises
    ------
    InvalidArgumentError
        Another suffix than those of `FORMATS`.
    MissingExtraError
        matplotlib is not installed (extra ``evaluate``).
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InvalidArgumentError(f"figure: {path}; expected a name in {', '.join(FORMATS)}")
    imported("matplotlib", "evaluate", "a figure")
    return suffix
