"""`cupola predict`."""

from __future__ import annotations

from cupola.cli import INCOMPLETE
from cupola.prediction import PredictionRun, predict

command = predict


def show(result: PredictionRun) -> int:
    """Says how many images were done and how fast, what was not read, and where the results are."""
    print(f"{len(result.keys)} images: {result.out}/panoptic.json, panoptic/, overlays/")
    if result.fresh:
        total = sum(result.seconds.values())
        waited = result.seconds["reading"] + result.seconds["writing"]
        print(
            f"{result.fresh} of them now, {result.fresh / total:.2f} a second; the network waited for images and files "
            f"{100 * waited / total:.0f} % of the time"
        )
    else:
        print("all of them were there already")
    for remark in result.remarks:
        print(f"in part: {remark}")
    for failure in result.failures:
        print(f"left out: {failure}")
    if result.failures:
        print(f"{len(result.failures)} could not be read and are left out")
    print(f"report: {result.report}")
    return 0 if result.complete else INCOMPLETE
