"""The camera's own motion between two stereo frames, from flow and disparity alone (findings-motion 2).

A static pixel m = (X/Z, Y/Z, 1) with inverse depth rho = d / (fx B) is seen at t + 1 along q = R m + rho t. Working
with q instead of points keeps far pixels (d near 0) well behaved: they still speak for the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from cupola.types import Calibration

GRID_STEP = 8
"""Spacing of the pixels used at KITTI size [px] (findings-motion 2); smaller images take the same number of pixels."""

GRID_POINTS = 7200
"""Number of grid pixels the 8 px grid has in a KITTI frame."""

RANSAC_SAMPLES = 120
SAMPLE_SIZE = 5
SAMPLE_STEPS = 5
"""Draws, pixels a draw and Gauss-Newton steps a draw (findings-motion 2)."""

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

BIAS_PRIOR = 1.0
"""Standard deviation expected of each coefficient of the disparity's bias [px]."""

BIAS_SYSTEMATIC = 0.05
"""Errors of the flow that all pixels share [px]: however many pixels speak for a bias, they say no more than one
pixel known this well."""

BIAS_LIMIT = 2.5
"""A rectified rig is never further off than this [px]."""

BIAS_STEPS = 4
"""Gauss-Newton steps of the joint fit of pose and bias."""

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
class _Points:
    """Grid pixels: rays m, inverse depth rho [1/m], measured image position at t+1 (normalised), and their noise."""

    rays: Float64[np.ndarray, "*n 3"]
    rho: Float64[np.ndarray, "*n"]
    target: Float64[np.ndarray, "*n 2"]
    variance: Float64[np.ndarray, "*n"]
    """Flow variance, normalised coordinates squared."""
    rho_variance: float

    def take(self, index: Int64[np.ndarray, "*k"]) -> _Points:
        return _Points(self.rays[index], self.rho[index], self.target[index], self.variance[index], self.rho_variance)


def rotation_matrix(vector: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation matrices of rotation vectors [rad] (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1.0, np.sin(safe) / safe)
    second = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def _residuals(
    points: _Points, rotation: Float64[np.ndarray, "*b 3 3"], translation: Float64[np.ndarray, "*b 3"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ray q (..., n, 3), residual (..., n, 2) and change of the predicted position with rho (..., n, 2)."""
    q = np.einsum("...ij,...nj->...ni", rotation, points.rays) + points.rho[..., None] * translation[..., None, :]
    z = np.maximum(q[..., 2:], 1e-6)
    predicted = q[..., :2] / z
    slope = (translation[..., None, :2] - predicted * translation[..., None, 2:]) / z
    return q, points.target - predicted, slope


def _chi2(points: _Points, residual: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """r^T S^-1 r with S = s^2 I + s_rho^2 g g^T, inverted by Sherman-Morrison."""
    along = (slope * residual).sum(-1)
    gain = points.rho_variance / (points.variance + points.rho_variance * (slope**2).sum(-1))
    return np.asarray(((residual**2).sum(-1) - gain * along**2) / points.variance)


def _jacobian(q: np.ndarray, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of d(predicted x)/d(rotation vector, translation) and of y, for the perturbation q -> q + w x q + rho v."""
    z = np.maximum(q[..., 2], 1e-6)
    x, y, rho = q[..., 0] / z, q[..., 1] / z, rho / z
    zero = np.zeros_like(x)
    j_x = np.stack([-x * y, 1 + x * x, -y, rho, zero, -x * rho], -1)
    j_y = np.stack([-1 - y * y, x * y, x, zero, rho, -y * rho], -1)
    return j_x, j_y


def _step(
    points: _Points,
    rotation: np.ndarray,
    translation: np.ndarray,
    scale: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One Gauss-Newton step for one motion or a batch of them; scale: c^2 of Geman-McClure, None = plain squares.

    Returns rotation, translation and the normal matrix. Sums run in a fixed order (no BLAS), so that the result does
    not depend on threads.
    """
    q, residual, slope = _residuals(points, rotation, translation)
    weight = 1 / points.variance
    if scale is not None:
        weight = weight * (scale / (scale + _chi2(points, residual, slope))) ** 2
    weight = np.broadcast_to(weight, residual.shape[:-1])
    gain = points.rho_variance / (points.variance + points.rho_variance * (slope**2).sum(-1))
    j_x, j_y = _jacobian(q, points.rho)
    j_slope = slope[..., :1] * j_x + slope[..., 1:] * j_y
    along = (slope * residual).sum(-1)

    def total(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("...na,...nb->...ab", left, right))

    def weighted(rows: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.asarray(rows * by[..., None])

    normal = total(weighted(j_x, weight), j_x) + total(weighted(j_y, weight), j_y)
    normal = normal - total(weighted(j_slope, weight * gain), j_slope)
    right = weighted(j_x, weight * residual[..., 0]) + weighted(j_y, weight * residual[..., 1])
    right = (right - weighted(j_slope, weight * gain * along)).sum(-2)
    damping = RIDGE * np.trace(normal, axis1=-2, axis2=-1)[..., None, None] * np.eye(6)
    change = np.linalg.solve(normal + damping, right[..., None])[..., 0]
    turn = rotation_matrix(change[..., :3])
    return turn @ rotation, np.einsum("...ij,...j->...i", turn, translation) + change[..., 3:], normal


def _draw(points: _Points, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The best motion of the RANSAC draws: rotation and translation."""
    count = len(points.rho)
    judged = points.take(rng.permutation(count)[:COST_POINTS])
    best, best_cost = (np.eye(3), np.zeros(3)), np.inf
    batch = RANSAC_SAMPLES // 4
    for _ in range(4):
        index = rng.integers(0, count, (batch, SAMPLE_SIZE))
        sample = points.take(index)
        rotation, translation = np.broadcast_to(np.eye(3), (batch, 3, 3)), np.zeros((batch, 3))
        for _ in range(SAMPLE_STEPS):
            rotation, translation, _ = _step(sample, rotation, translation, None)
            translation = np.clip(translation, -10, 10)
        _, residual, slope = _residuals(judged, rotation, translation)
        chi2 = _chi2(judged, residual, slope)
        cost = np.minimum(chi2, COST_CUT).mean(-1)
        winner = int(np.argmin(cost))
        if cost[winner] < best_cost:
            best, best_cost = (rotation[winner], translation[winner]), float(cost[winner])
        if (chi2[winner] < COST_CUT / 2).mean() > ENOUGH_INLIERS:
            break
    return best


def _grid_points(
    flow: np.ndarray, disparity: np.ndarray, usable: np.ndarray, calibration: Calibration, sigma: np.ndarray | float
) -> _Points:
    height, width = disparity.shape
    step = min(GRID_STEP, max(1, round((height * width / GRID_POINTS) ** 0.5)))
    rows, columns = np.nonzero(usable[step // 2 :: step, step // 2 :: step])
    rows, columns = rows * step + step // 2, columns * step + step // 2
    fx, fy = calibration.fx, calibration.fy
    rays = np.stack([(columns - calibration.cx) / fx, (rows - calibration.cy) / fy, np.ones(len(rows))], -1)
    shift = flow[:, rows, columns].astype(np.float64).T / (fx, fy)
    noise = np.broadcast_to(np.asarray(sigma, np.float64), disparity.shape)[rows, columns]
    return _Points(
        rays,
        disparity[rows, columns].astype(np.float64) / (fx * calibration.baseline),
        rays[:, :2] + shift,
        (noise / fx) ** 2,
        (DISPARITY_SIGMA / (fx * calibration.baseline)) ** 2,
    )


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
    points = _grid_points(flow, disparity, usable, calibration, flow_sigma)
    if len(points.rho) < MIN_POINTS:
        return None
    rotation, translation = _draw(points, rng)
    for scale in IRLS_SCALES:
        for _ in range(IRLS_STEPS):
            rotation, translation, normal = _step(points, rotation, translation, scale)
    _, residual, slope = _residuals(points, rotation, translation)
    inliers = float((_chi2(points, residual, slope) < COST_CUT).mean())
    if inliers < MIN_INLIERS or not np.isfinite(translation).all():
        return None
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    covariance = np.linalg.inv(normal + RIDGE * np.trace(normal) * np.eye(6))
    return EgoMotion(transform, covariance, inliers)


def static_flow(
    disparity: Float[np.ndarray, "h w"], transform: Float64[np.ndarray, "4 4"], calibration: Calibration
) -> tuple[Float32[np.ndarray, "2 h w"], Float32[np.ndarray, "h w"]]:
    """Flow [px] and next disparity [px] of pixels that follow P(t+1) = T P(t).

    disparity [px], 0 = at infinity. Points that come to lie behind the camera get NaN. The second array is the
    disparity of the same (moved) pixels in the next frame, on the first frame's grid.
    """
    height, width = disparity.shape
    fx, fy, cx, cy = calibration.fx, calibration.fy, calibration.cx, calibration.cy
    r = transform[:3, :3].astype(np.float32)
    t = (transform[:3, 3] / (fx * calibration.baseline)).astype(np.float32)
    x = ((np.arange(width) - cx) / fx).astype(np.float32)[None, :]
    y = ((np.arange(height) - cy) / fy).astype(np.float32)[:, None]
    d = disparity.astype(np.float32)
    z = r[2, 0] * x + (r[2, 1] * y + r[2, 2]) + t[2] * d
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(z > 1e-3, 1 / z, np.float32(np.nan))
    u = (r[0, 0] * x + (r[0, 1] * y + r[0, 2]) + t[0] * d) * inverse
    v = (r[1, 0] * x + (r[1, 1] * y + r[1, 2]) + t[1] * d) * inverse
    flow = np.stack([(u - x) * np.float32(fx), (v - y) * np.float32(fy)])
    return flow.astype(np.float32), (d * inverse).astype(np.float32)


def _bias_terms(rays: Float64[np.ndarray, "n 3"], reach: float) -> Float64[np.ndarray, "n k"]:
    """Smooth functions of the image position: what imperfect rectification leaves (lens and rotation residuals)."""
    u, v = rays[:, 0] / reach, rays[:, 1] / reach
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v, u**3, u * u * v, u**4], -1)


def estimate_disparity_bias(
    flow: Float32[np.ndarray, "2 h w"],
    disparity: Float32[np.ndarray, "h w"],
    usable: Bool[np.ndarray, "h w"],
    calibration: Calibration,
    ego: EgoMotion,
    flow_sigma: Float32[np.ndarray, "h w"] | float = FLOW_SIGMA,
) -> Float32[np.ndarray, "h w"]:
    """What to add to the disparity [px] so that static pixels move as they should: a smooth field over the image.

    Rectified rigs are off: KITTI disparities are 0.2 px too small in the middle and 1 px at the left and right border
    (measured against lidar), which makes a bush at 20 m "move" 0.1 m a frame. The flow of the static scene knows its
    depth too, so pose and bias are fitted together, robustly and with a prior of `BIAS_PRIOR`; a camera at rest leaves
    the prior's zero.
    """
    points = _grid_points(flow, disparity, usable, calibration, flow_sigma)
    height, width = disparity.shape
    reach = width / 2 / calibration.fx
    terms, scale = _bias_terms(points.rays, reach), calibration.fx * calibration.baseline
    rotation, translation = ego.transform[:3, :3], ego.transform[:3, 3]
    bias = np.zeros(terms.shape[1])
    prior = np.concatenate([np.zeros(6), np.full(len(bias), BIAS_PRIOR**-2)])
    for _ in range(BIAS_STEPS):
        corrected = replace(points, rho=np.maximum(points.rho + terms @ bias / scale, 0))
        q, residual, slope = _residuals(corrected, rotation, translation)
        gain = points.rho_variance / (points.variance + points.rho_variance * (slope**2).sum(-1))
        weight = (IRLS_SCALES[-1] / (IRLS_SCALES[-1] + _chi2(corrected, residual, slope))) ** 2 / points.variance
        weight = weight * min(1.0, (calibration.fx / BIAS_SYSTEMATIC) ** 2 / max(float(weight.sum()), 1e-9))
        j_x, j_y = (
            np.concatenate([rows, terms * slope[:, i : i + 1] / scale], 1)
            for i, rows in enumerate(_jacobian(q, corrected.rho))
        )
        j_slope = slope[:, :1] * j_x + slope[:, 1:] * j_y
        along = (slope * residual).sum(-1)
        normal = np.diag(prior)
        right = -prior * np.concatenate([np.zeros(6), bias])
        for rows, by, value in (
            (j_x, weight, residual[:, 0]),
            (j_y, weight, residual[:, 1]),
            (j_slope, -weight * gain, along),
        ):
            scaled = rows * by[:, None]
            normal = normal + np.einsum("na,nb->ab", scaled, rows)
            right = right + (scaled * value[:, None]).sum(0)
        change = np.linalg.solve(normal, right)
        turn = rotation_matrix(change[:3])
        rotation, translation, bias = turn @ rotation, turn @ translation + change[3:6], bias + change[6:]
    x, y = np.meshgrid(
        (np.arange(width) - calibration.cx) / calibration.fx, (np.arange(height) - calibration.cy) / calibration.fy
    )
    field = _bias_terms(np.stack([x.ravel(), y.ravel(), y.ravel()], -1), reach) @ bias
    return np.clip(field, -BIAS_LIMIT, BIAS_LIMIT).reshape(height, width).astype(np.float32)
