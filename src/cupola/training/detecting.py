"""What the half-trained network finds on its own training frames, for self-labels and discoveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from cupola.models import NetworkPrediction
from cupola.training.sampler import to_tensor
from cupola.training.targets import Sample

AT_ONCE = 8
"""Frames a forward pass; detection is quick, so this only fills the cores."""

Detections = tuple[Bool[np.ndarray, "n h w"], Float32[np.ndarray, "n"], Int64[np.ndarray, "n"]]
"""Masks, scores, and classes (ranks among the things) of the objects found in a frame."""


@runtime_checkable
class Detector(Protocol):
    """What finds objects; `PanopticNetwork` does."""

    def predict(
        self, images: Sequence[Float[Tensor, "3 _ _"]], *, score_threshold: float
    ) -> list[NetworkPrediction]: ...


def detected(network: Detector, samples: Sequence[Sample], score: float, device: torch.device) -> list[Detections]:
    """Objects with at least this score in the image of each sample, which go through the network together."""
    if not samples:
        return []
    images = [to_tensor(sample.image).to(device) for sample in samples]
    found = []
    for prediction in network.predict(images, score_threshold=score):
        arrays = (prediction.masks, prediction.scores, prediction.classes)
        masks, scores, classes = (tensor.cpu().numpy() for tensor in arrays)
        found.append((masks, scores.astype(np.float32), classes))
    return found
