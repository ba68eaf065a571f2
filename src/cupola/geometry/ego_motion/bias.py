"""The smooth error of the disparity that imperfect rectification leaves, from the flow of the static scene."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.geometry.ego_motion import kernels
from cupola.geometry.ego_motion.estimate import FLOW_SIGMA, IRLS_SCALES, EgoMotion, grid_points
from cupola.types import Calibration

BIAS_PRIOR = 1.0
"""Standard deviation expected of each coefficient of the disparity's bias [px]."""

BIAS_SYSTEMATIC = 0.05
"""Errors of the flow that all pixels share [px]: however many pixels speak for a bias, they say no more than one
pixel known this well."""

BIAS_LIMIT = 2.5
"""A rectified rig is never further off than this [px]."""

BIAS_STEPS = 4
"""Gauss-Newton steps of the joint fit of pose and bias."""


def _bias_terms(rays: Float64[np.ndarray, "n c"], reach: float) -> Float64[np.ndarray, "n k"]:
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
    points = grid_points(flow, disparity, usable, calibration, flow_sigma)
    height, width = disparity.shape
    reach, scale = width / 2 / calibration.fx, calibration.fx * calibration.baseline
    terms = _bias_terms(points.rays, reach)
    rotation, translation = ego.transform[:3, :3], ego.transform[:3, 3]
    bias = np.zeros(terms.shape[1])
    prior = np.concatenate([np.zeros(6), np.full(len(bias), BIAS_PRIOR**-2)])
    for _ in range(BIAS_STEPS):
        rho = np.maximum(points.rho + (terms * bias).sum(1) / scale, 0)
        normal, right, weights = kernels.normal_equations(
            points.rays,
            rho,
            points.target,
            points.variance,
            points.rho_variance,
            terms / scale,
            rotation,
            translation,
            IRLS_SCALES[-1],
        )
        trust = min(1.0, (calibration.fx / BIAS_SYSTEMATIC) ** 2 / max(weights, 1e-9))
        right = trust * right - prior * np.concatenate([np.zeros(6), bias])
        change = np.linalg.solve(trust * normal + np.diag(prior + 1e-12), right)
        rotation, translation = kernels.apply_step(rotation, translation, change[:6])
        bias = bias + change[6:]
    x = (np.arange(width) - calibration.cx) / calibration.fx
    y = (np.arange(height) - calibration.cy) / calibration.fy
    x, y = np.meshgrid(x, y)
    field = (_bias_terms(np.stack([x.ravel(), y.ravel()], -1), reach) * bias).sum(1)
    return np.asarray(np.clip(field, -BIAS_LIMIT, BIAS_LIMIT).reshape(height, width), np.float32)
