"""`cupola evaluate`."""

from __future__ import annotations

from cupola.evaluation import Evaluation
from cupola.scoring import evaluate

command = evaluate


def show(result: Evaluation) -> None:
    """Prints the table of scores."""
    print(result.table())
