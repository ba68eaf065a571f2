"""Scores of a row: its labels, fused in memory from its store, against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cupola.ablation.rows import Row
from cupola.correspondence import CorrespondenceProvider
from cupola.data import FrameRecord, StereoDataset
from cupola.evaluation import (
    ConfusionMatrix,
    Evaluation,
    EvaluationSettings,
    Judged,
    evaluate_maps,
    match_classes,
)
from cupola.io import read_ids, write_ids
from cupola.pseudo_labels import FusionSettings, LabelStore
from cupola.taxonomy import CITYSCAPES_19
from cupola.types import VOID

DEPTHS = (10.0, 30.0)
"""Where one range of depths ends and the next begins, in the paper's table 10 [m]."""

DEPTH_NAMES = ("to 10 m", "10 to 30 m", "from 30 m")

DEPTH_TABLE = 10
"""The table whose rows are told apart by depth."""


@dataclass(frozen=True)
class Measured:
    """A row and what was found. evaluation: of its labels, None where it was not run; by_depth: mIoU of its pseudo
    classes before fusion, all in all and in each range of depths, for rows of table 10."""

    row: Row
    evaluation: Evaluation | None = None
    by_depth: dict[str, float] | None = None

    def figures(self) -> dict[str, float]:
        """What tables show: shares in [0, 1], NaN where undefined, and numbers of objects.

        `_published`: void in the prediction is forgiven, as in the paper's own scores; `_careful`: classes that hardly
        overlap are not matched.
        """
        result = self.evaluation
        if result is None:
            return {}
        scores, semantic, moving = result.matched.standard, result.matched.semantic_standard, result.objects.moving
        figures: dict[str, float] = {
            "pq_published": result.matched.published.all.pq,
            "pq": scores.all.pq,
            "sq": scores.all.sq,
            "rq": scores.all.rq,
            "pq_things": scores.things.pq,
            "pq_stuff": scores.stuff.pq,
            "pq_careful": result.careful.standard.all.pq,
            "miou": semantic.miou,
            "miou_published": result.matched.semantic_published.miou,
            "accuracy": semantic.accuracy,
            "void_share": result.void_share,
            "predicted_objects": result.objects.predicted,
            "false_objects": result.objects.false_objects,
        }
        if moving is not None:
            figures |= {"moving_found": moving.found, "moving_true": moving.total, "moving_share": moving.share}
        return figures


@dataclass(frozen=True)
class ScoreLabels:
    """Item: a label store's name and how it is fused; result: the scores of these labels. stores: folder of the
    stores."""

    stores: Path
    settings: EvaluationSettings

    def __call__(self, item: tuple[str, FusionSettings]) -> Evaluation:
        store = LabelStore.open(self.stores / item[0]).fused_with(item[1])
        things: Bool[np.ndarray, "p"] = np.isin(np.arange(store.num_classes), store.things)
        return evaluate_maps(_judged(store), CITYSCAPES_19, things, self.settings)


@dataclass(frozen=True)
class ScoreDepths:
    """Item: a label store's name; result: `miou_by_depth`. stores, depth: folders of the stores and of the ranges of
    depths."""

    stores: Path
    depth: Path

    def __call__(self, item: str) -> dict[str, float]:
        return miou_by_depth(LabelStore.open(self.stores / item), self.depth)


def _judged(store: LabelStore) -> Iterator[Judged]:
    for key in store.keys:
        record = store.record(key)
        truth = store.dataset.truth(record, CITYSCAPES_19)
        if truth is not None:
            scores = dict(enumerate(store.entries[key].scores, 1))
            label, truth = store.dataset.judged(record, store.label(key), truth)
            yield Judged(key, label, truth, store.dataset.moving(record), scores)


def miou_by_depth(store: LabelStore, depth: Path) -> dict[str, float]:
    """mIoU of the pseudo classes as stage 1b gives them (before fusion), over all pixels and in each range of depths:
    the same matching of classes in all. Pixels of unknown depth count only in `all`. depth: holds what `depth_ranges`
    gave, as KEY.png. Raises `ImageError`."""
    names = ("all", *DEPTH_NAMES)
    confusions = [ConfusionMatrix(store.rule.counts.num_classes, len(CITYSCAPES_19)) for _ in names]
    for key in store.keys:
        truth = store.dataset.truth(store.record(key), CITYSCAPES_19)
        if truth is not None:
            classes, ranges = store.semantic(key), read_ids(depth / f"{key}.png")
            for number, confusion in enumerate(confusions):
                asked = truth.classes if number == 0 else np.where(ranges == number, truth.classes, np.int16(VOID))
                confusion.update(classes, asked)
    assignment = match_classes(confusions[0].counts, drop_absent=True)
    return {name: matrix.compute(assignment).miou for name, matrix in zip(names, confusions, strict=True)}


@dataclass(frozen=True)
class WriteDepth:
    """Item: a frame; writes its ranges of depths (`depth_ranges`) as KEY.png."""

    dataset: StereoDataset
    correspondence: CorrespondenceProvider
    out: Path

    def __call__(self, record: FrameRecord) -> None:
        frame = self.dataset.frame(record)
        disparity, valid = self.correspondence.disparity(frame)
        ranges = depth_ranges(disparity, valid, frame.calibration.fx * frame.calibration.baseline)
        write_ids(self.out / f"{record.key}.png", ranges, bits=8)


def depth_ranges(
    disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], scale: float
) -> UInt8[np.ndarray, "h w"]:
    """0 where the depth is unknown, else 1, 2, .. by `DEPTHS`. disparity [px]; scale: focal length times baseline
    [px m]."""
    known = valid & (np.where(valid, disparity, 0) > 0)
    metres = scale / np.where(known, disparity, 1).astype(np.float64)
    return np.where(known, 1 + np.digitize(metres, DEPTHS), 0).astype(np.uint8)


def plain_figures(values: dict[str, Any]) -> dict[str, Any]:
    """Rounded for JSON; undefined figures are null."""
    return {name: None if np.isnan(value) else round(value, 6) for name, value in values.items()}
