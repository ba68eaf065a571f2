"""The panoptic merge of detections and semantic classes into one map (spec-network 1.11)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from cupola.models.boxes import clip_boxes
from cupola.models.records import SOME_THING
from cupola.models.settings import MergeSettings
from cupola.types import Segment


@dataclass(frozen=True)
class MergeLimits:
    """Thresholds of one merge. score: least score of an object; overlap: an object is rejected if more than this share
    of it is taken; stuff_area: smallest stuff segment [px], stuff_share: the same as a share of the image."""

    score: float
    overlap: float
    stuff_area: float
    stuff_share: float

    @staticmethod
    def of(
        settings: MergeSettings,
        score_threshold: float,
        merge_threshold: float | None,
        overlap: float | None,
        stuff_area: int | None,
    ) -> MergeLimits:
        """The arguments of `predict`, where they are given, else the settings."""
        return MergeLimits(
            score_threshold if merge_threshold is None else merge_threshold,
            settings.overlap if overlap is None else overlap,
            float(settings.stuff_area if stuff_area is None else stuff_area),
            settings.stuff_share if stuff_area is None else 0.0,
        )

    def least_stuff(self, pixels: int) -> float:
        """Pixels of the smallest stuff segment in an image of so many."""
        return max(self.stuff_area, self.stuff_share * pixels)


def merge_panoptic(
    semantic: Int64[Tensor, "h w"],
    masks: Bool[Tensor, "n h w"],
    scores: Float[Tensor, "n"],
    classes: Int64[Tensor, "n"],
    boxes: Float[Tensor, "n 4"] | None = None,
    *,
    score_threshold: float = 0.5,
    overlap: float = 0.5,
    stuff_area: float = 4096.0,
) -> tuple[Int32[Tensor, "h w"], tuple[Segment, ...]]:
    """Objects by descending score take their free pixels, then stuff takes what is left.

    semantic: channel of each pixel (0 = some thing, 1..S stuff); masks, scores, classes: the detections; boxes: around
    them [px], which saves looking for masks elsewhere.
    score_threshold: least score of an object; overlap: an object is rejected if more than this share of its mask is
    taken; stuff_area: least free pixels of a stuff class. Returns the id of each pixel's segment, 0 = void (in
    particular thing pixels without an object), and the segments, ids from 1: things first, then stuff by channel.
    """
    panoptic = torch.zeros_like(semantic, dtype=torch.int32)
    windows = _windows(boxes, len(masks), (semantic.shape[0], semantic.shape[1]))
    segments: list[Segment] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        score = float(scores[index])
        if score < score_threshold:
            break
        window = windows[index]
        mask, painted = masks[index][window], panoptic[window]
        free = mask & (painted == 0)
        area, free_area = int(mask.sum()), int(free.sum())
        if area == 0 or (area - free_area) / area > overlap:
            continue
        painted.masked_fill_(free, len(segments) + 1)
        segments.append(Segment(len(segments) + 1, int(classes[index]), True, free_area, score))
    free_channels = torch.where(panoptic == 0, semantic, SOME_THING)
    areas = free_channels.flatten().bincount().tolist()
    ids = torch.zeros(len(areas), dtype=torch.int32)
    for channel, area in enumerate(areas):
        if channel != SOME_THING and area > 0 and area >= stuff_area:
            segments.append(Segment(len(segments) + 1, channel, False, area))
            ids[channel] = len(segments)
    return panoptic + ids.to(panoptic.device)[free_channels], tuple(segments)


def _windows(boxes: Tensor | None, count: int, size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the pixels that each box touches; all of them without boxes."""
    if boxes is None:
        return [(slice(None), slice(None))] * count
    outer = torch.cat((boxes[:, :2].floor(), boxes[:, 2:].ceil()), 1)
    return [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in clip_boxes(outer, size).long().tolist()]
