"""Geometry of a rectified stereo rig in motion, as pure functions on arrays: camera, samplers, rigid motions,
scene flow, consistency.

Arrays are channels first (`3 h w` points [m], `2 h w` flow [px], `h w` disparity [px]), pixel centres at integers, and
unknown is NaN. Motions are 4 x 4 matrices (`cupola.geometry.se3`).
"""

from cupola.geometry import se3
from cupola.geometry.camera import depth_from_disparity, disparity_from_depth, points_from_disparity, project
from cupola.geometry.consistency import consistent_disparity, consistent_flow
from cupola.geometry.disparity import fill_disparity
from cupola.geometry.edges import disparity_edges
from cupola.geometry.noise import noise_scale
from cupola.geometry.scene_flow import SceneFlow, compute_scene_flow, low_grid
from cupola.geometry.warping import pixel_grid, sample_bilinear, sample_nearest, warp_bilinear, warp_nearest

__all__ = [
    "SceneFlow",
    "compute_scene_flow",
    "consistent_disparity",
    "consistent_flow",
    "depth_from_disparity",
    "disparity_edges",
    "disparity_from_depth",
    "fill_disparity",
    "low_grid",
    "noise_scale",
    "pixel_grid",
    "points_from_disparity",
    "project",
    "sample_bilinear",
    "sample_nearest",
    "se3",
    "warp_bilinear",
    "warp_nearest",
]
