"""`cupola ablate training`."""

from __future__ import annotations

from cupola.ablation import TrainingAblation, ablate_training

command = ablate_training


def show(result: TrainingAblation) -> None:
    """Prints the table and where the report is."""
    print(result.table())
    print(f"\nreport: {result.report}")
