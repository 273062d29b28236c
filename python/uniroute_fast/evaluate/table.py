"""The table that a study ends in: means, standard errors, paired sign tests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate.curves import BUDGETS, MeanCurve, mean_curves
from uniroute_fast.evaluate.statistics import sign_test, two_standard_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from uniroute_fast.evaluate.deferral import DeferralCurve

#: Figures of one trial, in the order of the table's columns.
FIGURES = ("area", "area_50", "qnc", "reached", "peak_quality")


@dataclass(frozen=True)
class Row:
    """One method's figures over all trials; ``*_2se`` are two standard errors of the mean.

    ``reached`` is the share of trials in which the curve reached the best single LLM's quality;
    ``gain`` is the mean difference of areas from the reference; ``wins``, ``losses``, ``ties`` and
    ``sign_test_p`` compare them too, paired by trial, two-sided.
    """

    method: str
    area: float
    area_2se: float
    area_50: float
    area_50_2se: float
    qnc: float
    qnc_2se: float
    reached: float
    peak_quality: float
    seconds: float
    gain: float
    gain_2se: float
    wins: int
    losses: int
    ties: int
    sign_test_p: float


@dataclass(frozen=True, eq=False)
class Table:
    """Results of `run_trials`.

    Attributes
    ----------
    dataset, reference : str
    trials : int
    settings : dict
        What the trials were run with: sizes of the parts, seed, embedder.
    figures : dict of str to float64[trials, len(FIGURES)]
        Every trial's figures by method.
    curves : dict of str to list of DeferralCurve
        Every trial's curve by method.
    cost_ranges : float64[trials, 2]
        Least and greatest cost of each trial's pool.
    seconds : dict of str to float
        Mean time of a trial by method, without the embedding and shared clusters made earlier.
    """

    dataset: str
    reference: str
    trials: int
    settings: Mapping[str, Any]
    figures: Mapping[str, NDArray[np.float64]]
    curves: Mapping[str, list[DeferralCurve]]
    cost_ranges: NDArray[np.float64]
    seconds: Mapping[str, float]

    @property
    def rows(self) -> list[Row]:
        """One `Row` a method, in the order in which they were named."""
        return [self[method] for method in self.figures]

    def __getitem__(self, method: str) -> Row:
        """Return a method's `Row`.

        Raises
        ------
        InvalidArgumentError
            A method that was not run.
        """
        if method not in self.figures:
            raise InvalidArgumentError(
                f"no method {method!r} in this table; there are {', '.join(self.figures)}"
            )
        values = self.figures[method]
        mean = dict(zip(FIGURES, values.mean(axis=0).tolist(), strict=True))
        error = dict(zip(FIGURES, two_standard_errors(values).tolist(), strict=True))
        areas, reference = values[:, :1], self.figures[self.reference][:, :1]
        wins, losses, ties, p = sign_test(areas, reference)
        return Row(
            method,
            area=mean["area"],
            area_2se=error["area"],
            area_50=mean["area_50"],
            area_50_2se=error["area_50"],
            qnc=mean["qnc"],
            qnc_2se=error["qnc"],
            reached=mean["reached"],
            peak_quality=mean["peak_quality"],
            seconds=self.seconds[method],
            gain=float((areas - reference).mean()),
            gain_2se=float(two_standard_errors(areas - reference)[0]),
            wins=wins,
            losses=losses,
            ties=ties,
            sign_test_p=p,
        )

    def mean_curves(self) -> dict[str, MeanCurve]:
        """Return every method's mean deferral curve, with a band and gains on the reference."""
        return mean_curves(self.curves, self.cost_ranges, self.reference)

    def to_json(self, **options: Any) -> str:
        """Return the table as JSON; ``options`` go to `json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers: rows, every trial's area, mean curves.

        ``budgets`` are shares of the pool's range of costs.
        """
        return {
            "dataset": self.dataset,
            "trials": self.trials,
            "reference": self.reference,
            "settings": dict(self.settings),
            "methods": [asdict(row) for row in self.rows],
            "areas": {name: values[:, 0].tolist() for name, values in self.figures.items()},
            "budgets": BUDGETS.tolist(),
            "curves": {name: curve.to_dict() for name, curve in self.mean_curves().items()},
        }

    def __str__(self) -> str:
        width = max(len(name) for name in self.figures)
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        lines = [
            f"{self.dataset}: {self.trials} trials ({settings})",
            f"{'method':{width}}   Area   ±2 SE  Area50    QNC  reached    peak"
            f"   s/trial  v {self.reference}: wins-losses, p",
        ]
        for row in self.rows:
            versus = (
                "-"
                if row.method == self.reference
                else f"{row.wins}-{row.losses}, {row.sign_test_p:.2g}"
            )
            lines.append(
                f"{row.method:{width}}  {row.area:.4f}  {row.area_2se:.4f}  {row.area_50:.4f}  "
                f"{row.qnc:5.1%}  {row.reached:7.0%}  {row.peak_quality:.4f}  "
                f"{row.seconds:8.3f}  {versus}"
            )
        return "\n".join(lines)
