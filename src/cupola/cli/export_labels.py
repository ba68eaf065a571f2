"""`cupola export-labels`."""

from __future__ import annotations

from cupola.pseudo_labels import ExportedLabels, export_labels

command = export_labels


def show(result: ExportedLabels) -> None:
    """Prints what was written and what its reader must be told."""
    print(f"{result.frames} labels of {result.num_classes} pseudo classes: {result.out}")
    print(f"{len(result.things)} of these are things where the threshold is {result.threshold:g}, as in the store")
