"""The images of a clip as the motion room compares them: grey values normalised by their neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from cupola.motion.scene import Scene
from cupola.types import StereoClip

NORMALISATION, LEAST_NORMALISATION = 9, 7
"""Side of the box over which grey values are normalised [px at KITTI size], and the least [px]."""

CONTRAST_FLOOR = 4.0
"""Added to the local standard deviation [grey levels], so that sensor noise is not blown up."""

DIFFERENCE_CAP = 1.5
"""A pixel's normalised difference is cut here."""

LONGEST = 2**15 - 2
"""So many points cv2.remap takes in one row; a car close by has more pixels."""


@dataclass(frozen=True)
class Views:
    """Grey images (first left, second left, second right), and the same locally normalised."""

    grey: UInt8[np.ndarray, "h w"]
    grey_next: UInt8[np.ndarray, "h w"]
    grey_next_right: UInt8[np.ndarray, "h w"]
    first: Float32[np.ndarray, "h w"]
    second: Float32[np.ndarray, "h w"]
    second_right: Float32[np.ndarray, "h w"]


def normalised(grey: UInt8[np.ndarray, "h w"], side: int) -> Float32[np.ndarray, "h w"]:
    """Grey values minus their local mean, over their local deviation."""
    values = grey.astype(np.float32)
    mean = cv2.boxFilter(values, -1, (side, side))
    square = cv2.boxFilter(values * values, -1, (side, side))
    return np.asarray((values - mean) / (np.sqrt(np.maximum(square - mean * mean, 0)) + CONTRAST_FLOOR), np.float32)


def make_views(clip: StereoClip, side: int) -> Views:
    """The images of a clip; side: of the normalising box [px]."""
    grey, grey_next, right = (
        np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        for image in (clip.first.left, clip.second.left, clip.second.right)
    )
    return Views(grey, grey_next, right, normalised(grey, side), normalised(grey_next, side), normalised(right, side))


def difference(
    views: Views, flow: Float32[np.ndarray, "2 h w"], where: tuple[slice, slice] | None = None
) -> Float32[np.ndarray, "a b"]:
    """Cut difference of the first image and the second at the flow's target, on the part `where`; NaN where the flow is
    unknown or leaves the image."""
    where = where or np.s_[:, :]
    height, width = views.first.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = columns[where] + flow[0][where], rows[where] + flow[1][where]
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    seen = cv2.remap(
        views.second, np.nan_to_num(x), np.nan_to_num(y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    cut = np.minimum(np.abs(seen - views.first[where]), DIFFERENCE_CAP)
    return np.asarray(np.where(inside, cut, np.float32(np.nan)), np.float32)


def sampled(
    image: Float32[np.ndarray, "h w"], x: Float32[np.ndarray, "n"], y: Float32[np.ndarray, "n"]
) -> Float32[np.ndarray, "n"]:
    """Values of an image at any number of points [px], bilinear; outside, those of its border."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(x), LONGEST):
        piece = np.s_[None, start : start + LONGEST]
        parts.append(cv2.remap(image, x[piece], y[piece], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0])
    return np.concatenate(parts)


def project(
    scene: Scene, ys: np.ndarray, xs: np.ndarray, disparity: np.ndarray, velocity: Float64[np.ndarray, "k"] | None
) -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """Column, row and disparity of pixels in the second frame under a motion [px]."""
    fx, fy, cx, cy, baseline = scene.rig
    motion = scene.motion(velocity)
    rho = disparity.astype(np.float64) / (fx * baseline)
    rays = np.stack([(xs - cx) / fx, (ys - cy) / fy, np.ones(len(xs))], -1)
    q = rays @ motion[:, :3].T + rho[:, None] * motion[:, 3]
    z = np.maximum(q[:, 2], 0.05)
    return (
        (fx * q[:, 0] / z + cx).astype(np.float32),
        (fy * q[:, 1] / z + cy).astype(np.float32),
        (disparity / z).astype(np.float32),
    )
