"""`cupola evaluate`."""

from __future__ import annotations

from cupola.scoring import evaluate
from cupola.evaluation import Evaluation

command = evaluate


def show(result: Evaluation) -> None:
    """Prints the table of scores."""
    print(result.table())
