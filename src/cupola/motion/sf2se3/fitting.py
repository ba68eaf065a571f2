"""Refitting an object's motion to where its cells go in the image (spec-stage1 4.10)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from cupola.motion.sf2se3.consensus import Objects, join
from cupola.motion.sf2se3.observation import Observation
from cupola.motion.sf2se3.settings import Sf2se3Settings

MIN_POINTS = 4
"""Fewest cells for a refit (spec-stage1 8)."""


def refit(seen: Observation, objects: Objects, settings: Sf2se3Settings) -> Objects:
    """The objects with motions refitted to their cells, and the consensus of these.

    A refit by which an object's consensus shrinks is not taken; the published code takes every one (defect S23).
    """
    motions = np.array(
        [
            refit_motion(seen, motion, cells, settings)
            for motion, cells in zip(objects.motions, objects.assigned, strict=True)
        ]
    )
    after = join(seen, motions, objects.assigned, settings)
    if settings.published:
        return after
    before = join(seen, objects.motions, objects.assigned, settings)
    worse = _support(after) < _support(before)
    return Objects(
        *(
            np.where(worse.reshape(-1, *[1] * (old.ndim - 1)), old, new)
            for old, new in (
                (before.motions, after.motions),
                (before.assigned, after.assigned),
                (before.soft, after.soft),
            )
        )
    )


def _support(objects: Objects) -> Float64[np.ndarray, "n"]:
    return np.asarray(objects.soft.sum((1, 2), dtype=np.float64))


def refit_motion(
    seen: Observation, motion: Float64[np.ndarray, "4 4"], cells: Bool[np.ndarray, "h w"], settings: Sf2se3Settings
) -> Float64[np.ndarray, "4 4"]:
    """The motion that puts the cells' points where the flow leads, by Levenberg-Marquardt from `motion`; the second
    depth is not used. With too few cells the motion stays (published: becomes the identity, defect S23)."""
    if cells.sum() < MIN_POINTS:
        return np.eye(4) if settings.published else motion
    low = seen.low
    x, y = np.meshgrid(low.x, low.y)
    targets = np.stack([x + low.flow[0], y + low.flow[1]], -1)[cells]
    rotation, _ = cv2.Rodrigues(motion[:3, :3])
    # the solver writes into the start it is given
    _, rotation, translation = cv2.solvePnP(
        low.points[:, cells].T.astype(np.float64),
        targets,
        seen.calibration.matrix(),
        None,
        rotation,
        motion[:3, 3:].copy(),
        useExtrinsicGuess=True,
        flags=cv2.SOLVEPNP_ITERATIVE,
    )
    result = np.eye(4)
    result[:3, :3], result[:3, 3:] = cv2.Rodrigues(rotation)[0], translation
    return result if np.isfinite(result).all() else motion
