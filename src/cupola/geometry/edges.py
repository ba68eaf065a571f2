"""Edges of the disparity map, where its values mix two surfaces (spec-stage1 2.5)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

LOG_OFFSET = 0.001
"""Added before the logarithm [px]."""

EDGE_THRESHOLD = 0.2
"""About 8 |grad log d|: a change of 2.5 % of the disparity per pixel."""

GAUSSIAN_SIZE, GAUSSIAN_SIGMA = 5, 1.0
DILATION_SIZE = 5
MAGNITUDE_EPSILON = 1e-6
"""Under the root of the magnitude, so that flat areas are not exactly zero."""

_NEIGHBOURS = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
"""(dy, dx) of the neighbour at 0, 45, ... 315 degrees (y down)."""


def edge_magnitude(disparity: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Length of the Sobel gradient (weights 1 2 1) of the smoothed log disparity, zero unless largest across the edge.

    Unknown (NaN) and negative disparities [px] read as zero, so that the rim of an unknown area is an edge.
    """
    known = np.where(disparity > 0, disparity, np.float32(0))
    smooth = cv2.GaussianBlur(
        np.log(known + np.float32(LOG_OFFSET)), (GAUSSIAN_SIZE,) * 2, GAUSSIAN_SIGMA, borderType=cv2.BORDER_REFLECT_101
    )
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    magnitude = np.sqrt(gx**2 + gy**2 + np.float32(MAGNITUDE_EPSILON))
    direction = np.rint(np.arctan2(gy, gx) / (np.pi / 4)).astype(np.intp) % 8
    ahead, behind = _neighbour(magnitude, direction), _neighbour(magnitude, (direction + 4) % 8)
    # A clean step has two equal columns: >= on one side keeps one of them, where > on both would lose the edge.
    peak = (magnitude > ahead) & (magnitude >= behind)
    return np.where(peak, magnitude, np.float32(0))


def _neighbour(magnitude: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The value of the next pixel in each pixel's direction, zero outside."""
    padded = np.pad(magnitude, 1)
    row, column = np.indices(magnitude.shape)
    step = _NEIGHBOURS[direction]
    return np.asarray(padded[row + 1 + step[..., 0], column + 1 + step[..., 1]])


def disparity_edges(disparity: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels within two rows and columns of a disparity edge; see `edge_magnitude`.

    The published code also calls the outer two pixels of the image edges, by its padding; they are not.
    """
    strong = (edge_magnitude(disparity) > EDGE_THRESHOLD).astype(np.uint8)
    return cv2.dilate(strong, np.ones((DILATION_SIZE, DILATION_SIZE), np.uint8)) > 0
