"""Which pseudo classes are things: those whose pixels lie inside moving objects more often than others'
(spec-stage1 6.2, 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int16, Int32, Int64

from cupola.pseudo_labels.align import classes_of_masks
from cupola.types import VOID

Measure = Literal["share", "ratio"]


@dataclass(frozen=True)
class ClassStatistics:
    """Counts of each pseudo class. inside: pixels inside masks; total: pixels in all; masks: masks of the class."""

    inside: Int64[np.ndarray, "k"]
    total: Int64[np.ndarray, "k"]
    masks: Int64[np.ndarray, "k"]

    @staticmethod
    def zero(num_classes: int) -> ClassStatistics:
        """Nothing counted yet."""
        return ClassStatistics(*(np.zeros(num_classes, np.int64) for _ in range(3)))

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        return ClassStatistics(self.inside + other.inside, self.total + other.total, self.masks + other.masks)

    @property
    def num_classes(self) -> int:
        return len(self.total)

    @property
    def ratio(self) -> Float64[np.ndarray, "k"]:
        """Share of each class's pixels that lie inside masks, 0 for a class never seen."""
        ratio: np.ndarray = np.divide(self.inside, self.total, out=np.zeros(self.num_classes), where=self.total > 0)
        return ratio

    @property
    def share(self) -> Float64[np.ndarray, "k"]:
        """`ratio` divided by its sum over the classes; all 0 where no mask was seen."""
        ratio = self.ratio
        return ratio / max(float(ratio.sum()), np.finfo(np.float64).tiny)


def count_classes(
    semantic: Int16[np.ndarray, "h w"], instances: Int32[np.ndarray, "h w"], num_classes: int
) -> ClassStatistics:
    """Counts of one frame; `VOID` pixels are not counted. Count after `align`, unless alignment is ablated.

    Raises `ValueError` for a class that is not below `num_classes`.
    """
    if semantic.max(initial=VOID) >= num_classes:
        raise ValueError(f"class {semantic.max()} is not below the number of classes, {num_classes}")
    known = semantic != VOID
    _, classes = classes_of_masks(semantic, instances)
    return ClassStatistics(
        inside=np.bincount(semantic[known & (instances > 0)], minlength=num_classes),
        total=np.bincount(semantic[known], minlength=num_classes),
        masks=np.bincount(classes[classes != VOID], minlength=num_classes),
    )


def summed(counts: Iterable[ClassStatistics], num_classes: int) -> ClassStatistics:
    """The sum over frames."""
    return sum(counts, ClassStatistics.zero(num_classes))


@dataclass(frozen=True)
class PartStatistics:
    """Counts of each part (a finer class than a pseudo class). inside: pixels inside masks; total: pixels in all."""

    inside: Int64[np.ndarray, "p"]
    total: Int64[np.ndarray, "p"]

    @staticmethod
    def zero() -> PartStatistics:
        """Nothing counted yet."""
        return PartStatistics(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def __add__(self, other: PartStatistics) -> PartStatistics:
        count = max(len(self.total), len(other.total))
        padded = [np.pad(values, (0, count - len(values))) for values in (self.inside, other.inside)]
        totals = [np.pad(values, (0, count - len(values))) for values in (self.total, other.total)]
        return PartStatistics(padded[0] + padded[1], totals[0] + totals[1])


def count_parts(parts: Int16[np.ndarray, "h w"], instances: Int32[np.ndarray, "h w"]) -> PartStatistics:
    """Counts of one frame; `VOID` pixels are not counted."""
    known = parts != VOID
    count = int(parts.max(initial=VOID)) + 1
    return PartStatistics(
        inside=np.bincount(parts[known & (instances > 0)], minlength=count),
        total=np.bincount(parts[known], minlength=count),
    )


@dataclass(frozen=True)
class ThingStuffSplit:
    """Pseudo classes in descending order of the measure (ties: ascending class)."""

    things: tuple[int, ...]
    stuff: tuple[int, ...]


def split_classes(statistics: ClassStatistics, threshold: float, measure: Measure = "share") -> ThingStuffSplit:
    """A class is a thing where its measure is above the threshold (spec-stage1 6.3).

    measure: "share" compares classes with each other, as the published results do, so that a threshold is stricter for
    more classes; "ratio" takes the share of the class's own pixels. Without any mask there are no things.
    """
    values = statistics.share if measure == "share" else statistics.ratio
    order = np.argsort(-values, kind="stable").tolist()
    return ThingStuffSplit(
        things=tuple(k for k in order if values[k] > threshold), stuff=tuple(k for k in order if values[k] <= threshold)
    )


def movable_parts(
    parts: PartStatistics, classes: ClassStatistics, split: ThingStuffSplit, threshold: float
) -> tuple[int, ...]:
    """Parts that move more often than `threshold` times what the thing classes do together; 0 gives none.

    A pseudo class that is mostly house front can hold the white cars too: its parts tell them apart.
    """
    things = list(split.things)
    if threshold <= 0 or not classes.total[things].sum():
        return ()
    typical = classes.inside[things].sum() / classes.total[things].sum()
    return tuple(np.nonzero(parts.inside > threshold * typical * parts.total)[0].tolist())
