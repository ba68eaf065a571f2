"""What training needs to go on after a stop, in one file that is complete or not there: `training.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.runs import state

STATE = "training.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run is. step: steps done; seconds: spent on them; fingerprint: of the data that it learns from."""

    step: int
    seconds: float
    fingerprint: str


def save_state(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, task: Mapping[str, Tensor]
) -> None:
    """Writes weights, optimiser, progress and the task's tensors atomically; the file before stays if that fails.
    Raises `DiskError`."""
    state.save_state(out / STATE, network, optimizer, asdict(progress), task)


def load_state(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Restores weights and optimiser in place and gives the progress and the task's tensors; None where the run has no
    state yet. What a kill in the middle of writing left is removed. Raises `StoreError`."""
    stem, suffix = STATE.split(".")
    for torn in out.glob(f".{stem}.*.{suffix}"):
        torn.unlink(missing_ok=True)
    facts = state.load_state(out / STATE, network, optimizer)
    try:
        return None if facts is None else (Progress(**facts), state.load_task(out / STATE))
    except TypeError as error:
        raise StoreError(f"{out / STATE} does not belong to this run ({error}); choose another --out") from error


def remove_state(out: Path) -> None:
    """Removes the state of a finished run."""
    (out / STATE).unlink(missing_ok=True)
