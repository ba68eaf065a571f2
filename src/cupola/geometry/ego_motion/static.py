"""What a rigid motion does to the pixels of a static scene."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64

from cupola.types import Calibration


def static_flow(
    disparity: Float[np.ndarray, "h w"], transform: Float64[np.ndarray, "4 4"], calibration: Calibration
) -> tuple[Float32[np.ndarray, "2 h w"], Float32[np.ndarray, "h w"]]:
    """Flow [px] and next disparity [px] of pixels that follow P(t+1) = T P(t).

    disparity [px], 0 = at infinity. Points that come to lie behind the camera get NaN. The second array is the
    disparity of the same (moved) pixels in the next frame, on the first frame's grid.
    """
    height, width = disparity.shape
    fx, fy, cx, cy = calibration.fx, calibration.fy, calibration.cx, calibration.cy
    r = transform[:3, :3].astype(np.float32)
    t = (transform[:3, 3] / (fx * calibration.baseline)).astype(np.float32)
    x = ((np.arange(width) - cx) / fx).astype(np.float32)[None, :]
    y = ((np.arange(height) - cy) / fy).astype(np.float32)[:, None]
    d = disparity.astype(np.float32)
    z = r[2, 0] * x + (r[2, 1] * y + r[2, 2]) + t[2] * d
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(z > 1e-3, 1 / z, np.float32(np.nan))
    u = (r[0, 0] * x + (r[0, 1] * y + r[0, 2]) + t[0] * d) * inverse
    v = (r[1, 0] * x + (r[1, 1] * y + r[1, 2]) + t[1] * d) * inverse
    flow = np.stack([(u - x) * np.float32(fx), (v - y) * np.float32(fy)])
    return flow.astype(np.float32), (d * inverse).astype(np.float32)
