"""What the motion room knows of a clip before it looks for objects: everything per pixel, on the first frame's grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.correspondence.kernels import loop_error
from cupola.geometry.disparity import fill_disparity
from cupola.geometry.ego_motion import DISPARITY_SIGMA, EgoMotion, estimate_disparity_bias, estimate_ego_motion
from cupola.motion import kernels
from cupola.motion.ground import depth_of, find_plane, ground_basis, height_above_ground
from cupola.types import Calibration, Correspondence, StereoClip

REFERENCE_PIXELS = 376 * 1241
"""Pixels of the images at which the lengths of findings-motion were measured (KITTI)."""

SIGMA_FLOOR, SIGMA_SLOPE = 0.3, 0.6
"""Flow sigma on an axis = floor + slope * forward-backward error [px] (findings-motion 1)."""

SIGMA_EDGE = 0.45
"""Added at disparity edges [px] (findings-motion 1)."""

LEAST_DISPARITY = 0.3
"""Disparity stays at least this large when its bias is taken off [px]."""

EDGE_STEP, EDGE_SHARE = 1.0, 0.08
"""A disparity edge: neighbours (5 x 5) differ by more than step + share * disparity [px]."""


@dataclass(frozen=True)
class Scene:
    """One clip as evidence. ego: the camera's motion; rig: (fx, fy, cx, cy, baseline); basis: sideways, forward, down;
    flow, flow_sigma [px]; disparity, disparity_next and moved (the latter at the flow's target) [px]; filled:
    disparity without gaps; height above the ground, depth [m]. Unknown: NaN; known: flow and disparity both known."""

    calibration: Calibration
    ego: EgoMotion
    rig: Float64[np.ndarray, "5"]
    basis: Float64[np.ndarray, "3 3"]
    flow: Float32[np.ndarray, "2 h w"]
    flow_sigma: Float32[np.ndarray, "h w"]
    disparity: Float32[np.ndarray, "h w"]
    disparity_next: Float32[np.ndarray, "h w"]
    moved: Float32[np.ndarray, "h w"]
    filled: Float32[np.ndarray, "h w"]
    height: Float32[np.ndarray, "h w"]
    depth: Float32[np.ndarray, "h w"]
    known: Bool[np.ndarray, "h w"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) [px]."""
        return self.disparity.shape[0], self.disparity.shape[1]

    @property
    def depth_scale(self) -> float:
        """depth * disparity [m px]."""
        return self.calibration.fx * self.calibration.baseline

    @property
    def scale(self) -> float:
        """Side of this image over KITTI's."""
        return math.sqrt(self.disparity.size / REFERENCE_PIXELS)

    def odd(self, pixels: int, least: int = 3) -> int:
        """A length at KITTI size [px] as an odd number of this image's pixels, at least `least`."""
        return max(least, 2 * round((pixels * self.scale - 1) / 2) + 1)

    def motion(self, velocity: Float64[np.ndarray, "k"] | None = None) -> Float64[np.ndarray, "3 4"]:
        """[R | t] of the static scene, or of something that also moves by `velocity` in the basis [m]."""
        result = self.ego.transform[:3].copy()
        if velocity is not None:
            result[:, 3] += velocity @ self.basis[: len(velocity)]
        return result

    def chi2(
        self, velocity: Float64[np.ndarray, "k"] | None = None, box: tuple[int, int, int, int] | None = None
    ) -> Float32[np.ndarray, "a b"]:
        """Squared residual in units of noise, three degrees of freedom a pixel; NaN unknown. box: y0, y1, x0, x1."""
        box = box or (0, self.size[0], 0, self.size[1])
        return np.asarray(
            kernels.chi2_map(
                self.flow,
                self.moved,
                self.disparity,
                self.flow_sigma,
                DISPARITY_SIGMA,
                self.motion(velocity),
                self.rig,
                box,
            )
        )

    def with_flow(self, flow: Float32[np.ndarray, "2 h w"], sigma: Float32[np.ndarray, "h w"]) -> Scene:
        """The same scene with better flow."""
        moved = kernels.sample_disparity(self.disparity_next, flow)
        known = np.isfinite(flow[0]) & np.isfinite(self.disparity)
        return replace(self, flow=flow, flow_sigma=sigma, moved=moved, known=known)


def disparity_edges(filled: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose 5 x 5 neighbourhood holds an edge in depth."""
    box = np.ones((5, 5), np.uint8)
    span = cv2.dilate(filled, box) - cv2.erode(filled, box)
    return np.asarray(span > EDGE_STEP + EDGE_SHARE * filled)


def observe(clip: StereoClip, correspondence: Correspondence, rng: np.random.Generator) -> Scene | None:
    """The evidence of a clip, or None where no common motion of the scene can be made out."""
    calibration = clip.calibration
    disparity = correspondence.disparity
    filled = fill_disparity(disparity, correspondence.disparity_valid)
    error = loop_error(correspondence.flow, correspondence.flow_backward)
    known = correspondence.flow_valid & correspondence.disparity_valid & np.isfinite(error)
    sigma = np.where(np.isfinite(error), SIGMA_FLOOR + SIGMA_SLOPE * error, np.float32(np.nan))
    sigma = (sigma + SIGMA_EDGE * disparity_edges(filled)).astype(np.float32)
    ego = estimate_ego_motion(correspondence.flow, known, disparity, known, calibration, rng, sigma)
    if ego is None:
        return None
    bias = estimate_disparity_bias(correspondence.flow, disparity, known, calibration, ego, sigma)
    disparity, disparity_next = (
        np.maximum(values + bias, LEAST_DISPARITY) for values in (disparity, correspondence.disparity_next)
    )
    ego = estimate_ego_motion(correspondence.flow, known, disparity, known, calibration, rng, sigma)
    if ego is None:
        return None
    plane = find_plane(disparity, correspondence.disparity_valid, calibration, rng)
    flow = np.where(known, correspondence.flow, np.float32(np.nan))
    return Scene(
        calibration=calibration,
        ego=ego,
        rig=np.array([calibration.fx, calibration.fy, calibration.cx, calibration.cy, calibration.baseline]),
        basis=ground_basis(plane, calibration),
        flow=flow,
        flow_sigma=sigma,
        disparity=disparity,
        disparity_next=disparity_next,
        moved=kernels.sample_disparity(disparity_next, flow),
        filled=filled,
        height=height_above_ground(disparity, plane, calibration),
        depth=depth_of(disparity, calibration),
        known=known,
    )
