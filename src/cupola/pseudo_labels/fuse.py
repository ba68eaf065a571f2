"""Instances, semantics and the thing/stuff split become one panoptic label (spec-stage1 6.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int16, Int32

from cupola.errors import ConfigError
from cupola.pseudo_labels.align import classes_of_masks, spread
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
        stuff_instances: what becomes of a mask whose class is stuff: its pixels are ignored, or keep their class.
    """

    threshold: float = 0.08
    measure: Measure = "share"
    align: bool = True
    ignore_thing_without_instance: bool = True
    stuff_instances: Literal["drop_and_ignore", "drop_keep_class"] = "drop_and_ignore"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"the fusion threshold must be at least 0 and below 1, not {self.threshold}")


def fuse(
    semantic: Int16[np.ndarray, "h w"],
    instances: Int32[np.ndarray, "h w"],
    split: ThingStuffSplit,
    settings: FusionSettings,
) -> PanopticMap:
    """The label of one frame: pseudo class (`VOID` = ignore) and instance id, kept from `instances` for things.

    semantic: raw pseudo class of each pixel (before alignment), `VOID` = unknown; instances: 0 = none. Without
    alignment the pixels of a mask keep their own classes, and those of the mask's class alone make its instance.
    """
    ids, of_mask = classes_of_masks(semantic, instances)
    is_thing = np.isin(of_mask, split.things)
    mask_class = spread(np.full_like(semantic, VOID), instances, ids, of_mask)
    in_thing = spread(np.zeros_like(semantic), instances, ids, is_thing.astype(np.int16)) > 0

    classes = np.where(instances > 0, mask_class, semantic) if settings.align else semantic.copy()
    kept = np.where(in_thing & (classes == mask_class), instances, 0)
    if settings.ignore_thing_without_instance:
        classes[np.isin(classes, split.things) & (kept == 0)] = VOID
    if settings.stuff_instances == "drop_and_ignore":
        classes[(instances > 0) & ~in_thing] = VOID
    return PanopticMap(classes, kept)
