"""What training needs to go on after a stop, in one file that is complete or not there: `training.safetensors`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from cupola.errors import StoreError
from cupola.runs import state

STATE = "training.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run is. step: steps done; seconds: spent on them; rounds: of self-labels made; fingerprint: of the
    data that it learns from."""

    step: int
    seconds: float
    rounds: int
    fingerprint: str


def save_state(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes weights, optimiser and progress atomically; the file before stays if that fails. Raises `DiskError`."""
    state.save_state(out / STATE, network, optimizer, asdict(progress))


def load_state(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Restores weights and optimiser in place; None where the run has no state yet. Raises `StoreError`."""
    facts = state.load_state(out / STATE, network, optimizer)
    try:
        return None if facts is None else Progress(**facts)
    except TypeError as error:
        raise StoreError(f"{out / STATE} does not belong to this run ({error}); choose another --out") from error


def remove_state(out: Path) -> None:
    """Removes the state of a finished run."""
    (out / STATE).unlink(missing_ok=True)
