"""Masks made to fit what is seen to move: flow and disparity bleed over an object's border, images do not.

Ours, beyond findings-motion 5. Around an object flow and disparity take over its values for some pixels, and a crash
barrier before a car is not the car. Each pixel of a mask is therefore asked which of the second images' places shows
it: where the object's motion puts it, or where it would stand still, at its own depth or at that of what is around.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float32

from cupola.motion.objects import (
    HIGHEST,
    LOWEST,
    OPEN,
    MovingObject,
    closed,
    filled,
    hull,
    large_enough,
    largest_parts,
    opened,
    touching,
)
from cupola.motion.scene import Scene
from cupola.motion.views import Views, project

CAP = 30.0
"""A pixel's grey difference is cut here [grey levels]."""

WORSE, MARGIN = 1.1, 0.5
"""A pixel seems still where moving costs more than this factor times standing still plus this [grey levels]."""

SURELY_WORSE, SURE_MARGIN = 1.25, 1.0
"""It surely is still where the cost is higher by this factor and this [grey levels]."""

BETTER, BETTER_MARGIN = 0.9, 0.3
"""A pixel surely moves where moving costs less than this factor times standing still minus this [grey levels]."""

EXTENT = 2.5
"""An object reaches at most this far beyond what its flow showed [m]."""

AVERAGE = 5
"""Side of the box over which differences are averaged [px at KITTI size]."""

AROUND = 25
"""Side of the box in which the depth behind and before a pixel is looked for [px at KITTI size]."""


def reshaped(scene: Scene, views: Views, one: MovingObject) -> MovingObject | None:
    """The object with the mask that the images show, or None where too little is left.

    Pixels that seem still leave the mask; pixels of the object's depth that surely move and touch it join; what the
    hull of the rest covers comes back unless it surely is still: windows and plain panels look alike either way.
    """
    y0, y1, x0, x1 = one.box
    metre = scene.calibration.fx / scene.depth_scale * float(np.median(scene.filled[one.mask]))
    margin, around = int(EXTENT * metre) + 4, scene.odd(AROUND)
    height, width = scene.size
    window = np.s_[max(0, y0 - margin) : min(height, y1 + margin), max(0, x0 - margin) : min(width, x1 + margin)]
    disparity = scene.filled[window]
    box = np.ones((around, around), np.uint8)
    moving = _cost(scene, views, window, disparity, one)
    own = _cost(scene, views, window, disparity, None)
    still = np.minimum.reduce(
        [own, *(_cost(scene, views, window, depth(disparity, box), None) for depth in (cv2.erode, cv2.dilate))]
    )
    with np.errstate(invalid="ignore"):
        possible = (disparity > one.disparity[0]) & (disparity < one.disparity[1])
        possible &= ~(scene.height[window] < LOWEST) & ~(scene.height[window] > HIGHEST)
    core = largest_parts(one.mask[window] & ~(moving > WORSE * still + MARGIN), scene.odd(OPEN, 1))
    if not core.any():
        return None
    joined = closed(core | (possible & (moving < BETTER * still - BETTER_MARGIN)), scene.odd(OPEN))
    mask = touching(opened(joined, scene.odd(OPEN, 1)), core)
    if mask.any():
        surely_still = moving > SURELY_WORSE * still + SURE_MARGIN
        mask = filled(largest_parts(hull(mask) & (possible | mask) & ~surely_still, scene.odd(OPEN, 1)))
    if not mask.any() or not large_enough(scene, mask, window, one.velocity):
        return None
    full = np.zeros(scene.size, bool)
    full[window] = mask
    return replace(one, mask=full)


def _cost(
    scene: Scene,
    views: Views,
    window: tuple[slice, slice],
    disparity: Float32[np.ndarray, "a b"],
    one: MovingObject | None,
) -> Float32[np.ndarray, "a b"]:
    """Mean cut grey difference to the second left and right image under the object's motion (None: standing still)."""
    ys, xs = np.mgrid[window]
    x, y, d = project(scene, ys.ravel(), xs.ravel(), disparity.ravel(), None if one is None else one.velocity)
    shape = disparity.shape
    reference = views.grey[window].astype(np.float32)
    total = np.zeros(shape, np.float32)
    for image, column in ((views.grey_next, x), (views.grey_next_right, x - d)):
        seen = cv2.remap(
            image, column.reshape(shape), y.reshape(shape), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        total += np.minimum(np.abs(seen.astype(np.float32) - reference), CAP)
    side = scene.odd(AVERAGE)
    return np.asarray(cv2.boxFilter(total, -1, (side, side)) / 2, np.float32)
