"""The ground as a plane in disparity, found by seeded RANSAC (findings-features, recipe 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.types import Calibration

REFERENCE_HEIGHT = 376
"""Image height [px] at which the pixel constants of the recipe were measured (KITTI)."""

DRAWS = 300
"""Planes tried (recipe 2)."""

MAX_POINTS = 6_000
"""Pixels that vote, drawn from the valid pixels of the lower half (recipe 2)."""

MIN_POINTS = 60
"""Fewer valid pixels in the lower half than this say nothing about the ground."""

INLIER = 1.0
"""Disparity difference to the plane [px at the reference height] (recipe 2)."""

SMALLEST_INLIER = 0.6
"""However small the image, SGBM's own noise is about 0.4 px (findings-motion 1), so no stricter than this [px]."""

CENTRAL_WIDTH = 0.3
"""Standard deviation of the weight around the middle column, as a share of the width (recipe 2)."""

SMALLEST_SLOPE = 0.03
"""b below this is no ground: it is baseline / camera height, 0.33 for KITTI, 0.18 for Cityscapes, 0.05 for a rig with
8 cm between the cameras at 1.6 m; recipe 2 rejects below 0.05."""

LARGEST_ROLL = 0.15
"""|a| / b, the tangent of the roll of the camera against the ground (recipe 2)."""

REFINEMENTS = 3
"""Weighted least-squares fits after RANSAC (recipe 2)."""

SMALLEST_SUPPORT = 0.1
"""Share of the points' weight that must lie on the plane; a wall or a hedge that fills the view reaches less."""


@dataclass(frozen=True)
class GroundPlane:
    """Disparity of the ground, `dg = a (x - width/2) + b (y - height/2) + c` [px], for an image of height x width.

    a, b: px of disparity per px to the right, downwards; c: px, at the middle of the image.
    """

    a: float
    b: float
    c: float
    height: int
    width: int

    def disparity(self) -> Float32[np.ndarray, "h w"]:
        """Disparity of the ground at every pixel [px]; negative above the horizon."""
        x = (np.arange(self.width) - self.width / 2) * self.a
        y = (np.arange(self.height) - self.height / 2) * self.b
        return (y[:, None] + x[None, :] + self.c).astype(np.float32)

    def normal_length(self, calibration: Calibration) -> float:
        """Length of (a, b, e): baseline / camera height, where `a X + b Y + e Z = baseline` is the plane in space."""
        e = self.a * (calibration.cx - self.width / 2) + self.b * (calibration.cy - self.height / 2) + self.c
        return float(np.sqrt(self.a**2 + (self.b * calibration.fy / calibration.fx) ** 2 + (e / calibration.fx) ** 2))

    def camera_height(self, calibration: Calibration) -> float:
        """How far the camera is above the ground [m]."""
        return calibration.baseline / self.normal_length(calibration)

    def heights(self, disparity: Float32[np.ndarray, "h w"], calibration: Calibration) -> Float32[np.ndarray, "h w"]:
        """Height of every pixel above the ground [m], upwards; NaN where the disparity is unknown or not positive."""
        known = np.where(disparity > 0, disparity, np.float32(np.nan))
        return (self.camera_height(calibration) * (1 - self.disparity() / known)).astype(np.float32)


def _points(
    disparity: np.ndarray, valid: np.ndarray, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Voting pixels: (x - w/2, y - h/2, 1), disparity, weight. The weight grows with the row and falls to the sides:
    the road lies below and ahead."""
    height, width = disparity.shape
    top = height // 2
    usable = valid[top:] & np.isfinite(disparity[top:]) & (disparity[top:] > 0)
    rows, columns = np.nonzero(usable)
    if len(rows) > MAX_POINTS:
        chosen = np.sort(rng.choice(len(rows), MAX_POINTS, replace=False))
        rows, columns = rows[chosen], columns[chosen]
    rows = rows + top
    x, y = columns - width / 2, rows - height / 2
    weight = (y + 1) / (height / 2) * np.exp(-0.5 * (x / (CENTRAL_WIDTH * width)) ** 2)
    return np.stack([x, y, np.ones(len(x))], 1), disparity[rows, columns].astype(np.float64), weight


def _plausible(planes: Float64[np.ndarray, "m 3"]) -> Bool[np.ndarray, "m"]:
    keep: Bool[np.ndarray, "m"] = (planes[:, 1] >= SMALLEST_SLOPE) & (
        np.abs(planes[:, 0]) <= LARGEST_ROLL * planes[:, 1]
    )
    return keep


def _candidates(
    points: Float64[np.ndarray, "n 3"], values: Float64[np.ndarray, "n"], rng: np.random.Generator
) -> Float64[np.ndarray, "m 3"]:
    """Plausible planes through three points each."""
    draws = rng.integers(0, len(points), (DRAWS, 3))
    matrices = points[draws]
    regular = np.abs(np.linalg.det(matrices)) > 1e-6
    planes = np.linalg.solve(matrices[regular], values[draws][regular][..., None])[..., 0]
    kept: Float64[np.ndarray, "m 3"] = planes[_plausible(planes)]
    return kept


def _votes(
    planes: Float64[np.ndarray, "m 3"],
    points: Float64[np.ndarray, "n 3"],
    values: Float64[np.ndarray, "n"],
    weight: Float64[np.ndarray, "n"],
    inlier: float,
) -> Float32[np.ndarray, "m"]:
    """Weight of the pixels on each plane less that of the pixels clearly below it. Single precision: speed counts."""
    residual = planes.astype(np.float32) @ points.T.astype(np.float32)
    np.subtract(values.astype(np.float32), residual, out=residual)
    below = residual < -3 * inlier
    votes = (np.abs(residual, out=residual) < inlier).astype(np.float32)
    votes[below] = -1
    total: Float32[np.ndarray, "m"] = votes @ weight.astype(np.float32)
    return total


def _refined(
    plane: Float64[np.ndarray, "3"],
    points: Float64[np.ndarray, "n 3"],
    values: Float64[np.ndarray, "n"],
    weight: Float64[np.ndarray, "n"],
    inlier: float,
) -> Float64[np.ndarray, "3"]:
    for _ in range(REFINEMENTS):
        root = np.sqrt(weight * (np.abs(values - points @ plane) < inlier))
        plane = np.linalg.lstsq(points * root[:, None], values * root, rcond=None)[0]
    return plane


def fit_ground_plane(
    disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], rng: np.random.Generator
) -> GroundPlane | None:
    """Finds the ground (findings-features, recipe 2).

    Three-point RANSAC over pixels of the lower half. A pixel near the plane votes for it; one clearly farther away than
    the plane votes against it, since nothing is seen through the ground: this keeps the plane off bonnets and roofs.

    Args:
        disparity: positive [px]; what is not `valid` is not looked at (may be NaN).
        valid: pixels whose disparity is known.
        rng: source of all random draws; the same state gives the same plane.

    Returns:
        The plane, or None where the lower half shows no ground.
    """
    height, width = disparity.shape
    points, values, weight = _points(disparity, valid, rng)
    if len(points) < MIN_POINTS:
        return None
    planes = _candidates(points, values, rng)
    if not len(planes):
        return None
    inlier = max(SMALLEST_INLIER, INLIER * height / REFERENCE_HEIGHT)
    best = planes[np.argmax(_votes(planes, points, values, weight, inlier))]
    plane = _refined(best, points, values, weight, inlier)
    support = weight[np.abs(values - points @ plane) < inlier].sum() / weight.sum()
    if not _plausible(plane[None])[0] or support < SMALLEST_SUPPORT:
        return None
    return GroundPlane(float(plane[0]), float(plane[1]), float(plane[2]), height, width)
