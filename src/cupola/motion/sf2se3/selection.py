"""Choosing motions that explain what is unexplained yet, and splitting one into its places (spec-stage1 4.7, 4.8)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from cupola.motion.sf2se3 import kernels
from cupola.motion.sf2se3.observation import Observation
from cupola.motion.sf2se3.settings import Sf2se3Settings


def select(
    soft: Float32[np.ndarray, "n h w"],
    accepted: Float32[np.ndarray, "m h w"],
    reliable: Bool[np.ndarray, "h w"],
    most: int,
    settings: Sf2se3Settings,
) -> list[int]:
    """Indices of the candidates to take, best first, at most `most`, from the soft consensus of candidates and of what
    was accepted before.

    Each adds more than the least gain to what the accepted and the ones before it cover; a candidate that overlaps an
    accepted object by more than the allowed share is out.
    """
    soft = np.where((kernels.overlaps(soft, accepted, reliable) > settings.max_overlap)[:, None, None], 0, soft)
    coverage = accepted.max(0, initial=0)
    chosen: list[int] = []
    while len(chosen) < min(most, len(soft)):
        gains = kernels.gains(soft, coverage, reliable)
        best = int(np.argmax(gains))
        if gains[best] <= settings.min_gain:
            break
        chosen.append(best)
        coverage = np.maximum(coverage, soft[best])
    return chosen


def split(
    seen: Observation,
    soft: Float32[np.ndarray, "h w"],
    explained: Bool[np.ndarray, "h w"],
    settings: Sf2se3Settings,
) -> Bool[np.ndarray, "k h w"]:
    """The parts of a motion's inliers that hang together in the image, without the cells that accepted objects explain.

    The published linkage lets a cell that is no inlier bridge two parts (defect S20).
    """
    low, scale = seen.low, settings.spatial_sigma
    row_near, column_near = (
        kernels.tails_of(np.abs(at[:, None] - at) / (scale * focal))
        for at, focal in ((low.y, seen.calibration.fy), (low.x, seen.calibration.fx))
    )
    usable = ~explained & (low.points[2] > 0)
    parts, count = kernels.connected_parts(soft, usable, row_near, column_near, settings.inlier, settings.published)
    return np.asarray((parts == np.arange(1, count + 1)[:, None, None]) & low.reliable)
