"""The figures of a row over several seeds: mean, spread, and what it adds to the row before on the same streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from cupola.ablation.training.rows import TrainingRow
from cupola.evaluation import Evaluation

FIGURES = {
    "PQ": "pq",
    "PQ careful": "pq_careful",
    "PQ things": "pq_things",
    "PQ stuff": "pq_stuff",
    "mIoU": "miou",
    "moving": "moving",
    "standing": "standing",
    "small": "small",
}
"""Columns that are shares, shown in percent."""


def figures_of(result: Evaluation) -> dict[str, float]:
    """What the table shows of one network."""
    scores, objects = result.matched.standard, result.objects
    recalls = {"moving": objects.moving, "standing": objects.standing, "small": objects.small}
    return {
        "pq": scores.all.pq,
        "pq_careful": result.careful.standard.all.pq,
        "pq_things": scores.things.pq,
        "pq_stuff": scores.stuff.pq,
        "miou": result.matched.semantic_standard.miou,
        **{name: float("nan") if recall is None else recall.share for name, recall in recalls.items()},
        "false": float(objects.false_objects),
    }


@dataclass(frozen=True)
class MeasuredRow:
    """A row and its networks' results, one a seed; before: those of the row that it adds to, None for the first."""

    row: TrainingRow
    results: tuple[Evaluation, ...]
    before: tuple[Evaluation, ...] | None

    @staticmethod
    def figures_of(results: Sequence[Evaluation]) -> dict[str, list[float | None]]:
        """Every figure of every seed, rounded; null where it is undefined."""
        each = [figures_of(result) for result in results]
        return {name: [None if np.isnan(one[name]) else round(one[name], 6) for one in each] for name in each[0]}

    def values(self, figure: str) -> Float64[np.ndarray, "seeds"]:
        """A figure of every seed."""
        return np.array([figures_of(result)[figure] for result in self.results])

    def gains(self, figure: str) -> Float64[np.ndarray, "seeds"] | None:
        """What the row adds to the one before, for each seed."""
        if self.before is None:
            return None
        gains: Float64[np.ndarray, "seeds"] = self.values(figure) - np.array(
            [figures_of(result)[figure] for result in self.before]
        )
        return gains

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "name": self.row.name,
            "paper_pq": self.row.paper,
            "adds_to": self.row.before,
            "stage": 3 if self.row.settings is None else 2,
            "figures": self.figures_of(self.results),
        }


def measured_rows(rows: Sequence[TrainingRow], results: Sequence[Sequence[Evaluation]]) -> tuple[MeasuredRow, ...]:
    """Rows with their results, one a seed, and those of the row before."""
    by_name = {row.name: tuple(found) for row, found in zip(rows, results, strict=True)}
    return tuple(
        MeasuredRow(row, by_name[row.name], None if row.before is None else by_name[row.before]) for row in rows
    )


def mean_and_spread(values: Float64[np.ndarray, "seeds"]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds (of a sample: n - 1), which is 0 for a single one."""
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
