"""Which matches hold both ways (spec-stage1 2.4); where there and back does not close, one is wrong or hidden."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from cupola.geometry.warping import warp_bilinear

RELATIVE_TOLERANCE = 0.01
"""alpha 1: squared error allowed, as a share of the squared lengths of both flows (spec-stage1 2.4)."""

ABSOLUTE_TOLERANCE = 0.5
"""alpha 2: squared error allowed besides [px^2] (spec-stage1 2.4)."""


def closes(forward: Float32[np.ndarray, "2 h w"], back: Float32[np.ndarray, "2 h w"]) -> Bool[np.ndarray, "h w"]:
    """|f + b|^2 < alpha 1 (|f|^2 + |b|^2) + alpha 2 for flows there and back at the same pixel [px]; false for NaN."""
    error = ((forward + back) ** 2).sum(0)
    length = (forward**2).sum(0) + (back**2).sum(0)
    return np.asarray(error < RELATIVE_TOLERANCE * length + ABSOLUTE_TOLERANCE)


def consistent_flow(
    forward: Float32[np.ndarray, "2 h w"], backward: Float32[np.ndarray, "2 h w"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels whose forward flow [px] lands inside the other image and comes back by the other's flow, read bilinearly.

    The published sampler reads up to half a pixel beside the target and loses the outermost ring (S10); this one
    does not.
    """
    return closes(forward, warp_bilinear(backward, forward))


def consistent_disparity(
    left: Float32[np.ndarray, "h w"], right: Float32[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Left pixels whose match has the same disparity [px]; `right` is positive, on the right image's grid."""
    still = np.zeros_like(left)
    return consistent_flow(np.stack([-left, still]), np.stack([right, still]))
