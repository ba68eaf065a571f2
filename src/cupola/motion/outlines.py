"""Outlines drawn anew along the image's edges, by the dense CRF, object by object.

Ours, beyond findings-motion 5. Flow is found in patches, so masks reach a few pixels over an object's border, and small
things suffer most. The CRF knows the image: what has the colour of the ground beside it goes back to the ground. Of 137
moving people at 192x384 it lifts those covered at IoU > 0.5 from 23 to 40 (benchmarks/outlines.py --seed 7).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cupola.motion.scene import REFERENCE_PIXELS
from cupola.semantics.crf import CrfSettings, dense_crf

SOFTNESS = 3.8
"""Distance from a mask's border within which it is in doubt [px at KITTI size]."""

REACH, COLOUR, WEIGHT, STEPS = 10.0, 12.0, 6.0, 5
"""The CRF's appearance kernel: its reach in the image [px at KITTI size], in colour [grey levels], its weight, and the
number of mean field steps. Chosen on rendered streets of seed 0; benchmarks/outlines.py measures others."""

DOUBT = 0.02
"""Least probability of mask and of background [1], so that the image can overrule either."""

LEAST_LEFT = 0.15
"""A mask stays as it was where less than this share of it would be left."""

MARGIN = 3.0
"""An object is looked at with this many reaches of what is around it."""


def outlined(image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Masks whose borders follow the image; where two meet, the more probable one has the pixel.

    A mask of which hardly anything is left is kept as it was: the CRF has then
    taken the object for background.
    """
    scale = math.sqrt(image.shape[0] * image.shape[1] / REFERENCE_PIXELS)
    settings = CrfSettings(
        spatial_weight=0.0, bilateral_sigma=REACH * scale, colour_sigma=COLOUR, bilateral_weight=WEIGHT, steps=STEPS
    )
    best = np.full(image.shape[:2], 0.5, np.float32)
    owner = np.full(image.shape[:2], -1)
    for index, mask in enumerate(masks):
        if not mask.any():
            continue
        window = _window(mask, int(MARGIN * REACH * scale))
        probability = dense_crf(np.ascontiguousarray(image[window]), _softened(mask[window], scale), settings)[1]
        if (probability[mask[window]] > 0.5).mean() < LEAST_LEFT:
            probability = np.where(mask[window], np.float32(1), np.float32(0))
        won = probability > best[window]
        owner[window][won] = index
        best[window][won] = probability[won]
    return np.stack([owner == index for index in range(len(masks))]) if len(masks) else masks


def _window(mask: Bool[np.ndarray, "h w"], margin: int) -> tuple[slice, slice]:
    """The part of the image that holds a mask and `margin` [px] around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.s_[
        max(0, rows[0] - margin) : rows[-1] + 1 + margin, max(0, columns[0] - margin) : columns[-1] + 1 + margin
    ]


def _softened(mask: Bool[np.ndarray, "a b"], scale: float) -> Float32[np.ndarray, "2 a b"]:
    """Probability of background and of the object: a half at the border, `DOUBT` far from it."""
    inside = mask.astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    probability = 0.5 + 0.5 * np.tanh(distance / (2 * SOFTNESS * scale))
    probability = np.clip(probability, DOUBT, 1 - DOUBT).astype(np.float32)
    return np.stack([1 - probability, probability])
