"""What all frames together say about fusing each of them: which classes are things, which parts move, which sizes the
objects have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32

from cupola.config import plain
from cupola.pseudo_labels.fuse import FusionSettings, fuse
from cupola.pseudo_labels.journal import FrameDone, counts_from_json, counts_to_json, parts_from_json, parts_to_json
from cupola.pseudo_labels.sizes import group_of, group_sizes
from cupola.pseudo_labels.statistics import (
    ClassStatistics,
    PartStatistics,
    ThingStuffSplit,
    movable_parts,
    split_classes,
    summed,
)
from cupola.types import PanopticMap


@dataclass(frozen=True)
class FusionRule:
    """Counts of the pseudo classes and of their parts, typical sizes of the objects [m], and the settings.

    Classes of labels: 0..K-1 are the pseudo classes; where objects are told apart by size, K, K+1, .. are the groups of
    sizes, the most frequent first, and only they are things.
    """

    settings: FusionSettings
    counts: ClassStatistics
    parts: PartStatistics
    sizes: Float64[np.ndarray, "g 2"]

    @staticmethod
    def of(frames: Iterable[FrameDone], num_classes: int, settings: FusionSettings) -> FusionRule:
        """The rule that these frames make; class counts after alignment, unless that is ablated."""
        frames = list(frames)
        counts = summed((frame.aligned if settings.align else frame.raw for frame in frames), num_classes)
        parts = sum((frame.parts for frame in frames), PartStatistics.zero())
        extents = np.concatenate([np.zeros((0, 2), np.float32), *(frame.extents for frame in frames)])
        return FusionRule(settings, counts, parts, group_sizes(extents, settings.sizes))

    @cached_property
    def split(self) -> ThingStuffSplit:
        """The pseudo classes of things and of stuff."""
        return split_classes(self.counts, self.settings.threshold, self.settings.measure)

    @cached_property
    def movable(self) -> tuple[int, ...]:
        """Parts that are ignored where they are stuff."""
        return movable_parts(self.parts, self.counts, self.split, self.settings.movable)

    @property
    def num_classes(self) -> int:
        """Classes that labels may hold."""
        return self.counts.num_classes + len(self.sizes)

    @property
    def things(self) -> tuple[int, ...]:
        """Classes of objects: groups of sizes, the most frequent first, or pseudo classes by descending share. None
        where no pseudo class is a thing."""
        if not len(self.sizes) or not self.split.things:
            return self.split.things
        return tuple(range(self.counts.num_classes, self.num_classes))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class, as good as it can be without labels."""
        groups = [f"things of {width:.1f} x {height:.1f} m" for width, height in self.sizes]
        return (*(f"class {k}" for k in range(self.counts.num_classes)), *groups)

    def label(
        self,
        semantic: Int16[np.ndarray, "h w"],
        instances: Int32[np.ndarray, "h w"],
        parts: Int32[np.ndarray, "h w"] | None,
        extents: Float32[np.ndarray, "n 2"],
    ) -> PanopticMap:
        """The label of a frame: raw pseudo classes, objects 1..n, parts where there are any, sizes [m]."""
        movable = None
        if parts is not None and self.movable:
            table = np.zeros(max(int(parts.max()), *self.movable) + 1, bool)
            table[list(self.movable)] = True
            movable = table[parts]
        classes = None
        if len(self.sizes):
            classes = (self.counts.num_classes + group_of(extents, self.sizes)).astype(np.int16)
        return fuse(semantic, instances, self.split, self.settings, movable, classes)

    def to_json(self) -> dict[str, Any]:
        """As statistics.json keeps it, with what people want to read."""
        return {
            "counts": counts_to_json(self.counts),
            "parts": parts_to_json(self.parts),
            "sizes": self.sizes.tolist(),
            "fusion": plain(self.settings),
            "share": [round(float(value), 6) for value in self.counts.share],
            "ratio": [round(float(value), 6) for value in self.counts.ratio],
            "things": list(self.things),
            "thing_pseudo_classes": list(self.split.things),
            "stuff": list(self.split.stuff),
            "movable_parts": list(self.movable),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> FusionRule:
        """The inverse of `to_json`. Raises `KeyError`, `TypeError`, `ValueError` or `ConfigError` for anything else."""
        return FusionRule(
            FusionSettings(**content["fusion"]),
            counts_from_json(content["counts"]),
            parts_from_json(content["parts"]),
            np.array(content["sizes"], np.float64).reshape(-1, 2),
        )
