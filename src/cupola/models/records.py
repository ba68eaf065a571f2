"""What goes into the network's losses and what comes out of its predictions, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64, Shaped
from torch import Tensor

from cupola.types import Segment

IGNORE = 255
"""Semantic target of a pixel that counts nowhere (spec-network 1.12)."""

SOME_THING = 0
"""Semantic channel of every thing; stuff class j is channel j + 1 (spec-network 1.12)."""


@dataclass(frozen=True)
class Target:
    """What an image of h x w pixels should give.

    semantic: channel of each pixel, `SOME_THING` = 0, stuff 1..S, `IGNORE` = 255; masks, boxes (x0, y0, x1, y1 [px],
    half-open), classes (0..T-1): the objects; ignore: pixels of a thing class without an instance, where an unmarked
    object may stand. Raises `ValueError` where the numbers of objects or the sizes differ.
    """

    semantic: Int64[Tensor, "h w"]
    masks: Bool[Tensor, "n h w"]
    boxes: Float[Tensor, "n 4"]
    classes: Int64[Tensor, "n"]
    ignore: Bool[Tensor, "h w"]

    def __post_init__(self) -> None:
        count, *size = self.masks.shape
        if len(self.boxes) != count or len(self.classes) != count:
            raise ValueError(f"{count} masks, but {len(self.boxes)} boxes and {len(self.classes)} classes")
        if list(self.semantic.shape) != size or list(self.ignore.shape) != size:
            raise ValueError(f"masks are {size}, but semantic {self.semantic.shape} and ignore {self.ignore.shape}")

    def to(self, device: torch.device | str) -> Target:
        """The same on another device."""
        fields = (self.semantic, self.masks, self.boxes, self.classes, self.ignore)
        return Target(*(tensor.to(device) for tensor in fields))


class LossPart(NamedTuple):
    """A loss of some images: the mean over `over` regions or pixels (0 where there are none), so that parts of a batch
    make up the loss of the whole."""

    mean: Float[Tensor, ""]
    over: Shaped[Tensor, ""] | int


@dataclass(frozen=True)
class Detections:
    """Objects before masks: boxes (x0, y0, x1, y1) [px], scores in [0, 1], classes 0..T-1, by descending score."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    classes: Int64[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class NetworkPrediction:
    """One image's result at its output size h x w.

    semantic: logits of "some thing" and the S stuff classes; boxes [px], scores, classes (0..T-1), masks: all
    detections, by descending score; panoptic: id of each pixel's segment, 0 = void; segments: what the ids mean, with
    category = thing class 0..T-1 or semantic channel 1..S (spec-network 1.11, 1.12).
    """

    semantic: Float[Tensor, "channels h w"]
    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    classes: Int64[Tensor, "n"]
    masks: Bool[Tensor, "n h w"]
    panoptic: Int32[Tensor, "h w"]
    segments: tuple[Segment, ...]
