"""How well motions, and objects of a motion and a place, explain each pixel (spec-stage1 4.6, 4.9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.motion.sf2se3 import kernels
from cupola.motion.sf2se3.observation import Level, Observation
from cupola.motion.sf2se3.settings import Sf2se3Settings


@dataclass(frozen=True)
class Consensus:
    """soft: product of 2 (1 - Phi) of all misfits, 0 where nothing is known; square: sum of the squared misfits
    [sigma^2], that is -2 log likelihood but for a constant."""

    soft: Float32[np.ndarray, "n h w"]
    square: Float32[np.ndarray, "n h w"]


@dataclass(frozen=True)
class Objects:
    """Motions with the cells that carry them, and the joint consensus of the two on the coarse grid."""

    motions: Float64[np.ndarray, "n 4 4"]
    assigned: Bool[np.ndarray, "n h w"]
    soft: Float32[np.ndarray, "n h w"]

    def __len__(self) -> int:
        return len(self.motions)

    def __getitem__(self, index: list[int]) -> Objects:
        return Objects(self.motions[index], self.assigned[index], self.soft[index])

    def __add__(self, other: Objects) -> Objects:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("motions", "assigned", "soft"))
        return Objects(*(np.concatenate(pair) for pair in pairs))

    @staticmethod
    def none(size: tuple[int, int]) -> Objects:
        """No object on a coarse grid of (rows, columns)."""
        return Objects(np.zeros((0, 4, 4)), np.zeros((0, *size), bool), np.zeros((0, *size), np.float32))


def motion_consensus(
    seen: Observation, level: Level, motions: Float64[np.ndarray, "n 4 4"], settings: Sf2se3Settings
) -> Consensus:
    """Consensus of every pixel of a level with every motion."""
    shape = (len(motions), *level.size)
    result = Consensus(np.empty(shape, np.float32), np.empty(shape, np.float32))
    kernels.motion_consensus(
        *evidence(seen, level),
        *(motions, seen.rig, seen.sigma, settings.published),
        *(result.soft, result.square),
    )
    return result


def joint_consensus(
    seen: Observation,
    level: Level,
    motions: Float64[np.ndarray, "n 4 4"],
    assigned: Bool[np.ndarray, "n i j"],
    settings: Sf2se3Settings,
) -> Consensus:
    """Consensus with the motion and with the nearest of the object's cells (assigned, on the coarse grid).

    An object reaches only as far as the window: beyond it soft is 0 and square inf.
    """
    moved = motion_consensus(seen, level, motions, settings)
    distances = place_distances(seen, level, assigned, settings)
    placed = Consensus(np.empty_like(moved.soft), np.empty_like(moved.square))
    kernels.spatial_consensus(
        distances, seen.low.y, level.row_cell, level.y, *_reach(seen, settings)[1:], placed.soft, placed.square
    )
    return Consensus(moved.soft * placed.soft, moved.square + placed.square)


def place_distances(
    seen: Observation, level: Level, assigned: Bool[np.ndarray, "n i j"], settings: Sf2se3Settings
) -> Float64[np.ndarray, "n i w"]:
    """Horizontal distances to the nearest cell of each object in each row of cells; see `kernels.row_distances`."""
    scale, _, window = _reach(seen, settings)
    distances = kernels.row_distances(assigned, seen.low.x, level.column_cell, level.x, scale, window)
    return np.asarray(distances)


def _reach(seen: Observation, settings: Sf2se3Settings) -> tuple[float, float, int]:
    """One spatial sigma along x and along y [px], and the window [cells]."""
    sigma = settings.spatial_sigma
    return sigma * seen.calibration.fx, sigma * seen.calibration.fy, settings.window


def join(
    seen: Observation,
    motions: Float64[np.ndarray, "n 4 4"],
    assigned: Bool[np.ndarray, "n h w"],
    settings: Sf2se3Settings,
) -> Objects:
    """Objects on the coarse grid, with their cells replaced by the reliable inliers of the joint consensus."""
    soft = joint_consensus(seen, seen.low, motions, assigned, settings).soft
    return Objects(motions, (soft > settings.inlier) & seen.low.reliable, soft)


Evidence = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""points, flow, disparity at t + 1, reliable, x, y of a level, as the kernels take them."""


def evidence(seen: Observation, level: Level) -> Evidence:
    """A level as the kernels take it."""
    with np.errstate(divide="ignore"):
        disparity_next = seen.calibration.fx * seen.calibration.baseline / level.points_next[2].astype(np.float64)
    return level.points, level.flow, disparity_next, level.reliable, level.x, level.y
