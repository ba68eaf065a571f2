"""The losses of DepthG as functions of tensors (spec-stage1 5.5; STEGO, equations 2 to 5; DepthG, equations 4 and 5).

Everything is about pairs of positions: position i of one image, j of another (or of the same). The features say how
alike the two are, and the codes are pulled together where that is more than a shift, and apart where it is less.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional


def correlation(one: Float32[Tensor, "b n c"], other: Float32[Tensor, "b m c"]) -> Float32[Tensor, "b n m"]:
    """Cosine of every position of one image and every position of the other, in -1..1; 0 with a vector of zeros."""
    return functional.normalize(one, dim=-1) @ functional.normalize(other, dim=-1).transpose(1, 2)


def centred(
    pairs: Float32[Tensor, "b n m"], weight: Float32[Tensor, "b n m"] | None = None
) -> Float32[Tensor, "b n m"]:
    """Correlations minus, for each position i, their mean over j, plus the mean of all: `pointwise` (spec-stage1 5.5).

    It takes away that some positions are alike to everything. weight: of each pair in the means, not negative (None:
    all are equal); a row without weight stays as it is.
    """
    weight = torch.ones_like(pairs) if weight is None else weight
    row = (pairs * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp_min(1)
    total = _mean(pairs, weight)
    return torch.where(weight.sum(2, keepdim=True) > 0, pairs - row + total, pairs)


def depth_correlation(
    one: Float32[Tensor, "b n"], other: Float32[Tensor, "b m"], temperature: float
) -> tuple[Float32[Tensor, "b n m"], Float32[Tensor, "b n m"]]:
    """How alike two positions are in depth: exp(-|log Z_i - log Z_j| / temperature), in 0..1 (spec-stage1 5.5, [R]).

    one, other: depth [m], NaN where unknown; temperature: a ratio of depths of 1 + t is about one t. Returns the
    correlations, 0 for pairs with an unknown depth, and the weight of the pairs: 1, or 0 for those.
    """
    known = torch.isfinite(one)[:, :, None] & torch.isfinite(other)[:, None, :]
    difference = (torch.log(one)[:, :, None] - torch.log(other)[:, None, :]).abs()
    alike = torch.exp(-torch.where(known, difference, torch.zeros_like(difference)) / temperature)
    return torch.where(known, alike, torch.zeros_like(alike)), known.to(one.dtype)


def correspondence_loss(
    features: Float32[Tensor, "b n m"],
    codes: Float32[Tensor, "b n m"],
    shift: float,
    weight: Float32[Tensor, "b n m"] | None = None,
) -> Float32[Tensor, ""]:
    """l(F, C, b) = -max(C, 0) (F - b), averaged over the pairs (spec-stage1 5.5; STEGO, equation 4, clamped at zero).

    features: F, what the features (or depths) say of a pair; codes: C, cosines of codes; shift: b; weight: of each pair
    in the mean (None: all are equal). 0 where no pair has any weight.
    """
    loss = -codes.clamp_min(0) * (features - shift)
    return _mean(loss, torch.ones_like(loss) if weight is None else weight).squeeze()


def probe_loss(codes: Float32[Tensor, "n d"], centres: Float32[Tensor, "k d"]) -> Float32[Tensor, ""]:
    """Minus the mean cosine of each code and the centre most like it: k-means on the sphere (spec-stage1 5.5)."""
    cosines = functional.normalize(codes, dim=1) @ functional.normalize(centres, dim=1).T
    return -cosines.max(1).values.mean()


def _mean(values: Float32[Tensor, "b n m"], weight: Float32[Tensor, "b n m"]) -> Float32[Tensor, "1 1 1"]:
    total = weight.sum((1, 2), keepdim=True).sum(0, keepdim=True)
    return (values * weight).sum((1, 2), keepdim=True).sum(0, keepdim=True) / total.clamp_min(1)
