"""Boxes: their code, matching to objects, sampling, and the share of a box that is ignored.

Boxes are (x0, y0, x1, y1) in continuous pixels: the image spans [0, w] x [0, h] (spec-network, head).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor
from torchvision.ops import batched_nms

from cupola.models.kernels import suppress_boxes

MAX_LOG_SCALE = math.log(1000 / 16)
"""A box grows at most by this log factor in one step (spec-network 1.5)."""

MAX_SEED = 2**62
"""Seeds of one image's draws are below this."""

CodeWeights = tuple[float, float, float, float]
"""Factors of (dx, dy, dw, dh)."""


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def encode_boxes(
    boxes: Float[Tensor, "n 4"], references: Float[Tensor, "n 4"], weights: CodeWeights
) -> Float[Tensor, "n 4"]:
    """The deltas that take `references` to `boxes` (spec-network 1.5); both need positive sides."""
    x, y, width, height = _centres(boxes)
    from_x, from_y, from_width, from_height = _centres(references)
    deltas = (
        (x - from_x) / from_width,
        (y - from_y) / from_height,
        torch.log(width / from_width),
        torch.log(height / from_height),
    )
    return torch.stack(deltas, -1) * boxes.new_tensor(weights)


def decode_boxes(
    deltas: Float[Tensor, "*n 4"], references: Float[Tensor, "*n 4"], weights: CodeWeights
) -> Float[Tensor, "*n 4"]:
    """`references` moved by `deltas`, in float32 (spec-network 1.5); not clipped."""
    dx, dy, dw, dh = (deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)).unbind(-1)
    x, y, width, height = _centres(references.float())
    x, y = x + dx * width, y + dy * height
    half_width = width * dw.clamp(max=MAX_LOG_SCALE).exp() / 2
    half_height = height * dh.clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), -1)


def clip_boxes(boxes: Float[Tensor, "*n 4"], size: tuple[int, int]) -> Float[Tensor, "*n 4"]:
    """Boxes cut to an image of `size` = (height, width) [px]."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), -1)


def has_area(boxes: Float[Tensor, "n 4"], side: float = 0.0) -> Bool[Tensor, "n"]:
    """Which boxes are finite and have both sides longer than `side` [px]."""
    longer = (boxes[:, 2] - boxes[:, 0] > side) & (boxes[:, 3] - boxes[:, 1] > side)
    return longer & torch.isfinite(boxes).all(-1)


def boxes_of_masks(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """Half-open boxes around masks (spec-network N4): x1 = last column + 1. An empty mask has the box (0, 0, 0, 0)."""
    count, height, width = masks.shape
    if count == 0:
        return torch.zeros(0, 4, device=masks.device)
    columns, rows = masks.any(1), masks.any(2)

    def first_and_end(occupied: Tensor, length: int) -> tuple[Tensor, Tensor]:
        start = occupied.int().argmax(1)
        end = length - occupied.flip(1).int().argmax(1)
        return start, torch.where(occupied.any(1), end, 0)

    x0, x1 = first_and_end(columns, width)
    y0, y1 = first_and_end(rows, height)
    return torch.stack((x0, y0, x1, y1), -1).float()


def pairwise_iou(first: Float[Tensor, "m 4"], second: Float[Tensor, "n 4"]) -> Float[Tensor, "m n"]:
    """Overlap of every pair; 0 where both boxes are empty. Coordinate by coordinate: with the pairs of coordinates in
    the last axis, as torchvision has it, a CPU cannot use its vectors."""
    x0, y0, x1, y1 = (coordinate.contiguous() for coordinate in first[:, :, None].unbind(1))
    a0, b0, a1, b1 = (coordinate.contiguous() for coordinate in second.unbind(1))
    width = torch.minimum(x1, a1).sub_(torch.maximum(x0, a0)).clamp_(min=0)
    height = torch.minimum(y1, b1).sub_(torch.maximum(y0, b0)).clamp_(min=0)
    both = width.mul_(height)
    union = ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0)).sub_(both)
    return both.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def match_boxes(
    objects: Float[Tensor, "m 4"],
    boxes: Float[Tensor, "n 4"],
    negative: float,
    positive: float,
    best_floor: float | None = None,
) -> tuple[Int64[Tensor, "n"], Int8[Tensor, "n"], Float[Tensor, "n"]]:
    """The object each box overlaps most, whether that makes it one (1), background (0) or neither (-1), and the IoU.

    positive: IoU from which it is 1; negative: below which it is 0; best_floor: if given, all boxes that tie an
    object's largest IoU are 1 as well, provided it exceeds the floor (spec-network 1.5, N4). Without objects all boxes
    are background with index 0 and IoU 0.
    """
    if len(objects) == 0:
        index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return index, index.to(torch.int8), torch.zeros(len(boxes), device=boxes.device)
    overlap = pairwise_iou(objects, boxes)
    best, index = overlap.max(0)
    label = torch.full_like(index, -1, dtype=torch.int8)
    label[best < negative] = 0
    label[best >= positive] = 1
    if best_floor is not None and len(boxes):
        top = overlap.amax(1, keepdim=True)
        label[((overlap == top) & (top > best_floor)).any(0)] = 1
    return index, label, best


def sample(
    labels: Int8[Tensor, "n"], count: int, positive_share: float, generator: torch.Generator
) -> tuple[Int64[Tensor, "p"], Int64[Tensor, "q"]]:
    """Random indices of positives (label 1, at most `positive_share` of `count`) and of negatives (label 0) that fill
    up to `count`, each in random order (spec-network 1.5, 1.7). Draws come from `generator` alone."""

    def draw(value: int, limit: int) -> Tensor:
        candidates = (labels == value).nonzero().flatten()
        order = torch.randperm(len(candidates), generator=generator, device=generator.device)[:limit]
        return candidates[order.to(candidates.device)]

    positives = draw(1, int(count * positive_share))
    return positives, draw(0, count - len(positives))


def one_each(generator: torch.Generator, images: int) -> list[torch.Generator]:
    """A source of draws for each image, seeded by one draw from `generator`: what is drawn for an image then depends
    on its place in the batch alone, not on the other images."""
    seeds = torch.randint(MAX_SEED, (images,), generator=generator, device=generator.device).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def suppress(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n"], groups: Int64[Tensor, "n"], iou: float, limit: int
) -> Int64[Tensor, "k"]:
    """Non-maximum suppression inside each group; indices of the `limit` best that stay, by descending score (equal
    ones: by group, then by index)."""
    if boxes.device.type != "cpu":
        return torch.as_tensor(batched_nms(boxes, scores, groups, iou))[:limit]
    by_group = groups.argsort(stable=True)
    order = by_group[scores[by_group].argsort(descending=True, stable=True)]
    corners, group, ranked = (tensor.detach().contiguous().numpy() for tensor in (boxes.float(), groups, order))
    return torch.from_numpy(suppress_boxes(corners, group, ranked, iou, min(limit, len(order))))


def integral_image(mask: Bool[Tensor, "h w"]) -> Int64[Tensor, "h+1 w+1"]:
    """Counts of True above and left of each pixel corner."""
    height, width = mask.shape
    table = torch.zeros(height + 1, width + 1, dtype=torch.int64, device=mask.device)
    table[1:, 1:] = mask.to(torch.int32).cumsum(0).cumsum(1)
    return table


def covered_share(integral: Int64[Tensor, "h1 w1"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n"]:
    """Share of each box (rounded to pixels, cut to the image) that is True in the mask of `integral_image`; 0 for a box
    outside the image."""
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    x0, y0, x1, y1 = clip_boxes(boxes, (height, width)).round().long().unbind(-1)
    inside = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0)).clamp(min=1)
