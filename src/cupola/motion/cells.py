"""The residual test: which cells of the image move by a translation along the ground (findings-motion 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32

from cupola.geometry.ego_motion import DISPARITY_SIGMA
from cupola.motion import kernels
from cupola.motion.scene import Scene

CELL, LEAST_CELL = 4, 2
"""Side of a cell at KITTI size, and the least [px]."""

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

UNEXPLAINED_SHARE = 0.04
"""A cell is also explained where this share of the static scene's chi^2 at most remains: walking people and large
motions leave more than noise."""

REACH = 2
"""Cells are linked up to this many cells apart."""

ALIKE = 0.35
"""Velocities of linked cells differ by at most this share of the larger (findings-motion 3)."""

TRIMS = 3
"""How often cells that the cluster's translation leaves unexplained are taken out."""

ROUNDS = 6
"""How often cells that were taken out are linked anew."""

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
    return velocity, np.asarray((velocity * sums[..., 6:8]).sum(-1))


def find_clusters(scene: Scene) -> list[Cluster]:
    """Clusters of cells that move alike along the ground, strongest first (findings-motion 3)."""
    side = max(LEAST_CELL, round(CELL * scene.scale))
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
        explained = windows[..., 9] - evidence < np.maximum(UNEXPLAINED * count, UNEXPLAINED_SHARE * windows[..., 9])
        disparity = sums[..., 11] / sums[..., 10]
    significance = np.where(explained & (sums[..., 10] > 0), evidence / (SAMPLE_PIXELS + SYSTEMATIC * count), 0.0)
    clusters: list[Cluster] = []
    for _ in range(ROUNDS):
        labels = _link(scene, significance, velocity, disparity, ALIKE)
        if not labels.any():
            break
        for label in range(1, labels.max() + 1):
            cells = labels == label
            best = np.unravel_index(np.argmax(np.where(cells, significance, -1.0)), cells.shape)
            kept = _explained(cells, sums, velocity[best])
            significance[kept] = 0.0
            significance[best] = 0.0
            clusters += _split(scene, kept, sums, disparity, side)
    return sorted(clusters, key=lambda cluster: -cluster.significance)


def _link(
    scene: Scene, significance: np.ndarray, velocity: np.ndarray, disparity: np.ndarray, alike: float
) -> np.ndarray:
    return np.asarray(
        kernels.link_cells(
            significance, SEED, GROW, velocity, disparity, REACH, scene.depth_scale, NEAR_METRES, NEAR_PIXELS, alike
        )
    )


def _explained(
    cells: Bool[np.ndarray, "rows columns"], sums: np.ndarray, velocity: Float64[np.ndarray, "2"]
) -> Bool[np.ndarray, "rows columns"]:
    """Those of the cells that one translation explains; it starts at the most significant cell's.

    Linking goes from neighbour to neighbour, so a chain may join a cyclist and the car behind; what is taken out here
    is linked anew in the next round.
    """
    kept = np.zeros_like(cells)
    mine = sums[cells]
    for _ in range(TRIMS):
        limit = np.maximum(UNEXPLAINED * mine[:, 10], UNEXPLAINED_SHARE * mine[:, 9])
        keep = _remaining(mine, velocity) < limit
        if not keep.any():
            return kept
        velocity, _ = _solve(mine[keep].sum(0))
    kept[cells] = keep
    return kept


def _split(
    scene: Scene, cells: Bool[np.ndarray, "rows columns"], sums: np.ndarray, disparity: np.ndarray, side: int
) -> list[Cluster]:
    """Connected pieces of cells that move alike, as clusters; weak pieces are left out."""
    still = np.zeros((*cells.shape, 2))
    labels = _link(scene, np.where(cells, np.inf, 0.0), still, disparity, 1.0)
    clusters = []
    for label in range(1, labels.max() + 1):
        total = sums[labels == label].sum(0)
        velocity, evidence = _solve(total)
        significance = float(evidence / (SAMPLE_PIXELS + SYSTEMATIC * total[10]))
        if significance >= GROW:
            clusters.append(Cluster(labels == label, velocity, significance, side))
    return clusters


def _remaining(sums: Float64[np.ndarray, "n 12"], velocity: Float64[np.ndarray, "2"]) -> Float64[np.ndarray, "n"]:
    """chi^2 that is left once `velocity` is assumed: c - 2 b v + v A v."""
    u, v = velocity
    quadratic = sums[:, 0] * u * u + 2 * sums[:, 1] * u * v + sums[:, 2] * v * v
    return np.asarray(sums[:, 9] - 2 * (sums[:, 6] * u + sums[:, 7] * v) + quadratic)
