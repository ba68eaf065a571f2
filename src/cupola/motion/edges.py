"""Masks cut back to what is seen to move: flow and disparity bleed over an object's border, images do not.

Ours, beyond findings-motion 5. Around an object flow and disparity take over its values for some pixels, and a crash
barrier before a car is not the car. Each pixel of a mask is therefore asked which of the second images' places shows
it: where the object's motion puts it, or where it would stand still, at its own depth or at that of what is around.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float32

from cupola.motion.objects import MovingObject, large_enough, largest_parts
from cupola.motion.scene import Scene
from cupola.motion.views import Views, project

CAP = 30.0
"""A pixel's grey difference is cut here [grey levels]."""

WORSE, MARGIN = 1.1, 0.5
"""A pixel leaves the mask where moving costs more than this factor times standing still plus this [grey levels]."""

AVERAGE = 5
"""Side of the box over which differences are averaged [px at KITTI size]."""

AROUND = 25
"""Side of the box in which the depth behind and before a pixel is looked for [px at KITTI size]."""


def tightened(scene: Scene, views: Views, one: MovingObject) -> MovingObject | None:
    """The object without the pixels that are seen to stand still, or None where too little is left."""
    y0, y1, x0, x1 = one.box
    margin = scene.odd(AROUND)
    height, width = scene.size
    window = np.s_[max(0, y0 - margin) : min(height, y1 + margin), max(0, x0 - margin) : min(width, x1 + margin)]
    disparity = scene.filled[window]
    box = np.ones((scene.odd(AROUND),) * 2, np.uint8)
    moving = _cost(scene, views, window, disparity, one)
    standing = [
        _cost(scene, views, window, depth, None)
        for depth in (disparity, cv2.erode(disparity, box), cv2.dilate(disparity, box))
    ]
    still = moving > WORSE * np.minimum.reduce(standing) + MARGIN
    mask = largest_parts(one.mask[window] & ~still, scene.odd(3))
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
