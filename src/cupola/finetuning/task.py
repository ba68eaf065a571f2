"""What fine-tuning learns, and from what: annotated images, by the heads alone or by the whole network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from cupola.models import PanopticModel, PanopticNetwork
from cupola.training.data import TrainingData
from cupola.training.sampler import Batches, BatchSettings

Trainable = Literal["heads", "all"]

FROZEN = "backbone."
"""Trunk and pyramid, which stay as they are where only the heads are trained (spec-network 7)."""


@dataclass(frozen=True)
class TruthTask:
    """Learning from annotated images as a `cupola.training.loop.Task`. source: what the network was before, for a run
    goes on only from the same."""

    data: TrainingData
    settings: BatchSettings
    trainable: Trainable
    source: str

    @property
    def fingerprint(self) -> str:
        """Of images, truth and the network before."""
        return hashlib.sha256(f"{self.data.fingerprint} {self.source}".encode()).hexdigest()

    def parameters(self, network: PanopticModel) -> Iterable[tuple[str, nn.Parameter]]:
        """Those of the heads, the region proposals among them, or all."""
        named = network.named_parameters()
        return named if self.trainable == "all" else ((n, p) for n, p in named if not n.startswith(FROZEN))

    def train_mode(self, network: PanopticModel) -> None:
        """A frozen trunk keeps the statistics of its norms as well."""
        network.train()
        if self.trainable == "heads":
            assert isinstance(network, PanopticNetwork)
            network.backbone.eval()

    def batches(self) -> AbstractContextManager[Batches]:
        """Random views, image and truth in one transform (N48)."""
        return Batches(self.data, self.settings)

    def before_step(self, step: int, share: float, network: PanopticModel) -> None:
        """Nothing."""

    def after_step(self, step: int, network: PanopticModel) -> None:
        """Nothing."""

    def state(self) -> Mapping[str, Tensor]:
        """Nothing but the weights is needed."""
        return {}

    def restore(self, state: Mapping[str, Tensor], network: PanopticModel) -> None:
        """Nothing."""
