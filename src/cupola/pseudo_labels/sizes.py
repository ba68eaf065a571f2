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

APART = 2.5
"""Two groups differ in width or height by at least this factor, else they are views of the same things: KITTI's cars
from behind and from the side differ by 1.9, people and cars of the rendered street by 3.7."""

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
    """Typical width and height [m] of the groups, the most frequent first: as many as are clearly `APART`, at most
    `groups`. NaN rows are left out."""
    points = np.log(sizes[np.isfinite(sizes).all(1)].astype(np.float64))
    for count in range(min(groups, len(np.unique(points, axis=0))), 0, -1):
        centres = _k_means(points, count)
        between = np.abs(centres[:, None] - centres).max(-1)[np.triu_indices(count, 1)]
        if (between >= np.log(APART)).all():
            typical: np.ndarray = np.exp(centres)
            return typical
    return np.zeros((0, 2))


def _k_means(points: Float64[np.ndarray, "n 2"], groups: int) -> Float64[np.ndarray, "g 2"]:
    """Centres, the one with most members first; begun at the quantiles of the direction in which points differ most, so
    without any draw."""
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
    ordered: np.ndarray = centres[np.argsort(-members, kind="stable")]
    return ordered


def group_of(sizes: Float32[np.ndarray, "n 2"], groups: Float64[np.ndarray, "g 2"]) -> Int16[np.ndarray, "n"]:
    """Number of the group nearest to each object; one of unknown size is put into the most frequent, 0."""
    known = np.isfinite(sizes).all(1)
    numbers = np.zeros(len(sizes), np.int16)
    numbers[known] = _nearest(np.log(sizes[known].astype(np.float64)), np.log(groups))
    return numbers


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
    return nearest
