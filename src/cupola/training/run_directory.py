"""The directory of a run, before and after its loop: whose it is, and the network that it holds in the end."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from cupola.diagnosis import installed_versions
from cupola.models import PanopticModel, load_network, save_network
from cupola.models.checkpoint import CARD
from cupola.runs.directory import claim
from cupola.runs.metrics import read_metrics
from cupola.training.data import require_same_data
from cupola.training.processes import main_first, precision_of
from cupola.training.state import Progress, TrainingState

LAST_STEPS = 50
"""The losses told at the end are means over this many last steps."""

NO_LOSS = ("step", "gradient", "learning_rate", "seconds", "waiting")
"""Entries of a line of metrics.jsonl that are no losses."""


def claim_together(fabric: Fabric, directory: Path, free: Collection[str], **arguments: Any) -> None:
    """`cupola.runs.directory.claim` of all processes, the first of which writes. Raises `StoreError`."""
    with main_first(fabric):
        claim(directory, free, **arguments)


def is_finished(out: Path) -> bool:
    """Whether a run came to its end here."""
    return (out / CARD).is_file()


def finished_facts(out: Path, fingerprint: str) -> dict[str, Any] | None:
    """What is told of the run that came to its end here; None where none did yet. Raises `StoreError` where it learnt
    from something else than what has this fingerprint, `CheckpointError` where its network is damaged."""
    if not is_finished(out):
        return None
    facts = dict(load_network(out)[1]["training"])
    require_same_data(out, facts["fingerprint"], fingerprint)
    return facts


def facts_of(fabric: Fabric, fingerprint: str, done: Progress, seed: int) -> dict[str, Any]:
    """What the card of every trained network tells of its training."""
    return {
        "fingerprint": fingerprint,
        "steps": done.step,
        "seconds": round(done.seconds, 1),
        "seed": seed,
        "precision": precision_of(fabric),
        "versions": installed_versions(),
    }


def save_trained(fabric: Fabric, out: Path, network: PanopticModel, card: dict[str, Any]) -> None:
    """Ends a run: the first process writes its network and drops the state. All processes call it, and go on when it
    is written. Raises `DiskError`."""
    with main_first(fabric):
        if fabric.is_global_zero:
            save_network(out, network, card)
            TrainingState(out).remove()


def last_losses(out: Path) -> dict[str, float]:
    """Each loss of a run, as a mean over its last steps."""
    last = read_metrics(out)[-LAST_STEPS:]
    names = [name for name in (last[-1] if last else {}) if name not in NO_LOSS]
    return {name: float(np.mean([line[name] for line in last])) for name in names}
