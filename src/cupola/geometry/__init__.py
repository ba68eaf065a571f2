"""Geometry of a rectified stereo rig in motion, as pure functions on arrays: camera, samplers, rigid motions,
scene flow, consistency.

Arrays are channels first (`3 h w` points [m], `2 h w` flow [px], `h w` disparity [px]), pixel centres at integers, and
unknown is NaN.
"""
