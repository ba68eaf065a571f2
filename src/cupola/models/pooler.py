"""ROIAlign over the pyramid (spec-network 1.6): each box is read from the level that fits its size."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
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
    image = torch.cat([torch.full((len(b), 1), i, dtype=b.dtype, device=b.device) for i, b in enumerate(boxes)])
    rois = torch.cat((image, regions), 1)
    levels = box_levels(regions, settings.canonical_size)
    parts, places = [], []
    for level, feature in zip(LEVELS, features, strict=False):
        place = (levels == level).nonzero().flatten()
        if len(place):
            pooled = roi_align(
                feature,
                rois[place].to(feature.dtype),
                (output_size, output_size),
                1 / 2**level,
                settings.sampling_ratio,
                aligned=True,
            )
            parts.append(pooled)
            places.append(place)
    if not parts:
        return features[0].new_zeros(0, features[0].shape[1], output_size, output_size)
    return torch.cat(parts)[torch.cat(places).argsort()]
