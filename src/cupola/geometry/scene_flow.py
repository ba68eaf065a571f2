"""Points at t and t + 1 for every pixel of the first image (spec-stage1 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from cupola.geometry.camera import points_from_disparity
from cupola.geometry.edges import disparity_edges
from cupola.geometry.warping import warp_nearest
from cupola.types import Calibration, Correspondence

MIN_DEPTH, MAX_DEPTH = 5.5, 70.0
"""Nearest and farthest depth that counts as measured [m] (spec-stage1 3.3)."""


@dataclass(frozen=True)
class SceneFlow:
    """Where the surface seen at each pixel of the first image is at both times.

    points: at t, points_next: at t + 1 [m, camera frame of that time], NaN where the disparity is unknown;
    known: the point at t is reliable; known_next: so are the flow and the point at t + 1. The two are kept apart, since
    a pixel that gets hidden still has a place (spec-stage1 4.6); the published mask R is their conjunction.
    """

    points: Float32[np.ndarray, "3 h w"]
    points_next: Float32[np.ndarray, "3 h w"]
    known: Bool[np.ndarray, "h w"]
    known_next: Bool[np.ndarray, "h w"]

    @property
    def flow(self) -> Float32[np.ndarray, "3 h w"]:
        """Scene flow [m]: the static world moves against the camera here."""
        return np.asarray(self.points_next - self.points)


def compute_scene_flow(
    correspondence: Correspondence, calibration: Calibration, valid: Bool[np.ndarray, "h w"]
) -> SceneFlow:
    """Scene flow of a clip. valid: pixels of the first image that show the scene.

    The second points are looked up at the nearest pixel to x + flow: depth is never interpolated across an edge.
    """
    points = points_from_disparity(correspondence.disparity, calibration)
    points_next = points_from_disparity(correspondence.disparity_next, calibration)
    known = valid & _reliable(points[2], correspondence.disparity, correspondence.disparity_valid)
    next_there = _reliable(points_next[2], correspondence.disparity_next, correspondence.disparity_next_valid)
    carried = warp_nearest(np.concatenate([points_next, next_there[None].astype(np.float32)]), correspondence.flow)
    return SceneFlow(points, carried[:3], known, correspondence.flow_valid & (carried[3] == 1))


def _reliable(depth: np.ndarray, disparity: np.ndarray, disparity_valid: np.ndarray) -> np.ndarray:
    in_range = (depth >= MIN_DEPTH) & (depth <= MAX_DEPTH)
    return np.asarray(in_range & disparity_valid & ~disparity_edges(disparity))


def low_grid(size: int, factor: float) -> Int64[np.ndarray, "n"]:
    """Source pixels of int(factor * size) cells (maybe 0) along an axis of `size` pixels: nearest to their centres.

    Centres at (i + 1/2) size / n - 1/2; one that lies on half a pixel goes to the even pixel (spec-stage1 4.3: the
    published code rounds those irregularly).
    """
    cells = int(factor * size)
    if cells == 0:
        return np.zeros(0, np.int64)
    centres = (np.arange(cells) + 0.5) * (size / cells) - 0.5
    return np.asarray(np.rint(centres).astype(np.int64))
