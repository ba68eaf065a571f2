"""Panoptic quality, standard and as the paper's code computes it (spec-network 5.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from cupola.evaluation.contingency import Contingency, contingency, segments_of
from cupola.types import VOID

MATCH_IOU = 0.5
"""Segments match above this IoU; then at most one can (the definition of PQ)."""

MAX_VOID_SHARE = 0.5
"""A segment that matches nothing is not counted wrong if a larger share of it is void."""

Protocol = Literal["standard", "published"]
"""How void counts. `standard`: as panopticapi, void in the truth only. `published`: as the paper's code (torchmetrics):
void in the prediction too is taken out of unions, and true segments mostly predicted void are not missed, so leaving
pixels void is rewarded; crowds are objects."""


@dataclass(frozen=True)
class PanopticMeans:
    """Means over `classes` classes, those with any true or predicted segment; NaN if there are none."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class PanopticScores:
    """PQ, SQ and RQ in [0, 1]: means over all, thing and stuff classes, and each class (NaN where nothing counts).

    counted: classes that enter the means. iou_sum: over matched pairs of segments, whose number is true_positives.
    """

    protocol: Protocol
    all: PanopticMeans
    things: PanopticMeans
    stuff: PanopticMeans
    pq: Float64[np.ndarray, "c"]
    sq: Float64[np.ndarray, "c"]
    rq: Float64[np.ndarray, "c"]
    iou_sum: Float64[np.ndarray, "c"]
    true_positives: Int64[np.ndarray, "c"]
    false_positives: Int64[np.ndarray, "c"]
    false_negatives: Int64[np.ndarray, "c"]
    counted: Bool[np.ndarray, "c"]


class PanopticQuality:
    """Collects images, then scores them, under any matching of classes.

        quality = PanopticQuality(is_thing=[False, False, True])
        quality.update(prediction, target)       # H x W x 2: class and instance of each pixel
        quality.compute().all.pq

    Classes outside 0..len(is_thing)-1 are void: -1 as well as 255. Instances of stuff are ignored; pixels of a thing
    with instance 0 form one segment. Only tables of segment pairs are kept, not the maps.
    """

    def __init__(self, is_thing: Sequence[bool] | Bool[np.ndarray, "c"]) -> None:
        self.is_thing = np.asarray(is_thing, bool)
        self.images: list[Contingency] = []

    def update(
        self,
        prediction: Integer[np.ndarray, "h w 2"],
        target: Integer[np.ndarray, "h w 2"],
        crowds: Iterable[tuple[int, int]] = (),
        scores: Mapping[int, float] | None = None,
    ) -> None:
        """Adds one image. crowds: (class, instance) of true segments that stand for several objects; scores: of
        predicted instances, for AP alone (`average_precision` of `images`)."""
        self.images.append(contingency(prediction, target, crowds, scores))

    def compute(
        self,
        protocol: Protocol = "standard",
        assignment: Int64[np.ndarray, "p"] | None = None,
        classes: Bool[np.ndarray, "c"] | None = None,
    ) -> PanopticScores:
        """Scores of all images so far. assignment: class of each predicted (pseudo) class, see `match_classes`; None:
        predictions hold true classes. classes: those that may enter the means (None: all)."""
        return panoptic_scores(self.images, self.is_thing, protocol, assignment, classes)


def panoptic_scores(
    images: Sequence[Contingency],
    is_thing: Bool[np.ndarray, "c"],
    protocol: Protocol = "standard",
    assignment: Int64[np.ndarray, "p"] | None = None,
    classes: Bool[np.ndarray, "c"] | None = None,
) -> PanopticScores:
    """As `PanopticQuality.compute`, from the tables of the images."""
    iou_sum = np.zeros(len(is_thing))
    counts = np.zeros((3, len(is_thing)), np.int64)
    for image in images:
        ious, numbers = _score_image(image, is_thing, protocol, assignment)
        iou_sum += ious
        counts += numbers
    true_positives, false_positives, false_negatives = counts
    denominator = true_positives + (false_positives + false_negatives) / 2
    occurs = denominator > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        pq = np.where(occurs, iou_sum / denominator, np.nan)
        rq = np.where(occurs, true_positives / denominator, np.nan)
        sq = np.where(occurs, iou_sum / np.maximum(true_positives, 1), np.nan)
    counted = occurs if classes is None else occurs & classes

    def means(chosen: Bool[np.ndarray, "c"]) -> PanopticMeans:
        if not chosen.any():
            return PanopticMeans(float("nan"), float("nan"), float("nan"), 0)
        return PanopticMeans(
            float(pq[chosen].mean()), float(sq[chosen].mean()), float(rq[chosen].mean()), int(chosen.sum())
        )

    return PanopticScores(
        protocol,
        means(counted),
        means(counted & is_thing),
        means(counted & ~is_thing),
        pq,
        sq,
        rq,
        iou_sum,
        true_positives,
        false_positives,
        false_negatives,
        counted,
    )


@dataclass(frozen=True)
class _Side:
    """The segments of one side of an image. index: segment of each pair; void: pixels void on the other side."""

    classes: Int64[np.ndarray, "s"]
    index: Int64[np.ndarray, "k"]
    area: Int64[np.ndarray, "s"]
    void: Int64[np.ndarray, "s"]

    @staticmethod
    def of(segments: Int64[np.ndarray, "k 2"], other: Int64[np.ndarray, "k 2"], areas: Int64[np.ndarray, "k"]) -> _Side:
        unique, index = np.unique(segments, axis=0, return_inverse=True)
        index = index.reshape(-1)

        def total(weights: Int64[np.ndarray, "k"]) -> Int64[np.ndarray, "s"]:
            return np.bincount(index, weights, len(unique)).astype(np.int64)

        return _Side(unique[:, 0], index, total(areas), total(np.where(other[:, 0] == VOID, areas, 0)))


def _score_image(
    image: Contingency,
    is_thing: Bool[np.ndarray, "c"],
    protocol: Protocol,
    assignment: Int64[np.ndarray, "p"] | None,
) -> tuple[Float64[np.ndarray, "c"], Int64[np.ndarray, "3 c"]]:
    """Sum of matched IoUs, and numbers of true positives, false positives and false negatives, of each class."""
    published, classes = protocol == "published", len(is_thing)
    segments = segments_of(image.predicted, is_thing, assignment), segments_of(image.true, is_thing, None)
    predicted = _Side.of(segments[0], segments[1], image.areas)
    true = _Side.of(segments[1], segments[0], image.areas)
    # Pairs of instances that the assignment or the stuff rule made one are added up.
    pairs, pair = np.unique(predicted.index * len(true.classes) + true.index, return_inverse=True)
    shared = np.bincount(pair.reshape(-1), image.areas, len(pairs)).astype(np.int64)
    p, t = pairs // max(len(true.classes), 1), pairs % max(len(true.classes), 1)

    crowd = np.zeros(len(true.classes), bool)
    if not published:
        crowd[true.index[image.crowd]] = True
    union = predicted.area[p] + true.area[t] - shared - predicted.void[p]
    if published:
        union = union - true.void[t]
    same = (predicted.classes[p] == true.classes[t]) & (true.classes[t] != VOID)
    iou = np.where(same, shared / np.maximum(union, 1), 0.0)
    match = same & (iou > MATCH_IOU) & ~crowd[t]

    excused = predicted.void + np.bincount(p, np.where(same & crowd[t], shared, 0), len(predicted.classes))
    extra = (predicted.classes != VOID) & (excused <= MAX_VOID_SHARE * predicted.area)
    extra[p[match]] = False
    missed = (true.classes != VOID) & ~crowd
    if published:
        missed &= true.void <= MAX_VOID_SHARE * true.area
    missed[t[match]] = False
    found = true.classes[t[match]]
    # An empty bincount is of integers whatever its weights.
    return np.bincount(found, iou[match], classes).astype(np.float64), np.stack(
        [
            np.bincount(found, minlength=classes),
            np.bincount(predicted.classes[extra], minlength=classes),
            np.bincount(true.classes[missed], minlength=classes),
        ]
    )
