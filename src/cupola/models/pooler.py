"""ROIAlign over the pyramid (spec-network 1.6): each box is read from the level that fits its size."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

from cupola.models.fpn import LEVELS
from cupola.models.settings import PoolerSettings

CANONICAL_LEVEL = 4
"""Level of a box of the canonical size (spec-network 1.6)."""


def box_levels(boxes: Float[Tensor, "n 4"], canonical_size: float) -> Int64[Tensor, "n"]:
    """Pyramid level (2..5) of each box: floor(4 + log2(sqrt(area) / canonical size)), clamped (spec-network 1.6)."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    level = (CANONICAL_LEVEL + torch.log2(side / canonical_size + 1e-8)).floor()
    return level.clamp(LEVELS[0], LEVELS[-1]).long()


def pool(
    features: list[Tensor], boxes: list[Tensor], output_size: int, settings: PoolerSettings
) -> Float[Tensor, "n c s s"]:
    """Features of the boxes of each image, image after image.

    features: P2 to P5 of the batch, b x c x h x w (further levels are not read); boxes: n_i x 4 [px] for each image.
    """
    regions = torch.cat(boxes)
    counts = torch.tensor([len(box) for box in boxes], device=regions.device)
    image = torch.repeat_interleave(torch.arange(len(boxes), device=regions.device), counts)
    levels = box_levels(regions, settings.canonical_size)
    if regions.device.type == "cpu" and settings.sampling_ratio > 0:
        return pool_by_rows(features, regions, image, levels, output_size, settings.sampling_ratio)
    return pool_by_level(features, regions, image, levels, output_size, settings.sampling_ratio)


def pool_by_level(
    features: list[Tensor],
    boxes: Float[Tensor, "n 4"],
    image: Int64[Tensor, "n"],
    levels: Int64[Tensor, "n"],
    output_size: int,
    sampling_ratio: int,
) -> Float[Tensor, "n c s s"]:
    """torchvision's ROIAlign, a call a level."""
    rois = torch.cat((image[:, None].to(boxes.dtype), boxes), 1)
    parts, places = [], []
    for level, feature in zip(LEVELS, features, strict=False):
        place = (levels == level).nonzero().flatten()
        if len(place):
            size = (output_size, output_size)
            pooled = roi_align(feature, rois[place].to(feature.dtype), size, 1 / 2**level, sampling_ratio, aligned=True)
            parts.append(pooled)
            places.append(place)
    if not parts:
        return features[0].new_zeros(0, features[0].shape[1], output_size, output_size)
    return torch.cat(parts)[torch.cat(places).argsort()]


def pool_by_rows(
    features: list[Tensor],
    boxes: Float[Tensor, "n 4"],
    image: Int64[Tensor, "n"],
    levels: Int64[Tensor, "n"],
    output_size: int,
    sampling_ratio: int,
) -> Float[Tensor, "n c s s"]:
    """The same values for a CPU, four times as fast with its gradient.

    All levels together are a table with a row of channels for each place; a bin is a weighted sum of rows (four for
    each of its samples), which is what an embedding bag computes, on whole vectors of channels.
    """
    batch, channels = features[0].shape[:2]
    levels_used = features[: len(LEVELS)]
    table = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in levels_used]).float()
    heights = torch.tensor([feature.shape[2] for feature in levels_used])
    widths = torch.tensor([feature.shape[3] for feature in levels_used])
    starts = batch * torch.cat((torch.zeros(1, dtype=torch.int64), (heights * widths).cumsum(0)[:-1]))
    level = levels - LEVELS[0]
    height, width = heights[level], widths[level]
    scaled = boxes.float() * 0.5 ** levels[:, None] - 0.5
    rows, row_weights = _taps(scaled[:, 1], scaled[:, 3], height, output_size, sampling_ratio)
    columns, column_weights = _taps(scaled[:, 0], scaled[:, 2], width, output_size, sampling_ratio)
    first = (starts[level] + image * height * width)[:, None, None, None, None]
    index = first + rows[:, :, None, :, None] * width[:, None, None, None, None] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    taps = (2 * sampling_ratio) ** 2
    pooled = functional.embedding_bag(
        index.reshape(-1, taps), table, mode="sum", per_sample_weights=weights.reshape(-1, taps) / sampling_ratio**2
    )
    return pooled.reshape(len(boxes), output_size, output_size, channels).permute(0, 3, 1, 2)


def _taps(
    start: Float[Tensor, "n"], end: Float[Tensor, "n"], length: Int64[Tensor, "n"], bins: int, samples: int
) -> tuple[Int64[Tensor, "n bins taps"], Float[Tensor, "n bins taps"]]:
    """Along one axis: the places that each bin's samples lie between, and their bilinear weights.

    start, end: of the boxes in units of places, whose centres are integers; length: number of places. As in ROIAlign, a
    sample up to one place outside takes the border's value, further outside 0.
    """
    offsets = (torch.arange(bins * samples) + 0.5) / (bins * samples)
    at = start[:, None] + (end - start)[:, None] * offsets
    last = (length - 1)[:, None]
    inside = (at >= -1) & (at <= length[:, None])
    at = at.clamp(min=0).minimum(last)
    lower = at.floor()
    upper_weight = at - lower
    lower = lower.long()
    places = torch.stack((lower, (lower + 1).minimum(last)), -1)
    weights = torch.stack((1 - upper_weight, upper_weight), -1) * inside[..., None]
    return places.reshape(len(start), bins, 2 * samples), weights.reshape(len(start), bins, 2 * samples)
