"""The residual test: which cells of the image move by a translation along the ground (findings-motion 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32

from cupola.geometry.ego_motion import DISPARITY_SIGMA
from cupola.motion import kernels
from cupola.motion.scene import Scene

CELL, REFERENCE_PIXELS = 4, 376 * 1241
"""Side of a cell [px] in an image of so many pixels (KITTI); it follows the root of the number, but is at least 2."""

WINDOW = 2
"""A cell is tested with its neighbours up to this many cells away: 5 x 5 (findings-motion 3)."""

NEAR_METRES, NEAR_PIXELS = 0.9, 0.8
"""Cells are alike in depth within so many metres or pixels of disparity, whichever allows more (findings-motion 3)."""

SAMPLE_PIXELS, SYSTEMATIC = 24.0, 0.2
"""significance = evidence / (24 + 0.2 n): 24 pixels are one independent sample, and systematic error lets the evidence
saturate (findings-motion 3)."""

SEED, GROW = 18.0, 8.0
"""Significance of cells that start and that join a cluster (findings-motion 3)."""

UNEXPLAINED = 5.0
"""Remaining chi^2 a pixel above which one translation does not explain a cell (findings-motion 3)."""

REACH = 2
"""Cells are linked up to this many cells apart."""

ALIKE = 0.35
"""Velocities of linked cells differ by at most this share of the larger (findings-motion 3)."""

TRIMS = 3
"""How often cells that the cluster's translation leaves unexplained are taken out."""

LOW = 0.2
"""Pixels lower than this are road and shadow [m] (findings-motion 3)."""


@dataclass(frozen=True)
class Cluster:
    """Cells that move together. cells: their map; velocity: sideways, forward, down [m a frame], down fitted only for
    the test of nonsense motion; significance: of the whole cluster; side: of a cell [px]."""

    cells: Bool[np.ndarray, "rows columns"]
    velocity: Float64[np.ndarray, "2"]
    significance: float
    side: int

    def pixels(self, usable: Bool[np.ndarray, "h w"]) -> tuple[Int32[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
        """Rows and columns of the usable pixels in the cells."""
        height, width = usable.shape
        full = np.repeat(np.repeat(self.cells, self.side, 0), self.side, 1)[:height, :width]
        ys, xs = np.nonzero(full & usable)
        return ys.astype(np.int32), xs.astype(np.int32)


def cell_side(height: int, width: int) -> int:
    """Side of a cell [px]."""
    return max(2, round(CELL * math.sqrt(height * width / REFERENCE_PIXELS)))


def upright(scene: Scene) -> Bool[np.ndarray, "h w"]:
    """Known pixels that stand above the ground."""
    with np.errstate(invalid="ignore"):
        return np.asarray(scene.known & (scene.height > LOW))


def _solve(sums: Float64[np.ndarray, "*s 12"]) -> tuple[Float64[np.ndarray, "*s 2"], Float64[np.ndarray, "*s"]]:
    """Velocity in the ground and the evidence b^T A^-1 b for it, from cell sums."""
    a, b, c = sums[..., 0], sums[..., 1], sums[..., 2]
    p, q = sums[..., 6], sums[..., 7]
    determinant = a * c - b * b
    with np.errstate(divide="ignore", invalid="ignore"):
        velocity = np.stack([(c * p - b * q) / determinant, (a * q - b * p) / determinant], -1)
    velocity = np.where((determinant > 1e-9 * a * c)[..., None], velocity, 0.0)
    return velocity, (velocity * sums[..., 6:8]).sum(-1)


def find_clusters(scene: Scene) -> list[Cluster]:
    """Clusters of cells that move alike along the ground, strongest first (findings-motion 3)."""
    side = cell_side(*scene.size)
    sums = kernels.cell_sums(
        scene.flow,
        scene.moved,
        scene.disparity,
        scene.flow_sigma,
        upright(scene),
        DISPARITY_SIGMA,
        scene.motion(),
        scene.rig,
        scene.basis,
        side,
    )
    windows = kernels.window_sums(sums, WINDOW, scene.depth_scale, NEAR_METRES, NEAR_PIXELS)
    velocity, evidence = _solve(windows)
    count = windows[..., 10]
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = (windows[..., 9] - evidence) / count < UNEXPLAINED
        disparity = sums[..., 11] / sums[..., 10]
    significance = np.where(explained & (sums[..., 10] > 0), evidence / (SAMPLE_PIXELS + SYSTEMATIC * count), 0.0)
    labels = kernels.link_cells(
        significance, SEED, GROW, velocity, disparity, REACH, scene.depth_scale, NEAR_METRES, NEAR_PIXELS, ALIKE
    )
    clusters = [
        cluster
        for label in range(1, labels.max(initial=0) + 1)
        if (cluster := _trimmed(labels == label, sums, side)) is not None
    ]
    return sorted(clusters, key=lambda cluster: -cluster.significance)


def _trimmed(cells: Bool[np.ndarray, "rows columns"], sums: np.ndarray, side: int) -> Cluster | None:
    """The cluster without the cells that its own translation does not explain, or None where nothing is left."""
    for _ in range(TRIMS):
        velocity, _ = _solve(sums[cells].sum(0))
        rest = _remaining(sums[cells], velocity) / np.maximum(sums[cells][:, 10], 1)
        keep = rest < UNEXPLAINED
        if not keep.any():
            return None
        cells = cells.copy()
        cells[cells] = keep
    total = sums[cells].sum(0)
    velocity, evidence = _solve(total)
    return Cluster(cells, velocity, float(evidence / (SAMPLE_PIXELS + SYSTEMATIC * total[10])), side)


def _remaining(sums: Float64[np.ndarray, "n 12"], velocity: Float64[np.ndarray, "2"]) -> Float64[np.ndarray, "n"]:
    """chi^2 that is left once `velocity` is assumed: c - 2 b v + v A v."""
    u, v = velocity
    quadratic = sums[:, 0] * u * u + 2 * sums[:, 1] * u * v + sums[:, 2] * v * v
    return np.asarray(sums[:, 9] - 2 * (sums[:, 6] * u + sums[:, 7] * v) + quadratic)
