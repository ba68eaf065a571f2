"""`cupola ablate pseudo-labels`."""

from __future__ import annotations

from cupola.ablation import Ablation, ablate_pseudo_labels

command = ablate_pseudo_labels


def show(result: Ablation) -> None:
    """Prints the tables and where the report is."""
    print(result.table())
    print(f"\nreport: {result.report}")
