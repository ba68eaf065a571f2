"""Reading an image-like field at positions between its pixels: the only samplers of this project.

Pixel centres are at integers, so a field read at its own pixel grid comes back unchanged. (The published code reads up
to half a pixel beside it, defect S10 of spec-stage1.) Outside the outermost pixel centres the answer is NaN: unknown.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from cupola.geometry import kernels


def pixel_grid(
    height: int, width: int
) -> tuple[Float32[np.ndarray, "{height} {width}"], Float32[np.ndarray, "{height} {width}"]]:
    """(x, y) of every pixel of an image of this size [px]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x, y


def sample_bilinear(
    field: Float32[np.ndarray, "*channels h w"], x: Float[np.ndarray, "i j"], y: Float[np.ndarray, "i j"]
) -> Float32[np.ndarray, "*channels i j"]:
    """The field at (x, y) [px], interpolated; NaN outside [0, w-1] x [0, h-1], for NaN positions and beside NaN."""
    *channels, height, width = field.shape
    out = np.empty((int(np.prod(channels)), x.size), np.float32)
    planes = np.ascontiguousarray(field).reshape(-1, height, width)
    kernels.sample_bilinear(planes, x.ravel().astype(np.float64), y.ravel().astype(np.float64), out)
    return out.reshape(*channels, *x.shape)


def sample_nearest(
    field: Float32[np.ndarray, "*channels h w"], x: Float[np.ndarray, "i j"], y: Float[np.ndarray, "i j"]
) -> Float32[np.ndarray, "*channels i j"]:
    """The field at the pixel nearest to (x, y) [px] (halves to the even pixel); NaN outside [0, w-1] x [0, h-1] and for
    NaN positions."""
    height, width = field.shape[-2:]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    column = np.rint(np.where(inside, x, 0)).astype(np.intp)
    row = np.rint(np.where(inside, y, 0)).astype(np.intp)
    return np.where(inside, field[..., row, column], np.float32(np.nan))


def flow_targets(
    flow: Float32[np.ndarray, "2 h w"],
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Where each pixel goes: (x + flow x, y + flow y) [px], in float64 so that adding loses nothing."""
    height, width = flow.shape[1:]
    return flow[0] + np.arange(width, dtype=np.float64), flow[1] + np.arange(height, dtype=np.float64)[:, None]


def warp_bilinear(
    field: Float32[np.ndarray, "*channels h w"], flow: Float32[np.ndarray, "2 i j"]
) -> Float32[np.ndarray, "*channels i j"]:
    """The field of the second image carried to the first: its value at x + flow(x), interpolated; NaN = unknown."""
    return sample_bilinear(field, *flow_targets(flow))


def warp_nearest(
    field: Float32[np.ndarray, "*channels h w"], flow: Float32[np.ndarray, "2 i j"]
) -> Float32[np.ndarray, "*channels i j"]:
    """As `warp_bilinear`, with the value of the nearest pixel: nothing is mixed across an edge."""
    return sample_nearest(field, *flow_targets(flow))
