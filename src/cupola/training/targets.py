"""Training samples: an image and, in one array of codes, everything its label says; and how a target comes of it.

One code a pixel lets every geometric change, paste and occlusion act on one array: semantics, instances and the
ignored area cannot fall apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Int16, Int64, UInt8, UInt16

from cupola.errors import TrainingError
from cupola.models import IGNORE, SOME_THING, Target
from cupola.types import VOID, PanopticMap

UNMARKED = 254
"""Code of a pixel where an object may stand that no label marks: no target, and no evidence against objects."""

FIRST_OBJECT = 256
"""Code of object 0; object i has the code FIRST_OBJECT + i. Codes 1..S are stuff channels, `SOME_THING` = 0 are things
that a label does not tell apart (a crowd): their semantics are learnt, and they speak against no object where the rule
of negatives is aware of ignored pixels; `IGNORE` = 255 is void."""

MAX_STUFF = UNMARKED - 1
"""Most stuff classes that the codes have room for."""

MIN_AREA = 16
"""Objects with fewer visible pixels are no targets [px] (spec-network 2.4 [R])."""

MIN_VISIBLE = 0.1
"""Nor are objects of which a smaller share is visible (spec-network 2.4 [R])."""


@dataclass(frozen=True)
class Sample:
    """An image with its label. codes: 1..S stuff channel, `SOME_THING`, `UNMARKED`, `IGNORE`, or `FIRST_OBJECT` + i;
    classes: rank among the things of each object; an object may have no pixel left."""

    image: UInt8[np.ndarray, "h w 3"]
    codes: UInt16[np.ndarray, "h w"]
    classes: Int64[np.ndarray, "n"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) [px]."""
        return self.codes.shape[0], self.codes.shape[1]

    def areas(self) -> Int64[np.ndarray, "n"]:
        """Visible pixels of each object [px]."""
        return object_areas(self.codes, len(self.classes))


def require_room(stuff: int) -> None:
    """Raises `TrainingError` for more stuff classes than the codes have room for."""
    if stuff > MAX_STUFF:
        raise TrainingError(f"there are {stuff} stuff classes, but no more than {MAX_STUFF} can be learnt; unite some")


def object_areas(codes: UInt16[np.ndarray, "h w"], objects: int) -> Int64[np.ndarray, "n"]:
    """Pixels of objects 0..objects-1 [px]; exact below 2^24 px each."""
    if objects == 0:
        return np.zeros(0, np.int64)
    # an eighth of the time of np.bincount, which widens the codes to 64 bits first
    bins = cv2.calcHist([codes], [0], None, [objects], [FIRST_OBJECT, FIRST_OBJECT + objects])
    return bins.ravel().astype(np.int64)


def encode_label(
    label: PanopticMap,
    semantic: Int16[np.ndarray, "h w"],
    things: tuple[int, ...],
    stuff: tuple[int, ...],
    left_over: Literal["ignore", "thing"] = "ignore",
) -> tuple[UInt16[np.ndarray, "h w"], Int64[np.ndarray, "n"]]:
    """Codes and object classes of a fused label (spec-network 2.2, steps 6-10).

    label: pseudo classes, `VOID` = ignore, and instances; semantic: pseudo classes before fusing. What fusing made void
    may hide an object that nobody marked (a thing class without instance, a mover whose class is stuff, stuff that
    looks like what moves): `UNMARKED`, as is a thing class without instance that fusing let stand. What had no class
    to begin with is `IGNORE`. left_over: a thing class without instance is not learnt (paper), or is learnt as "some
    thing" in the semantics (the published code, N28). The class of an object is the most frequent class of its pixels
    (N12).
    """
    table = np.full(max((*things, *stuff, 0)) + 2, IGNORE, np.uint16)  # one entry more, so that VOID = -1 finds IGNORE
    table[list(stuff)] = 1 + np.arange(len(stuff), dtype=np.uint16)
    table[list(things)] = UNMARKED
    codes = table[label.classes]
    codes[(label.classes == VOID) & (semantic != VOID)] = UNMARKED
    if left_over == "thing":
        codes[np.isin(semantic, things)] = SOME_THING

    rank = {pseudo: number for number, pseudo in enumerate(things)}
    classes: list[int] = []
    for instance in np.unique(label.instances[label.instances > 0]):
        mask = (label.instances == instance) & np.isin(label.classes, things)
        if not mask.any():
            continue
        codes[mask] = FIRST_OBJECT + len(classes)
        classes.append(rank[int(np.bincount(label.classes[mask]).argmax())])
    return codes, np.array(classes, np.int64)


def hide_remnants(
    codes: UInt16[np.ndarray, "h w"], whole_areas: Int64[np.ndarray, "n"], min_visible: float = MIN_VISIBLE
) -> UInt16[np.ndarray, "h w"]:
    """Codes in which objects with less than `MIN_AREA` px or `min_visible` of their whole area [px] left are
    `UNMARKED`: too little to learn from, and no background either (N9)."""
    areas = object_areas(codes, len(whole_areas))
    gone = (areas > 0) & ((areas < MIN_AREA) | (areas < min_visible * whole_areas))
    if not gone.any():
        return codes
    table = np.arange(FIRST_OBJECT + len(areas), dtype=np.uint16)
    table[FIRST_OBJECT:][gone] = UNMARKED
    hidden: UInt16[np.ndarray, "h w"] = table[codes]
    return hidden


def make_target(sample: Sample) -> Target:
    """The tensors of a sample, objects without a pixel left out; boxes are half-open: x1 = last column + 1 (N4)."""
    codes = sample.codes.astype(np.int64)
    visible = np.flatnonzero(sample.areas())
    masks = np.zeros((len(visible), *sample.size), bool)
    boxes = np.zeros((len(visible), 4), np.float32)
    for row, index in enumerate(visible):
        masks[row] = sample.codes == FIRST_OBJECT + index
        boxes[row] = box_of_mask(masks[row])
    semantic = np.where(codes >= FIRST_OBJECT, SOME_THING, np.where(codes == UNMARKED, IGNORE, codes))
    return Target(
        semantic=torch.from_numpy(semantic),
        masks=torch.from_numpy(masks),
        boxes=torch.from_numpy(boxes),
        classes=torch.from_numpy(sample.classes[visible]),
        ignore=torch.from_numpy((codes == UNMARKED) | (codes == SOME_THING)),
    )


def box_of_mask(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) [px], half-open, of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
