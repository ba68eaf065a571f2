"""ROIAlign over the pyramid (spec-network 1.6): each box is read from the level that fits its size."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_align

from cupola.models.fpn import LEVELS
from cupola.models.kernels import pool_boxes, spread_boxes
from cupola.models.settings import PoolerSettings

CANONICAL_LEVEL = 4
"""Level of a box of the canonical size (spec-network 1.6)."""

VECTOR = 16
"""Channels that one vector instruction takes at most."""

WORTH_A_THREAD = 2**21
"""Pooled values that a thread must have to do for another to pay: waking one costs milliseconds while torch's own
threads, which wait for their next work without sleeping, hold the cores (benchmarks/network.py)."""


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
    function = pool_by_places if regions.device.type == "cpu" else pool_by_level
    return function(features, regions, image, levels, output_size, settings.sampling_ratio)


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


def pool_by_places(
    features: list[Tensor],
    boxes: Float[Tensor, "n 4"],
    image: Int64[Tensor, "n"],
    levels: Int64[Tensor, "n"],
    output_size: int,
    sampling_ratio: int,
) -> Float[Tensor, "n c s s"]:
    """The same values for a CPU in float32, several times as fast (forward and backward; benchmarks/network.py)."""
    used = [feature.float() for feature in features[: len(LEVELS)]]
    scaled = boxes.float() * 0.5 ** levels[:, None] - 0.5
    return torch.as_tensor(_PoolByPlaces.apply(scaled, image, levels - LEVELS[0], output_size, sampling_ratio, *used))


class _PoolByPlaces(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, boxes: Tensor, image: Tensor, level: Tensor, bins: int, ratio: int, *features: Tensor
    ) -> Tensor:
        context.save_for_backward(boxes, image, level)
        context.settings = ratio, [feature.shape for feature in features]
        pooled = torch.empty(len(boxes), bins, bins, features[0].shape[1])
        corners, images, out = _arrays(boxes, image, pooled)
        for number, feature in enumerate(features):
            _pool_level(feature.detach(), corners, images, _members(level, number), bins, ratio, out)
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        boxes, image, level = context.saved_tensors
        ratio, shapes = context.settings
        wanted, corners, images = _arrays(gradients[0].permute(0, 2, 3, 1), boxes, image)
        of_features = [
            _spread_level(wanted, corners, images, _members(level, number), ratio, shape)
            for number, shape in enumerate(shapes)
        ]
        return None, None, None, None, None, *of_features


def _pool_level(feature: Tensor, boxes: Any, image: Any, chosen: Any, bins: int, ratio: int, out: Any) -> None:
    """Fills the rows `chosen` of out, n x bins x bins x channels, from one level."""
    (places,) = _arrays(feature.permute(0, 2, 3, 1))
    values = bins * bins * feature.shape[1]

    def part(first: int, last: int) -> None:
        pool_boxes(places, boxes, image, chosen, bins, ratio, first, last, out)

    _share(len(chosen), 1, values, part)


def _spread_level(wanted: Any, boxes: Any, image: Any, chosen: Any, ratio: int, shape: torch.Size) -> Tensor:
    """Gradient of one level, in the layout `channels_last`."""
    batch, channels, height, width = shape
    result = torch.zeros(batch, height, width, channels)
    bins, out = wanted.shape[1], result.numpy()
    _share(
        channels,
        VECTOR,
        len(chosen) * bins * bins,
        lambda first, last: spread_boxes(wanted, boxes, image, chosen, bins, ratio, first, last, out),
    )
    return result.permute(0, 3, 1, 2)


def _members(level: Tensor, number: int) -> Any:
    return (level == number).nonzero().flatten().numpy()


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.contiguous().numpy() for tensor in tensors]


def _share(count: int, unit: int, values: int, work: Callable[[int, int], None]) -> None:
    """Calls work(first, last) for the parts of range(count), multiples of `unit` long, on as many threads as torch, or
    fewer where it is little work. values: that each number of the range stands for."""
    threads = max(1, min(torch.get_num_threads(), count // unit, count * values // WORTH_A_THREAD))
    size = -(-count // (threads * unit)) * unit
    parts = [(first, min(first + size, count)) for first in range(0, count, size)] if count else []
    if len(parts) < 2:
        for part in parts:
            work(*part)
        return
    with ThreadPoolExecutor(len(parts)) as pool_of_threads:
        list(pool_of_threads.map(lambda part: work(*part), parts))
