"""What training needs to go on after a stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.runs.state import StateFiles

STATE = "training"
"""Name of the files (`StateFiles`)."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. step: steps done; seconds: spent on them; fingerprint: of the data that it learns from."""

    step: int
    seconds: float
    fingerprint: str


class TrainingState:
    """The state of the run in a directory."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._files = StateFiles(out, STATE)

    def save(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, task: Mapping[str, Tensor]
    ) -> None:
        """Writes weights, optimiser, progress and the task's tensors; if that fails, the state before stays. Raises
        `DiskError`."""
        self._files.save(network, optimizer, asdict(progress), task)

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor]] | None:
        """Restores weights and optimiser in place and gives the progress and the task's tensors; None where the run has
        no state yet. Raises `StoreError`."""
        found = self._files.load(network, optimizer)
        try:
            return None if found is None else (Progress(**found[0]), found[1])
        except TypeError as error:
            raise StoreError(
                f"the state in {self.out} does not belong to this run ({error}); choose another --out"
            ) from error

    def remove(self) -> None:
        """Of a finished run, which needs it no more."""
        self._files.remove()
