"""What every panoptic network can do, whatever it is built of: losses in training, panoptic maps in prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cupola.models.merge import MergeLimits
from cupola.models.records import LossPart, NetworkPrediction, Target


class PanopticModel(nn.Module, ABC):
    """A network that training, files and prediction take.

    num_things, num_stuff: thing and stuff pseudo classes (T, S); settings: the frozen dataclass that it was built from.
    """

    settings: Any
    num_things: int
    num_stuff: int

    @property
    @abstractmethod
    def trunk(self) -> nn.Module:
        """What looks at the image first; published weights of backbones are its."""

    def losses(
        self, images: Sequence[Float[Tensor, "3 _ _"]], targets: Sequence[Target], generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch; their weights are in them, so the total is their sum (spec-network 2.7).

        images: RGB in [0, 1], of any sizes; targets: of the same sizes, on the network's device; generator: source of
        all random choices.
        """
        return {name: part.mean for name, part in self.loss_parts(images, targets, generator).items()}

    @abstractmethod
    def loss_parts(
        self, images: Sequence[Float[Tensor, "3 _ _"]], targets: Sequence[Target], generator: torch.Generator
    ) -> dict[str, LossPart]:
        """The same losses, with what each is a mean over: for a part of a batch whose other images are elsewhere.

        An image's draws depend on its place in the batch alone: for a part of it, advance `generator` by one draw for
        each image before (`cupola.models.boxes.one_each`).
        """

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[Float[Tensor, "3 _ _"]],
        *,
        score_threshold: float = 0.5,
        merge_threshold: float | None = None,
        overlap: float | None = None,
        stuff_area: int | None = None,
        output_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[NetworkPrediction]:
        """Predictions of a batch, in evaluation mode whatever the mode of the network (spec-network 1.11, 4.2).

        images: RGB in [0, 1], of any sizes; score_threshold: least score of a detection, merge_threshold: of an object
        in the panoptic map (the same by default); overlap, stuff_area [px]: of the merge, from the settings by default;
        output_sizes: (height, width) of each result, the images' own by default.
        """
        outputs = [(image.shape[1], image.shape[2]) for image in images] if output_sizes is None else output_sizes
        limits = MergeLimits.of(self.settings.merge, score_threshold, merge_threshold, overlap, stuff_area)
        with evaluating(self):
            return self.predicted(images, outputs, score_threshold, limits)

    @abstractmethod
    def predicted(
        self,
        images: Sequence[Float[Tensor, "3 _ _"]],
        outputs: Sequence[tuple[int, int]],
        score_threshold: float,
        limits: MergeLimits,
    ) -> list[NetworkPrediction]:
        """What `predict` gives, called in evaluation mode and without a gradient. outputs: (height, width) of each
        result."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module's own mode comes back."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
