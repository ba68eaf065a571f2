"""Instances, semantics and the thing/stuff split become one panoptic label (spec-stage1 6.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int16, Int32

from cupola.errors import ConfigError
from cupola.pseudo_labels.align import count_votes, spread, winners
from cupola.pseudo_labels.statistics import Measure, ThingStuffSplit
from cupola.types import VOID, PanopticMap


@dataclass(frozen=True)
class FusionSettings:
    """How stored results become labels; another choice costs seconds, not a new run.

    Args:
        threshold: a pseudo class is a thing where its measure is above this (paper: 0.08).
        measure: what the threshold acts on: a class's share among all classes, or the ratio of its own pixels that
            move.
        align: all pixels of a mask get the mask's most frequent class.
        ignore_thing_without_instance: pixels of a thing class that nothing was seen to move are ignored in training.
        stuff_instances: what becomes of a mask whose class is stuff: its pixels are ignored, or keep their class, or
            the mask takes its most frequent thing class where things make up `least_thing` of it.
        least_thing: see stuff_instances; a mask with fewer thing pixels is ignored.
        sizes: things are not told apart by their pseudo class, as in the paper, but by at most so many groups of real
            size (width and height in metres); 0 turns it off.
        movable: a stuff pixel is ignored where its part (a finer class) moves more than this times as often as things
            do; 0 turns it off.
    """

    threshold: float = 0.08
    measure: Measure = "share"
    align: bool = True
    ignore_thing_without_instance: bool = True
    stuff_instances: Literal["drop_and_ignore", "drop_keep_class", "take_thing"] = "take_thing"
    least_thing: float = 0.1
    movable: float = 0.2
    sizes: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"the fusion threshold must be at least 0 and below 1, not {self.threshold}")


PAPER_FUSION = FusionSettings(stuff_instances="drop_and_ignore", movable=0.0, sizes=0)
"""The paper's rules (spec-stage1 6.3, 6.4), without what cupola adds to them."""


def fuse(
    semantic: Int16[np.ndarray, "h w"],
    instances: Int32[np.ndarray, "h w"],
    split: ThingStuffSplit,
    settings: FusionSettings,
    movable: Bool[np.ndarray, "h w"] | None = None,
    class_of_instance: Int16[np.ndarray, "n"] | None = None,
) -> PanopticMap:
    """The label of one frame: pseudo class (`VOID` = ignore) and instance id, kept from `instances` for things.

    semantic: raw pseudo class of each pixel (before alignment), `VOID` = unknown; instances: 0 = none; movable: pixels
    of parts that move (`settings.movable`), ignored where they lie outside masks; class_of_instance: the
    class of instance 1, 2, .. of things, instead of its pseudo class. Without alignment the pixels of a
    mask keep their own classes, and those of the mask's class alone make its instance.
    """
    ids, of_mask = _mask_classes(semantic, instances, split, settings)
    is_thing = np.isin(of_mask, split.things)
    mask_class = spread(np.full_like(semantic, VOID), instances, ids, of_mask)
    in_thing = spread(np.zeros_like(semantic), instances, ids, is_thing.astype(np.int16)) > 0

    classes = np.where(instances > 0, mask_class, semantic) if settings.align else semantic.copy()
    kept = np.where(in_thing & (classes == mask_class), instances, 0)
    if settings.ignore_thing_without_instance:
        classes[np.isin(classes, split.things) & (kept == 0)] = VOID
    if settings.stuff_instances != "drop_keep_class":
        classes[(instances > 0) & ~in_thing] = VOID
    if movable is not None:
        classes[movable & (instances == 0)] = VOID
    if class_of_instance is not None:
        classes = np.where(kept > 0, class_of_instance[np.maximum(kept, 1) - 1], classes) if kept.any() else classes
    return PanopticMap(classes, kept)


def _mask_classes(
    semantic: Int16[np.ndarray, "h w"],
    instances: Int32[np.ndarray, "h w"],
    split: ThingStuffSplit,
    settings: FusionSettings,
) -> tuple[Int32[np.ndarray, "n"], Int16[np.ndarray, "n"]]:
    """Ids of the masks and the class of each: the most frequent one, or the most frequent of things (`take_thing`)."""
    ids, votes = count_votes(semantic, instances)
    classes = winners(votes)
    things = sorted(k for k in split.things if k < votes.shape[1])
    if settings.stuff_instances != "take_thing" or not things:
        return ids, classes
    of_things = votes[:, things]
    enough = of_things.sum(1) > settings.least_thing * votes.sum(1)
    taken = np.array(things, np.int16)[of_things.argmax(1)]
    return ids, np.where(~np.isin(classes, things) & enough, taken, classes)
