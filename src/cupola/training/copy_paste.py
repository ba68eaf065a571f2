"""Copy-paste: objects cut from labelled frames and set into others (paper; spec-network 2.4, repairs N5-N9).

A paste is one record of crop, mask and class (N6), cut with half-open boxes (N8), never a view of what it is pasted
into (N7); an object that cannot be cut is left out alone (N5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from cupola.errors import ConfigError
from cupola.training.targets import FIRST_OBJECT, MIN_AREA, Sample, box_of_mask, hide_remnants

MAX_OBJECTS = np.iinfo(np.uint16).max - FIRST_OBJECT
"""Most objects of a sample that its codes have room for."""


@dataclass(frozen=True)
class CopyPasteSettings:
    """How many objects are pasted, and how.

    Attributes:
        pastes: fewest and most objects pasted into an image (paper: 1 to 8); 0 and 0 switch copy-paste off.
        scale: smallest and largest change of size (findings-demo; the published code: 0.25 to 1.5).
        flip: chance of a mirror image.
        min_side: objects with a shorter side are not pasted [px] (the published code: 32, of 640 rows).
        bottom_shift: the lower edge stays within this share of the image height of where it was (findings-demo: 15 of
            192 rows), for size and place belong together on a street; 1 = anywhere inside (paper).
        bank: most objects kept for pasting, drawn evenly from the frames.
        source: whose labelled objects are pasted: `frames` = of all frames, `batch` = of the step's own (the published
            code).
    """

    pastes: tuple[int, int] = (1, 8)
    scale: tuple[float, float] = (0.5, 1.5)
    flip: float = 0.5
    min_side: int = 8
    bottom_shift: float = 15 / 192
    bank: int = 10_000
    source: Literal["frames", "batch"] = "frames"

    def __post_init__(self) -> None:
        if not 0 <= self.pastes[0] <= self.pastes[1]:
            raise ConfigError(f"pastes must be two rising numbers from 0 on, not {self.pastes}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"the scale of pastes must be two rising positive numbers, not {self.scale}")
        if self.bottom_shift < 0:
            raise ConfigError(f"bottom_shift must not be negative, but is {self.bottom_shift}")


@dataclass(frozen=True)
class Cutout:
    """An object to paste: its box cut from a frame, class (rank among things), and its lower edge as a share of the
    frame's height."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    class_rank: int
    bottom: float


def cut_objects(sample: Sample, min_side: int, objects: Sequence[int] | None = None) -> list[Cutout]:
    """Copies of the objects of a sample with both sides of at least `min_side` px; all, or those of the given
    numbers."""
    cutouts = []
    for index in range(len(sample.classes)) if objects is None else objects:
        mask = sample.codes == FIRST_OBJECT + index
        cutout = cut_mask(sample.image, mask, int(sample.classes[index]), min_side) if mask.any() else None
        cutouts += [cutout] if cutout else []
    return cutouts


def cut_mask(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], class_rank: int, min_side: int
) -> Cutout | None:
    """A copy of what a mask that is not empty shows; None where a side is shorter than `min_side` px."""
    x0, y0, x1, y1 = box_of_mask(mask)
    if min(x1 - x0, y1 - y0) < min_side:
        return None
    return Cutout(image[y0:y1, x0:x1].copy(), mask[y0:y1, x0:x1].copy(), class_rank, y1 / len(mask))


def paste_objects(
    sample: Sample, bank: Sequence[Cutout], settings: CopyPasteSettings, rng: np.random.Generator
) -> Sample:
    """A copy of `sample` with some objects of `bank` pasted, the lower in the image the later, for they are nearer.

    What they cover belongs to them, in semantics and masks alike; objects of which too little stays visible are
    hidden (`hide_remnants`). Without a bank the sample comes back as it was.
    """
    fewest, most = settings.pastes
    count = int(rng.integers(fewest, most + 1))
    count = min(count, MAX_OBJECTS - len(sample.classes))
    if not bank or count <= 0:
        return sample
    placed = [_place(bank[int(rng.integers(len(bank)))], sample.size, settings, rng) for _ in range(count)]
    return insert_objects(sample, sorted(placed, key=lambda paste: paste[2] + paste[0].mask.shape[0]))


def insert_objects(sample: Sample, placed: Sequence[tuple[Cutout, int, int]]) -> Sample:
    """A copy of `sample` with objects set into it one after the other, each with its left and top edge [px], which may
    lie outside. Those with less than `MIN_AREA` px inside are left out."""
    image, codes = sample.image.copy(), sample.codes.copy()
    whole, classes = sample.areas().tolist(), sample.classes.tolist()
    for cutout, left, top in placed:
        x0, y0, x1, y1 = _visible_box(cutout.mask.shape, (left, top), sample.size)
        inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        mask = cutout.mask[inside]
        whole_area = int(cutout.mask.sum())
        if mask.sum() < MIN_AREA:
            continue
        cv2.copyTo(cutout.image[inside], mask.view(np.uint8), image[y0:y1, x0:x1])  # a hundred times NumPy's speed
        codes[y0:y1, x0:x1][mask] = FIRST_OBJECT + len(classes)
        classes.append(cutout.class_rank)
        whole.append(whole_area)
    return Sample(image, hide_remnants(codes, np.array(whole, np.int64)), np.array(classes, np.int64))


def _place(
    cutout: Cutout, size: tuple[int, int], settings: CopyPasteSettings, rng: np.random.Generator
) -> tuple[Cutout, int, int]:
    """The object rescaled and perhaps mirrored, with its left and top edge [px] in an image of `size`."""
    scale = rng.uniform(*settings.scale)
    resized = resize_cutout(cutout, float(scale), mirrored=bool(rng.random() < settings.flip))
    height, width = resized.mask.shape
    if settings.bottom_shift >= 1:
        top = int(rng.uniform(0, max(size[0] - height, 0)))
        left = int(rng.uniform(0, max(size[1] - width, 0)))
    else:
        bottom = cutout.bottom + rng.uniform(-settings.bottom_shift, settings.bottom_shift)
        top = round(bottom * size[0]) - height
        left = int(rng.uniform(0, size[1])) - width // 2  # may be cut by the border, as objects are
    return resized, left, top


def resize_cutout(cutout: Cutout, scale: float, *, mirrored: bool) -> Cutout:
    """The object `scale` times as large, bilinear, its mask by the nearest pixel, and perhaps mirrored."""
    height, width = (max(1, round(side * scale)) for side in cutout.mask.shape)
    image = cv2.resize(cutout.image, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(cutout.mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    if mirrored:
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    return Cutout(image, mask.astype(bool), cutout.class_rank, cutout.bottom)


def _visible_box(shape: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a box of `shape` at `corner` (left, top) that lies in an image of `size`; empty as x0 = x1."""
    left, top = corner
    x0, x1 = min(max(left, 0), size[1]), max(min(left + shape[1], size[1]), 0)
    y0, y1 = min(max(top, 0), size[0]), max(min(top + shape[0], size[0]), 0)
    return x0, y0, max(x0, x1), max(y0, y1)
