"""The rectified pinhole camera: disparity, depth, points and pixels (spec-stage1 3).

Points are metres in the left camera's frame: x right, y down, z forward. Unknown is NaN: a disparity that is not
positive has no depth, and a point that is not in front of the camera has no pixel (the published code gives depth zero
to the first and mirrors the second, defects S14, S15).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from cupola.types import Calibration


def depth_from_disparity(disparity: Float32[np.ndarray, "h w"], calibration: Calibration) -> Float32[np.ndarray, "h w"]:
    """Z = fx B / d [m] of disparities [px]; NaN where d <= 0 or unknown. The same formula leads back."""
    scale = np.float32(calibration.fx * calibration.baseline)
    positive = disparity > 0
    return np.where(positive, scale / np.where(positive, disparity, np.float32(1)), np.float32(np.nan))


def disparity_from_depth(depth: Float32[np.ndarray, "h w"], calibration: Calibration) -> Float32[np.ndarray, "h w"]:
    """d = fx B / Z [px] of depths [m]; NaN where Z <= 0 or unknown."""
    return depth_from_disparity(depth, calibration)


def points_from_disparity(
    disparity: Float32[np.ndarray, "h w"], calibration: Calibration
) -> Float32[np.ndarray, "3 h w"]:
    """The point (X, Y, Z) [m] of each pixel, from its disparity [px]; NaN where that is not positive or unknown."""
    depth = depth_from_disparity(disparity, calibration)
    height, width = disparity.shape
    x = ((np.arange(width) - calibration.cx) / calibration.fx).astype(np.float32)
    y = ((np.arange(height) - calibration.cy) / calibration.fy).astype(np.float32)
    return np.stack([depth * x, depth * y[:, None], depth])


def project(points: Float[np.ndarray, "3 *shape"], calibration: Calibration) -> Float[np.ndarray, "3 *shape"]:
    """(x, y, disparity) [px] of points [m]; all three NaN where Z <= 0 or unknown. Keeps the float type."""
    z = points[2]
    known = z > 0
    inverse = np.where(known, 1 / np.where(known, z, 1), np.nan)
    return np.stack(
        [
            calibration.fx * points[0] * inverse + calibration.cx,
            calibration.fy * points[1] * inverse + calibration.cy,
            calibration.fx * calibration.baseline * inverse,
        ]
    ).astype(points.dtype)
