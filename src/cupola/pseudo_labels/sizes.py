"""Thing classes by real size: stereo says how wide and high a mover is in metres, and that tells a person from a car
better than the colours and textures of its pseudo class do.

Not in the paper. On the rendered street two groups separate cars from people and riders in 94 % of the objects, where
the five thing classes among 27 pseudo classes reach 77 %.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32

from cupola.types import Calibration

TRIMMED = 5.0
"""Share of a mask's pixels on each side that its extent leaves out, against ragged edges [%]."""

SMALLEST = 0.05
"""Extents are at least this [m], so that their logarithm stays finite."""

ROUNDS = 100
"""Rounds of k-means at most; a few are enough in two dimensions."""


def extents(
    ids: Int32[np.ndarray, "h w"],
    count: int,
    disparity: Float32[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    calibration: Calibration,
) -> Float32[np.ndarray, "n 2"]:
    """Width and height [m] of the objects 1..count, at the median of their disparities [px]; NaN if none is known."""
    found = np.full((count, 2), np.nan, np.float32)
    for number in np.unique(ids[ids > 0]):
        mask = ids == number
        if not (mask & valid).any():
            continue
        depth = calibration.fx * calibration.baseline / max(float(np.median(disparity[mask & valid])), 1e-3)
        rows, columns = np.nonzero(mask)
        width, height = (np.subtract(*np.percentile(side, [100 - TRIMMED, TRIMMED])) for side in (columns, rows))
        metres = ((width + 1) * depth / calibration.fx, (height + 1) * depth / calibration.fy)
        found[number - 1] = np.maximum(metres, SMALLEST)
    return found


def group_sizes(sizes: Float32[np.ndarray, "n 2"], groups: int) -> Float64[np.ndarray, "g 2"]:
    """Typical width and height [m] of at most `groups` groups, the most frequent first: k-means on logarithms, begun at
    the quantiles of the direction in which objects differ most, so without any draw. NaN rows are left out."""
    points = np.log(sizes[np.isfinite(sizes).all(1)].astype(np.float64))
    groups = min(groups, len(np.unique(points, axis=0)))
    if groups == 0:
        return np.zeros((0, 2))
    centred = points - points.mean(0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    order = np.argsort(centred @ axis, kind="stable")
    centres = np.stack([points[part].mean(0) for part in np.array_split(order, groups)])
    for _ in range(ROUNDS):
        nearest = _nearest(points, centres)
        moved = np.stack([points[nearest == g].mean(0) if (nearest == g).any() else centres[g] for g in range(groups)])
        if np.allclose(moved, centres, rtol=0, atol=1e-9):
            break
        centres = moved
    members = np.bincount(_nearest(points, centres), minlength=groups)
    typical: np.ndarray = np.exp(centres[np.argsort(-members, kind="stable")])
    return typical


def group_of(sizes: Float32[np.ndarray, "n 2"], groups: Float64[np.ndarray, "g 2"]) -> Int16[np.ndarray, "n"]:
    """Number of the group nearest to each object; one of unknown size is put into the most frequent, 0."""
    known = np.isfinite(sizes).all(1)
    numbers = np.zeros(len(sizes), np.int16)
    numbers[known] = _nearest(np.log(sizes[known].astype(np.float64)), np.log(groups))
    return numbers


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
    return nearest
