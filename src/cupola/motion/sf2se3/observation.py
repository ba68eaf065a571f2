"""What SF2SE3 sees of a clip: scene flow of every pixel and of a coarse grid of cells, and how noisy it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from cupola.geometry import compute_scene_flow, low_grid, noise_scale, warp_bilinear
from cupola.motion.sf2se3.settings import Sf2se3Settings
from cupola.types import Calibration, Correspondence, StereoClip

LEAST_NOISE = 2.0
"""Lower bound of the noise scales [px] (spec-stage1 4.2), where good matches lie (defect S11). It stands for the
disparity's where the provider has measured none: a `Correspondence` holds no right disparities to measure it by."""


@dataclass(frozen=True)
class Level:
    """Scene flow at one resolution. points, points_next [m]: of the same surface at t and t + 1; flow [px of the full
    image]; reliable: all of it is known; x, y: positions of columns and rows in the full image [px];
    column_cell, row_cell: the cell of the coarse grid each column and row lies in."""

    points: Float32[np.ndarray, "3 h w"]
    points_next: Float32[np.ndarray, "3 h w"]
    flow: Float32[np.ndarray, "2 h w"]
    reliable: Bool[np.ndarray, "h w"]
    x: Float64[np.ndarray, "w"]
    y: Float64[np.ndarray, "h"]
    column_cell: Int64[np.ndarray, "w"]
    row_cell: Int64[np.ndarray, "h"]

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.y), len(self.x)


@dataclass(frozen=True)
class Observation:
    """One clip at both resolutions. sigma: noise of flow x, flow y and disparity [px]."""

    full: Level
    low: Level
    sigma: Float64[np.ndarray, "3"]
    calibration: Calibration

    @property
    def rig(self) -> Float64[np.ndarray, "5"]:
        """(fx, fy, cx, cy, fx * baseline), as the kernels take it."""
        c = self.calibration
        return np.array([c.fx, c.fy, c.cx, c.cy, c.fx * c.baseline])


def observe(clip: StereoClip, correspondence: Correspondence, settings: Sf2se3Settings) -> Observation:
    """The evidence of a clip (spec-stage1 3, 4.2, 4.3). Unknown pixels are not reliable; their values are NaN."""
    scene = compute_scene_flow(correspondence, clip.calibration, clip.first.valid)
    full = full_level(
        scene.points, scene.points_next, correspondence.flow, scene.known & scene.known_next, settings.downscale
    )
    return Observation(full, low_level(full, settings.downscale), _noise(correspondence), clip.calibration)


def _noise(correspondence: Correspondence) -> Float64[np.ndarray, "3"]:
    """Noise of flow x, flow y and disparity [px]: the provider's, else what the known flow shows (spec-stage1 4.2)."""
    if correspondence.noise is not None:
        return correspondence.noise
    deviation = correspondence.flow + warp_bilinear(correspondence.flow_backward, correspondence.flow)
    return np.append(noise_scale(deviation, np.isfinite(deviation).all(0)), LEAST_NOISE)


def full_level(
    points: Float32[np.ndarray, "3 h w"],
    points_next: Float32[np.ndarray, "3 h w"],
    flow: Float32[np.ndarray, "2 h w"],
    reliable: Bool[np.ndarray, "h w"],
    downscale: float,
) -> Level:
    """Every pixel is its own position; it lies in the cell whose centre is nearest."""
    height, width = reliable.shape
    return Level(
        points,
        points_next,
        flow,
        reliable,
        np.arange(width, dtype=np.float64),
        np.arange(height, dtype=np.float64),
        np.arange(width) * int(downscale * width) // width,
        np.arange(height) * int(downscale * height) // height,
    )


def low_level(full: Level, downscale: float) -> Level:
    """The nearest pixel to each cell's centre (spec-stage1 4.3); flow stays in pixels of the full image."""
    rows, columns = (low_grid(size, downscale) for size in full.size)
    at = np.ix_(rows, columns)
    return Level(
        full.points[..., at[0], at[1]],
        full.points_next[..., at[0], at[1]],
        full.flow[..., at[0], at[1]],
        full.reliable[at],
        columns.astype(np.float64),
        rows.astype(np.float64),
        np.arange(len(columns)),
        np.arange(len(rows)),
    )
