"""Self-enhanced copy-paste: what the network itself finds on training frames is cut out and pasted (paper;
spec-network 2.4, 2.5).

Every `every` steps the network looks at a few frames as they are, without pastes. What it is sure of and what no label
marks goes into a bank of the last looks, which takes the place of the labelled objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from cupola.errors import ConfigError
from cupola.training.copy_paste import Cutout, cut_mask
from cupola.training.data import TrainingData
from cupola.training.detecting import AT_ONCE, Detector, detected
from cupola.training.sampler import AHEAD, frames_of_step
from cupola.training.targets import FIRST_OBJECT, Sample, box_of_mask

DELAY = AHEAD + 1
"""Steps from a look to the first batch that may paste what it found: earlier ones are being made already."""

LOOK = 4
"""What a stream of random numbers is for, beside those of `sampler`: the order in which frames are looked at."""


@dataclass(frozen=True)
class DiscoverySettings:
    """When the network looks for objects to paste, and what it takes.

    Attributes:
        start: first step that pastes discoveries instead of labelled objects (paper: 1000); 0 = none ever does.
        every: steps between two looks (the published code looks in every step, which costs a prediction each time).
        frames: looked at each time.
        keep: looks whose objects are kept (the published code: the last one's).
        score: discoveries have a larger one.
        overlap: what decides that a label marks the object already: the IoU of `box`es (the published code), or of
            `mask`s, which finds the object half of which is covered (N11).
        max_overlap: from this IoU on it is marked already.
    """

    start: int = 0
    every: int = 16
    frames: int = 16
    keep: int = 4
    score: float = 0.75
    overlap: Literal["box", "mask"] = "mask"
    max_overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.start < 0:
            raise ConfigError(f"discoveries start at a step, or never (0), not at {self.start}")
        for name in ("every", "frames", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"discoveries.{name} must be at least 1, but is {getattr(self, name)}")

    def look(self, step: int) -> int | None:
        """Number of the look that is due before `step`; the first one is made just early enough. None: none is."""
        since = step - max(0, self.start - DELAY)
        return since // self.every if self.start and since >= 0 and since % self.every == 0 else None


def discovered(
    sample: Sample,
    masks: Bool[np.ndarray, "n h w"],
    scores: Float32[np.ndarray, "n"],
    classes: Int64[np.ndarray, "n"],
    settings: DiscoverySettings,
    min_side: int,
) -> list[Cutout]:
    """Detections of a frame that are sure and that no label marks, cut out; both sides of at least `min_side` px."""
    labelled = [sample.codes == FIRST_OBJECT + index for index in np.flatnonzero(sample.areas())]
    found = []
    for mask, score, class_rank in zip(masks, scores, classes, strict=True):
        if score <= settings.score or not mask.any():
            continue
        cutout = cut_mask(sample.image, mask, int(class_rank), min_side)
        if cutout and all(_overlap(mask, label, settings.overlap) < settings.max_overlap for label in labelled):
            found.append(cutout)
    return found


def _overlap(first: Bool[np.ndarray, "h w"], second: Bool[np.ndarray, "h w"], kind: str) -> float:
    """IoU of two masks that are not empty, or of their boxes."""
    if kind == "mask":
        return float((first & second).sum() / (first | second).sum())
    a, b = (np.array(box_of_mask(mask)) for mask in (first, second))
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    return both / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


Gather = Callable[[list[Cutout]], list[list[Cutout]]]
"""Objects of this process -> those of every process, in their order."""


class DiscoveryBank:
    """Objects of the last looks. What may be pasted in a step is a function of the looks made long enough before."""

    def __init__(self, settings: DiscoverySettings, min_side: int, seed: int) -> None:
        self.settings, self._min_side, self._seed = settings, min_side, seed
        self._looks: dict[int, list[Cutout]] = {}

    def before_step(
        self, step: int, network: Detector, data: TrainingData, device: torch.device, rank: int, gather: Gather
    ) -> None:
        """Looks at frames if it is time to. With several processes, each (number `rank`) looks at its share."""
        number = self.settings.look(step)
        if number is None:
            return
        frames = frames_of_step(len(data), self.settings.frames, number, self._seed + LOOK)
        ranks = len(gather([]))
        mine: list[Cutout] = []
        for start in range(0, len(frames), AT_ONCE * ranks):
            first = start + rank * AT_ONCE
            samples = [data.sample(frame) for frame in frames[first : first + AT_ONCE]]
            detections = detected(network, samples, self.settings.score, device)
            for sample, (masks, scores, classes) in zip(samples, detections, strict=True):
                mine += discovered(sample, masks, scores, classes, self.settings, self._min_side)
        self._looks[step] = [cutout for part in gather(mine) for cutout in part]
        for old in sorted(self._looks)[: -(self.settings.keep + DELAY)]:
            del self._looks[old]

    def objects(self, step: int) -> list[Cutout] | None:
        """What the batch of a step may paste; None: labelled objects, before the start and while nothing is found."""
        if not self.settings.start or step < self.settings.start:
            return None
        seen = sorted(look for look in self._looks if look + DELAY <= step)[-self.settings.keep :]
        return [cutout for look in seen for cutout in self._looks[look]] or None

    def state(self) -> dict[str, Tensor]:
        """All looks, as tensors."""
        looks = sorted(self._looks)
        cutouts = [cutout for look in looks for cutout in self._looks[look]]
        images = [torch.from_numpy(cutout.image).flatten() for cutout in cutouts]
        masks = [torch.from_numpy(cutout.mask).flatten() for cutout in cutouts]
        return {
            "looks": torch.tensor([[look, len(self._looks[look])] for look in looks]).reshape(-1, 2).long(),
            "sizes": torch.tensor([cutout.mask.shape for cutout in cutouts]).reshape(-1, 2).long(),
            "classes": torch.tensor([cutout.class_rank for cutout in cutouts]).long(),
            "bottoms": torch.tensor([cutout.bottom for cutout in cutouts], dtype=torch.float64),
            "images": torch.cat(images) if images else torch.zeros(0, dtype=torch.uint8),
            "masks": torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave. Raises `KeyError` or `RuntimeError` where something is missing."""
        areas = state["sizes"].prod(1).tolist()
        images = torch.split(state["images"], [3 * area for area in areas])
        masks = torch.split(state["masks"], areas)
        cutouts = [
            Cutout(image.reshape(*size, 3).numpy(), mask.reshape(*size).numpy(), class_rank, bottom)
            for image, mask, size, class_rank, bottom in zip(
                images,
                masks,
                state["sizes"].tolist(),
                state["classes"].tolist(),
                state["bottoms"].tolist(),
                strict=True,
            )
        ]
        self._looks, start = {}, 0
        for look, count in state["looks"].tolist():
            self._looks[look] = cutouts[start : start + count]
            start += count
