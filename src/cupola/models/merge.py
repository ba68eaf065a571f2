"""The panoptic merge of detections and semantic classes into one map (spec-network 1.11)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from cupola.models.records import SOME_THING
from cupola.types import Segment


def merge_panoptic(
    semantic: Int64[Tensor, "h w"],
    masks: Bool[Tensor, "n h w"],
    scores: Float[Tensor, "n"],
    classes: Int64[Tensor, "n"],
    *,
    score_threshold: float = 0.5,
    overlap: float = 0.5,
    stuff_area: float = 4096.0,
) -> tuple[Int32[Tensor, "h w"], tuple[Segment, ...]]:
    """Objects by descending score take their free pixels, then stuff takes what is left.

    semantic: channel of each pixel (0 = some thing, 1..S stuff); masks, scores, classes: the detections.
    score_threshold: least score of an object; overlap: an object is rejected if more than this share of its mask is
    taken; stuff_area: least free pixels of a stuff class. Returns the id of each pixel's segment, 0 = void (in
    particular thing pixels without an object), and the segments, ids from 1: things first, then stuff by channel.
    """
    panoptic = torch.zeros_like(semantic, dtype=torch.int32)
    segments: list[Segment] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        score = float(scores[index])
        if score < score_threshold:
            break
        mask = masks[index]
        free = mask & (panoptic == 0)
        area, free_area = int(mask.sum()), int(free.sum())
        if area == 0 or (area - free_area) / area > overlap:
            continue
        panoptic[free] = len(segments) + 1
        segments.append(Segment(len(segments) + 1, int(classes[index]), True, free_area, score))
    free_channels = torch.where(panoptic == 0, semantic, SOME_THING)
    areas = free_channels.flatten().bincount().tolist()
    ids = torch.zeros(len(areas), dtype=torch.int32)
    for channel, area in enumerate(areas):
        if channel != SOME_THING and area > 0 and area >= stuff_area:
            segments.append(Segment(len(segments) + 1, channel, False, area))
            ids[channel] = len(segments)
    return panoptic + ids.to(panoptic.device)[free_channels], tuple(segments)
