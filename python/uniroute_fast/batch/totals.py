"""What a batch came to: rows, spend, who answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uniroute_fast.batch.arrow import pyarrow
from uniroute_fast.batch.decide import COLUMNS


@dataclass
class Totals:
    """Sums over rows; those of two parts add up to those of both.

    Attributes
    ----------
    rows : int
    cost : float
        Of the routed rows, in the unit of the pool.
    predicted_loss : float
        Sum over the routed rows.
    models, statuses : Counter
        Rows by model and by status.
    """

    rows: int = 0
    cost: float = 0.0
    predicted_loss: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, columns: list[Any]) -> Totals:
        """Return the totals of decision columns, as `BatchRouter.decide` gives them."""
        pyarrow()
        import pyarrow.compute as pc

        named = dict(zip(COLUMNS, columns, strict=True))

        def counts(name: str) -> Counter[str]:
            pairs = pc.value_counts(named[name].drop_null()).to_pylist()
            return Counter({pair["values"]: pair["counts"] for pair in pairs})

        return cls(
            rows=len(named["status"]),
            cost=pc.sum(named["cost"]).as_py() or 0.0,
            predicted_loss=pc.sum(named["predicted_loss"]).as_py() or 0.0,
            models=counts("model"),
            statuses=counts("status"),
        )

    @property
    def routed(self) -> int:
        """Rows with a model."""
        return self.models.total()

    def add(self, other: Totals) -> None:
        """Add those of more rows."""
        self.rows += other.rows
        self.cost += other.cost
        self.predicted_loss += other.predicted_loss
        self.models.update(other.models)
        self.statuses.update(other.statuses)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and numbers."""
        return vars(self) | {"models": dict(self.models), "statuses": dict(self.statuses)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Totals:
        """Return what `to_dict` was made of."""
        models, statuses = Counter(values["models"]), Counter(values["statuses"])
        return cls(**(values | {"models": models, "statuses": statuses}))
