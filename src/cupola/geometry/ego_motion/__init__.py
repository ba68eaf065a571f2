"""The camera's own motion between two stereo frames, from flow and disparity alone (findings-motion 2)."""

from __future__ import annotations

from cupola.geometry.ego_motion.bias import estimate_disparity_bias
from cupola.geometry.ego_motion.estimate import DISPARITY_SIGMA, FLOW_SIGMA, EgoMotion, estimate_ego_motion
from cupola.geometry.ego_motion.static import static_flow

__all__ = [
    "DISPARITY_SIGMA",
    "FLOW_SIGMA",
    "EgoMotion",
    "estimate_disparity_bias",
    "estimate_ego_motion",
    "static_flow",
]
