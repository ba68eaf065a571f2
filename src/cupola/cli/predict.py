"""`cupola predict`."""

from __future__ import annotations

from cupola.prediction import PredictionRun, predict

command = predict


def show(result: PredictionRun) -> None:
    """Says how many images were done, which were not, and where the results are."""
    print(f"{len(result.keys)} images: {result.out}/panoptic.json, panoptic/, overlays/")
    for failure in result.failures:
        print(f"left out: {failure}")
    print(f"report: {result.report}")
