"""How high every pixel stands above the road: a plane in disparity, then a profile over depth for slopes.

findings-motion 3: plane linear in x, y by RANSAC (here `geometry.ground_plane`), then a height profile over depth.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.geometry.ground_plane import GroundPlane, fit_ground_plane
from cupola.types import Calibration

LOWEST_CAMERA, HIGHEST_CAMERA = 0.9, 2.6
"""A plane this far below the camera can be the road [m] (findings-motion 3)."""

USUAL_CAMERA = 1.6
"""Height assumed over a level road where no plane is found [m]."""

PROFILE_BINS = 12
"""Depth bins of the profile, equal in disparity's logarithm from the nearest to the farthest ground."""

PROFILE_POINTS = 60
"""A bin with fewer ground pixels keeps the plane's height."""

PROFILE_REACH = 0.6
"""Pixels within this height of the plane can be ground [m]; higher ones are not looked at."""

MAX_CORRECTION = 0.8
"""The profile never moves the ground by more than this [m]."""


def level_plane(height: int, width: int, calibration: Calibration) -> GroundPlane:
    """A level road `USUAL_CAMERA` below the camera."""
    b = calibration.baseline / USUAL_CAMERA * calibration.fx / calibration.fy
    return GroundPlane(0.0, b, b * (height / 2 - calibration.cy), height, width)


def find_plane(
    disparity: Float32[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    calibration: Calibration,
    rng: np.random.Generator,
) -> GroundPlane:
    """The road's plane; a level road at usual height where none of plausible height is seen."""
    plane = fit_ground_plane(disparity, valid, rng)
    if plane is None or not LOWEST_CAMERA <= plane.camera_height(calibration) <= HIGHEST_CAMERA:
        return level_plane(disparity.shape[0], disparity.shape[1], calibration)
    return plane


def ground_basis(plane: GroundPlane, calibration: Calibration) -> Float64[np.ndarray, "3 3"]:
    """Rows: sideways and forward in the ground, and its normal (pointing down), in camera axes; orthonormal.

    The plane a X + b Y + e Z = baseline follows from the disparity's form by X = (x - cx) Z / fx.
    """
    e = plane.a * (calibration.cx - plane.width / 2) + plane.b * (calibration.cy - plane.height / 2) + plane.c
    normal = np.array([plane.a, plane.b * calibration.fy / calibration.fx, e / calibration.fx])
    normal /= np.linalg.norm(normal)
    forward = np.array([0.0, 0.0, 1.0]) - normal[2] * normal
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(normal, forward), forward, normal])


def height_above_ground(
    disparity: Float32[np.ndarray, "h w"], plane: GroundPlane, calibration: Calibration
) -> Float32[np.ndarray, "h w"]:
    """Height of every pixel [m], NaN where the disparity is unknown: the plane's, corrected by a profile over depth.

    In each depth bin the ground is taken to lie where the heights near the plane are densest (their lower mode); the
    correction is interpolated between bins and zero where a bin shows too little ground.
    """
    heights = plane.heights(disparity, calibration)
    near = np.isfinite(heights) & (np.abs(heights) < PROFILE_REACH + 0.01 * depth_of(disparity, calibration))
    if near.sum() < PROFILE_POINTS:
        return heights
    level = np.log(disparity[near])
    low, high = (float(value) for value in np.quantile(level, [0.01, 0.99]))
    edges = np.linspace(low, high, PROFILE_BINS + 1)
    index = np.digitize(level, edges) - 1
    centres, offsets = 0.5 * (edges[1:] + edges[:-1]), np.zeros(PROFILE_BINS)
    for i in range(PROFILE_BINS):
        values = heights[near][index == i]
        if len(values) >= PROFILE_POINTS:
            offsets[i] = _lower_mode(values)
    offsets = np.clip(offsets, -MAX_CORRECTION, MAX_CORRECTION)
    known = np.isfinite(heights)
    heights[known] -= np.interp(np.log(disparity[known]), centres, offsets).astype(np.float32)
    return heights


def depth_of(disparity: Float32[np.ndarray, "h w"], calibration: Calibration) -> Float32[np.ndarray, "h w"]:
    """Depth [m]; NaN where the disparity is unknown."""
    return np.asarray(np.float32(calibration.fx * calibration.baseline) / disparity, np.float32)


def _lower_mode(values: Float32[np.ndarray, "n"]) -> float:
    """The lowest height at which values gather: the first histogram peak of at least 60 % of the highest one."""
    counts, edges = np.histogram(values, 24)
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], "same")
    peaks = np.flatnonzero(smooth >= 0.6 * smooth.max())
    at = peaks[0]
    while at + 1 < len(smooth) and smooth[at + 1] > smooth[at]:
        at += 1
    return float(0.5 * (edges[at] + edges[at + 1]))
