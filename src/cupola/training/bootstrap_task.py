"""The task of stage 2: a label store, whose frames the network labels further at set times (`self_labels.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.models import PanopticModel
from cupola.training.data import TrainingData
from cupola.training.sampler import Batches, BatchSettings
from cupola.training.self_labels import (
    SelfLabelSettings,
    count_new,
    discover,
    extended_data,
    read_self_labels,
    write_self_labels,
)


class BootstrapTask:
    """Stage 2 as a `cupola.training.loop.Task`. added: objects that the network labelled itself in the last round."""

    def __init__(self, data: TrainingData, batches: BatchSettings, self_labels: SelfLabelSettings, out: Path) -> None:
        self._data, self._settings, self._self_labels, self._out = data, batches, self_labels, out
        self._learnt, self._rounds, self.added = data, 0, 0
        self._batches: Batches | None = None

    @property
    def fingerprint(self) -> str:
        """Of all images and labels."""
        return self._data.fingerprint

    def parameters(self, network: PanopticModel) -> Iterable[tuple[str, nn.Parameter]]:
        """All of them."""
        return network.named_parameters()

    def train_mode(self, network: PanopticModel) -> None:
        """Norms learn too."""
        network.train()

    @contextmanager
    def batches(self) -> Iterator[Batches]:
        """Made of the labels of the store and of the last round of self-labels."""
        with Batches(self._learnt, self._settings) as batches:
            self._batches = batches
            yield batches

    def before_step(self, step: int, share: float, network: PanopticModel) -> None:
        """Makes the round of self-labels that is due."""
        due = self._self_labels.rounds_due(share)
        if due > self._rounds:
            device = next(network.parameters()).device
            found = discover(network, self._data, self._self_labels, device)
            write_self_labels(self._out, self._data, found, due)
            self._use(due)

    def after_step(self, step: int, network: PanopticModel) -> None:
        """Nothing."""

    def state(self) -> Mapping[str, Tensor]:
        """The number of rounds; what they found lies beside it (`write_self_labels`)."""
        return {"rounds": torch.tensor(self._rounds)}

    def restore(self, state: Mapping[str, Tensor], network: PanopticModel) -> None:
        """Learns from the last round on. Raises `StoreError` where its labels are missing or damaged."""
        if "rounds" not in state:
            raise StoreError(f"the state in {self._out} is of another version of cupola; choose another --out")
        if state["rounds"].item() > 0:
            self._use(int(state["rounds"].item()))

    def _use(self, rounds: int) -> None:
        """From now on the data are those with the labels of round number `rounds`."""
        found = read_self_labels(self._out, self._data, rounds)
        self._rounds, self.added = rounds, count_new(self._data, found)
        self._learnt = extended_data(self._data, found, self._settings.copy_paste.min_side)
        if self._batches is not None:
            self._batches.use(self._learnt)
