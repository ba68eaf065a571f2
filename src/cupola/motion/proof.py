"""Tests that only real objects pass (findings-motion 6)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from cupola.geometry.ego_motion import DISPARITY_SIGMA
from cupola.motion import kernels
from cupola.motion.objects import MovingObject
from cupola.motion.scene import Scene
from cupola.motion.views import DIFFERENCE_CAP, Views, project, sampled

LOWEST_PART = 1.0
"""An object reaches down to this height above the ground [m]: treetops and sky edges do not (findings-motion 6)."""

TALLEST_PART = 0.8
"""An object reaches up to this height at least [m]: shadows and bleeding disparities on the road do not."""

VERTICAL_SHARE = 0.35
"""A vertical degree of freedom may not explain more than this share as much again (findings-motion 6)."""

BETTER = 0.9
"""Photometric error under the object's motion against that under the static scene's, in both second images
(findings-motion 6: at least 10 % better; 20 % loses one car, 30 % three)."""


def proven(scene: Scene, images: Views, one: MovingObject) -> bool:
    """Whether the object stands near the ground, moves along it, and is seen where its motion puts it."""
    return _stands(scene, one.mask) and _stays_on_ground(scene, one) and _is_seen(scene, images, one)


def _stands(scene: Scene, mask: Bool[np.ndarray, "h w"]) -> bool:
    heights = scene.height[mask]
    heights = heights[np.isfinite(heights)]
    if not len(heights):
        return False
    low, high = np.quantile(heights, [0.05, 0.95])
    return bool(low <= LOWEST_PART and high >= TALLEST_PART)


def _stays_on_ground(scene: Scene, one: MovingObject) -> bool:
    """Compares what a vertical motion adds with what the motion along the ground explains."""
    ys, xs = (index.astype(np.int32) for index in np.nonzero(one.mask & scene.known))

    def equations(velocity: Float64[np.ndarray, "2"] | None) -> tuple[np.ndarray, np.ndarray, float]:
        motion = scene.motion(velocity)
        return kernels.normal_equations(  # type: ignore[no-any-return]
            ys,
            xs,
            scene.flow,
            scene.moved,
            scene.disparity,
            scene.flow_sigma,
            DISPARITY_SIGMA,
            motion,
            scene.rig,
            scene.basis,
            25.0,
        )

    _, _, static = equations(None)
    normal, right, moving = equations(one.velocity)
    if np.linalg.det(normal) <= 0:
        return False
    gain = float(right @ np.linalg.solve(normal, right))
    ground = float(right[:2] @ np.linalg.solve(normal[:2, :2], right[:2]))
    return static > moving and gain - ground <= VERTICAL_SHARE * (static - moving)


def _is_seen(scene: Scene, images: Views, one: MovingObject) -> bool:
    static, moving = (_photometric(scene, images, one.mask, velocity) for velocity in (None, one.velocity))
    return bool((moving <= BETTER * static).all())


def _photometric(
    scene: Scene, images: Views, mask: Bool[np.ndarray, "h w"], velocity: Float64[np.ndarray, "2"] | None
) -> Float64[np.ndarray, "2"]:
    """Mean cut difference of the mask's pixels to the second left and right image under a motion."""
    ys, xs = np.nonzero(mask & np.isfinite(scene.disparity))
    x, y, d = project(scene, ys, xs, scene.disparity[ys, xs], velocity)
    reference = images.first[ys, xs]
    errors = []
    for image, column in ((images.second, x), (images.second_right, x - d)):
        seen = sampled(image, column, y)
        errors.append(np.minimum(np.abs(seen - reference), DIFFERENCE_CAP).mean(dtype=np.float64))
    return np.array(errors)
