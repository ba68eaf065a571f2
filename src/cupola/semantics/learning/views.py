"""The views that are learnt from: five square crops of each image, with the points that each cell shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cupola.geometry import points_from_disparity
from cupola.types import StereoFrame


@dataclass(frozen=True)
class Square:
    """Part of an image: from row `top` and column `left`, `side` pixels each way."""

    top: int
    left: int
    side: int


def five_squares(height: int, width: int) -> tuple[Square, ...]:
    """Of the four corners and the centre of an image, each half its height and width: the square in their middle.

    That is the published crop (half size, then the shorter side resized, then the middle cut out; spec-stage1 5.5).
    """
    half_height, half_width = max(1, height // 2), max(1, width // 2)
    side = min(half_height, half_width)
    down, right = (half_height - side) // 2, (half_width - side) // 2
    corners = [(top, left) for top in (0, height - half_height) for left in (0, width - half_width)]
    middle = ((height - half_height) // 2, (width - half_width) // 2)
    return tuple(Square(top + down, left + right, side) for top, left in (*corners, middle))


def view_image(image: UInt8[np.ndarray, "h w 3"], square: Square, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """A square of an image, `side` pixels each way: by area where it shrinks, so that fine texture does not alias
    (spec-stage1 5.5, defect S54), else linearly."""
    part = image[square.top : square.top + square.side, square.left : square.left + square.side]
    method = cv2.INTER_AREA if side < square.side else cv2.INTER_LINEAR
    resized: UInt8[np.ndarray, "side side 3"] = cv2.resize(part, (side, side), interpolation=method)
    return resized


def view_points(
    frame: StereoFrame,
    disparity: Float32[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    square: Square,
    cells: int,
) -> Float32[np.ndarray, "3 rows columns"]:
    """The point (X, Y, Z) [m] that each of cells x cells shows, NaN where no disparity in it is known.

    A cell has the median of its known disparities (of two in the middle the smaller), never a mean across an edge.
    disparity: positive [px], read only where `valid`.
    """
    samples = -(-square.side // cells)
    index = ((2 * np.arange(cells * samples) + 1) * square.side) // (2 * cells * samples)
    picked = np.ix_(square.top + index, square.left + index)
    known = valid[picked] & (disparity[picked] > 0)
    values = np.where(known, disparity[picked], np.float32(np.nan))
    blocks = values.reshape(cells, samples, cells, samples).transpose(0, 2, 1, 3).reshape(cells, cells, -1)
    ordered, count = np.sort(blocks, axis=-1), np.isfinite(blocks).sum(-1)
    median = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)[..., 0]
    scale = cells / square.side
    calibration = frame.calibration.cropped(float(square.left), float(square.top)).resized(scale, scale)
    return points_from_disparity(median * np.float32(scale), calibration)
