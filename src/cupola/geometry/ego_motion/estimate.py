"""The camera's own motion between two stereo frames, from flow and disparity alone (findings-motion 2).

A static pixel m = (X/Z, Y/Z, 1) with inverse depth rho = d / (fx B) is seen at t + 1 along q = R m + rho t. Working
with q instead of points keeps far pixels (d near 0) well behaved: they still speak for the rotation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.geometry.ego_motion import kernels
from cupola.types import Calibration

GRID_STEP = 8
"""Spacing of the pixels used at KITTI size [px] (findings-motion 2); smaller images take the same number of pixels."""

GRID_POINTS = 7200
"""Number of grid pixels the 8 px grid has in a KITTI frame."""

RANSAC_SAMPLES = 120
SAMPLE_SIZE = 5
SAMPLE_STEPS = 5
"""Draws, pixels a draw and Gauss-Newton steps a draw (findings-motion 2)."""

BATCHES = 4
"""Draws come in so many batches; after each it is asked whether the best is good enough."""

MAX_TRANSLATION = 10.0
"""No draw moves the camera by more on an axis [m a frame]."""

COST_POINTS = 1200
"""Pixels on which a draw is judged (findings-motion 2)."""

COST_CUT = 9.0
"""A pixel costs at most this much [chi^2 of two residuals]: three sigma."""

ENOUGH_INLIERS = 0.8
"""Drawing stops once this share of the pixels lies below half the cut: no better motion is likely."""

IRLS_SCALES = (25.0, 9.0, 4.0)
"""c^2 of the Geman-McClure weights, from loose to tight [chi^2] (findings-motion 2)."""

IRLS_STEPS = 3
"""Gauss-Newton steps at each scale."""

FLOW_SIGMA = 0.5
"""Standard deviation of the flow on one axis where the caller knows no better [px]."""

DISPARITY_SIGMA = 0.55
"""Standard deviation of SGBM disparity [px] (findings-motion 1)."""

MIN_POINTS = 30
"""Fewer usable grid pixels say nothing reliable about six unknowns."""

MIN_INLIERS = 0.25
"""Below this share of explained pixels the motion is not the scene's."""

RIDGE = 1e-9
"""Relative damping of the normal equations, so that a degenerate draw is solved (badly) instead of failing."""


@dataclass(frozen=True)
class EgoMotion:
    """transform: T with P(t+1) = T P(t) for static points, camera frame [m]; covariance: of the left perturbation
    (rotation vector [rad], translation [m]); inliers: share of the grid pixels it explains, in [0, 1]."""

    transform: Float64[np.ndarray, "4 4"]
    covariance: Float64[np.ndarray, "6 6"]
    inliers: float


@dataclass(frozen=True)
class Points:
    """Grid pixels: rays (X/Z, Y/Z, 1), inverse depth rho [1/m], measured position at t + 1 and its variance on an axis
    (normalised coordinates), and the variance of rho."""

    rays: Float64[np.ndarray, "n 3"]
    rho: Float64[np.ndarray, "n"]
    target: Float64[np.ndarray, "n 2"]
    variance: Float64[np.ndarray, "n"]
    rho_variance: float

    def chi2(
        self, rotation: Float64[np.ndarray, "3 3"], translation: Float64[np.ndarray, "3"], most: int | None = None
    ) -> Float64[np.ndarray, "m"]:
        """chi^2 of the first `most` points under a motion."""
        return np.asarray(
            kernels.point_chi2(
                self.rays[:most],
                self.rho[:most],
                self.target[:most],
                self.variance[:most],
                self.rho_variance,
                rotation,
                translation,
            )
        )


def grid_points(
    flow: Float32[np.ndarray, "2 h w"],
    disparity: Float32[np.ndarray, "h w"],
    usable: Bool[np.ndarray, "h w"],
    calibration: Calibration,
    sigma: Float32[np.ndarray, "h w"] | float,
) -> Points:
    """The usable pixels of a regular grid; sigma: standard deviation of the flow on an axis [px]."""
    height, width = disparity.shape
    step = min(GRID_STEP, max(1, round(math.sqrt(height * width / GRID_POINTS))))
    rows, columns = np.nonzero(usable[step // 2 :: step, step // 2 :: step])
    rows, columns = rows * step + step // 2, columns * step + step // 2
    fx, fy = calibration.fx, calibration.fy
    rays = np.stack([(columns - calibration.cx) / fx, (rows - calibration.cy) / fy, np.ones(len(rows))], -1)
    shift = flow[:, rows, columns].astype(np.float64).T / (fx, fy)
    noise = np.broadcast_to(np.asarray(sigma, np.float64), disparity.shape)[rows, columns]
    return Points(
        rays,
        disparity[rows, columns].astype(np.float64) / (fx * calibration.baseline),
        rays[:, :2] + shift,
        (noise / fx) ** 2,
        (DISPARITY_SIGMA / (fx * calibration.baseline)) ** 2,
    )


def _draw(points: Points, rng: np.random.Generator) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """The best motion of the RANSAC draws: rotation and translation."""
    order = rng.permutation(len(points.rho))
    shuffled = Points(
        points.rays[order], points.rho[order], points.target[order], points.variance[order], points.rho_variance
    )
    best, best_cost = (np.eye(3), np.zeros(3)), np.inf
    for _ in range(BATCHES):
        draws = rng.integers(0, len(points.rho), (RANSAC_SAMPLES // BATCHES, SAMPLE_SIZE))
        rotations, translations = kernels.drawn_motions(
            points.rays,
            points.rho,
            points.target,
            points.variance,
            points.rho_variance,
            draws,
            SAMPLE_STEPS,
            RIDGE,
            MAX_TRANSLATION,
        )
        likely = False
        for rotation, translation in zip(rotations, translations, strict=True):
            chi2 = shuffled.chi2(rotation, translation, COST_POINTS)
            cost = float(np.minimum(chi2, COST_CUT).mean())
            if cost < best_cost:
                best, best_cost = (rotation, translation), cost
                likely = bool((chi2 < COST_CUT / 2).mean() > ENOUGH_INLIERS)
        if likely:
            break
    return best


def estimate_ego_motion(
    flow: Float32[np.ndarray, "2 h w"],
    flow_valid: Bool[np.ndarray, "h w"],
    disparity: Float32[np.ndarray, "h w"],
    disparity_valid: Bool[np.ndarray, "h w"],
    calibration: Calibration,
    rng: np.random.Generator,
    flow_sigma: Float32[np.ndarray, "h w"] | float = FLOW_SIGMA,
) -> EgoMotion | None:
    """The rigid motion that most of the scene follows, or None where too few pixels agree on one.

    flow [px], disparity [px] on the first left image's grid, NaN where not valid; flow_sigma: standard deviation of
    the flow on one axis [px]. Robust to moving objects (RANSAC, then iterated reweighting); the disparity's noise is
    carried through the motion, so near pixels do not dominate (findings-motion 2). Two calls with equally seeded rng
    give the same bits.
    """
    usable = flow_valid & disparity_valid
    points = grid_points(flow, disparity, usable, calibration, flow_sigma)
    if len(points.rho) < MIN_POINTS:
        return None
    rotation, translation = _draw(points, rng)
    nothing_more = np.zeros((len(points.rho), 0))
    for scale in IRLS_SCALES:
        for _ in range(IRLS_STEPS):
            normal, right, _ = kernels.normal_equations(
                points.rays,
                points.rho,
                points.target,
                points.variance,
                points.rho_variance,
                nothing_more,
                rotation,
                translation,
                scale,
            )
            normal += RIDGE * np.trace(normal) * np.eye(6)
            rotation, translation = kernels.apply_step(rotation, translation, np.linalg.solve(normal, right))
    inliers = float((points.chi2(rotation, translation) < COST_CUT).mean())
    if inliers < MIN_INLIERS or not np.isfinite(translation).all():
        return None
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    return EgoMotion(transform, np.linalg.inv(normal), inliers)
