"""The task of stage 2: a label store, whose frames the network labels further at set times (`self_labels.py`), and
whose pastes are the network's own discoveries from a step on (`discoveries.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.models import PanopticModel
from cupola.training.data import TrainingData
from cupola.training.discoveries import DiscoveryBank, DiscoverySettings
from cupola.training.processes import gathered
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

    def __init__(
        self,
        fabric: Fabric,
        data: TrainingData,
        batches: BatchSettings,
        self_labels: SelfLabelSettings,
        discoveries: DiscoverySettings,
        out: Path,
    ) -> None:
        self._fabric = fabric
        self._data, self._settings, self._self_labels, self._out = data, batches, self_labels, out
        self._learnt, self._rounds, self.added = data, 0, 0
        self._batches: Batches | None = None
        self._bank = DiscoveryBank(discoveries, batches.copy_paste.min_side, batches.seed)

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
        """Made of the labels of the store and of the last round of self-labels; pasted are labelled objects, or, from
        a step on, discoveries."""
        with Batches(self._learnt, self._settings, self._bank.objects) as batches:
            self._batches = batches
            yield batches

    def before_step(self, step: int, share: float, network: PanopticModel) -> None:
        """Makes the round of self-labels and the look for discoveries that are due."""
        due = self._self_labels.rounds_due(share)
        if due > self._rounds:
            if self._fabric.is_global_zero:
                found = discover(network, self._data, self._self_labels, self._fabric.device)
                write_self_labels(self._out, self._data, found, due)
            self._fabric.barrier()
            self._use(due)
        rank, gather = self._fabric.global_rank, partial(gathered, self._fabric)
        self._bank.before_step(step, network, self._learnt, self._fabric.device, rank, gather)

    def after_step(self, step: int, network: PanopticModel) -> None:
        """Nothing."""

    def state(self) -> Mapping[str, Tensor]:
        """The number of rounds, whose labels lie beside it (`write_self_labels`), and the bank of discoveries."""
        return {"rounds": torch.tensor(self._rounds), **self._bank.state()}

    def restore(self, state: Mapping[str, Tensor], network: PanopticModel) -> None:
        """Learns from the last round on. Raises `StoreError` where its labels are missing or damaged."""
        try:
            self._bank.restore(state)
        except (KeyError, RuntimeError) as error:
            raise StoreError(
                f"the state in {self._out} is of another version of cupola; choose another --out"
            ) from error
        if state["rounds"].item() > 0:
            self._use(int(state["rounds"].item()))

    def _use(self, rounds: int) -> None:
        """From now on the data are those with the labels of round number `rounds`."""
        found = read_self_labels(self._out, self._data, rounds)
        self._rounds, self.added = rounds, count_new(self._data, found)
        self._learnt = extended_data(self._data, found, self._settings.copy_paste.min_side)
        if self._batches is not None:
            self._batches.use(self._learnt)
