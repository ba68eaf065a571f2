"""What each pixel is like: few, meaningful channels from one stereo frame (findings-features, recipe 3).

Every radius is given for an image of 376 rows and follows the size of the image.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cupola.geometry.disparity import fill_disparity
from cupola.geometry.ground_plane import REFERENCE_HEIGHT, GroundPlane, fit_ground_plane
from cupola.semantics import kernels
from cupola.types import Calibration, StereoFrame

WEIGHTS = {
    "h": 1.0,
    "gres": 1.0,
    "top": 1.0,
    "wide": 0.6,
    "exg": 1.2,
    "fine": 0.8,
    "mid": 0.4,
    "o2": 0.4,
    "c2": 0.4,
    "ny": 0.7,
    "nx": 0.3,
    "rough": 0.3,
    "sky": 0.7,
    "z": 0.5,
}
"""The channels in order, and how much each counts after standardisation (recipe 3; `wide` is ours: the width of what
a pixel belongs to, which tells a pole or a trunk from a wall of the same height)."""

RUN_TOLERANCE, RUN_SLOPE, RUN_WINDOW = 0.7, 0.04, 12
"""One surface ends where the disparity leaves the mean of its last 12 px by max(0.7 px, 0.04 d) (recipe 3, `top`)."""

WIDEST = 20.0
"""Widths are cut here [m]."""

USUAL_CAMERA_HEIGHT = 1.65
"""Height of the camera [m] where no ground is found; that of KITTI's car."""

SMALLEST_DISPARITY = 0.5
"""Below this the matcher does not tell a distance from infinity [px] (recipe 1)."""


def frame_scale(height: int) -> float:
    """Size of an image of so many rows against the 376 rows for which the recipe's constants are given."""
    return height / REFERENCE_HEIGHT


def _box(image: np.ndarray, radius: int, scale: float) -> np.ndarray:
    """Mean over a square of (2 r + 1) pixels, r = radius * scale, at least 1."""
    size = 2 * max(1, round(radius * scale)) + 1
    return cv2.blur(image, (size, size), borderType=cv2.BORDER_REFLECT)


def _gauss(image: np.ndarray, sigma: int, scale: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), max(sigma * scale, 0.5), borderType=cv2.BORDER_REFLECT)


def usual_ground(calibration: Calibration, height: int, width: int) -> GroundPlane:
    """The ground under a level camera at the usual height: what is assumed where none is found."""
    slope = calibration.baseline / USUAL_CAMERA_HEIGHT
    return GroundPlane(0.0, slope, slope * (height / 2 - calibration.cy), height, width)


def complete_disparity(
    disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], ground: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """A positive disparity [px] for every pixel (recipe 1); where nothing at all is known, that of the ground."""
    valid = valid & (disparity > SMALLEST_DISPARITY)
    filled = cv2.medianBlur(fill_disparity(disparity, valid), 5) if valid.any() else ground
    positive: Float32[np.ndarray, "h w"] = np.maximum(filled, np.float32(SMALLEST_DISPARITY))
    return positive


def _shape_channels(
    disparity: Float32[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
    plane: GroundPlane,
    calibration: Calibration,
    scale: float,
) -> dict[str, Float32[np.ndarray, "h w"]]:
    """Channels that come from the disparity alone."""
    ground = plane.disparity()
    metres = plane.heights(disparity, calibration)
    window = max(3, round(RUN_WINDOW * scale))
    tops = kernels.stixel_tops(disparity, np.clip(metres, -2, 12), window, RUN_TOLERANCE, RUN_SLOPE)
    runs = kernels.row_runs(disparity, window, RUN_TOLERANCE, RUN_SLOPE)
    width = np.clip(runs * np.float32(calibration.baseline) / disparity, 0, WIDEST)
    smooth = _box(disparity, 5, scale)
    slope_x = _box(np.clip(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), -2, 2), 10, scale)
    slope_y = _box(np.clip(cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8), -2, 2), 10, scale)
    far = (disparity < 2.5 * scale) | ~known
    depth = calibration.fx * calibration.baseline / disparity
    return {
        "h": _signed_log(np.clip(metres, -2, 12)),
        "gres": np.clip((disparity - ground) / np.maximum(0.6, 0.03 * ground), -3, 3),
        "top": _signed_log(_box(cv2.medianBlur(tops, 5), 3, scale)),
        "wide": _box(np.log(1 + 2 * cv2.medianBlur(width, 5)), 2, scale),
        "ny": np.clip(slope_y / plane.b, -1, 2),
        "nx": np.clip(np.abs(slope_x) / plane.b, 0, 3),
        "rough": np.log(_box(np.abs(disparity - _box(disparity, 4, scale)), 4, scale) / disparity + 0.003),
        "sky": _box((far & (ground < 0)).astype(np.float32), 4, scale),
        "z": np.log(np.clip(depth, 2, 120)),
    }


def _signed_log(metres: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    logarithm: Float32[np.ndarray, "h w"] = np.copysign(np.log(1 + 2 * np.abs(metres)), metres)
    return logarithm


def _colour_channels(image: UInt8[np.ndarray, "h w 3"], scale: float) -> dict[str, Float32[np.ndarray, "h w"]]:
    """Greenness and texture of the left image."""
    red, green, blue = cv2.split(cv2.blur(image, (5, 5)).astype(np.float32))
    grey = np.log(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) + 10)
    coarse = _gauss(grey, 2, scale)
    gx = cv2.Sobel(coarse, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(coarse, cv2.CV_32F, 0, 1, scale=1 / 8)
    xx, yy, xy = _box(gx * gx, 6, scale), _box(gy * gy, 6, scale), _box(gx * gy, 6, scale)
    energy = xx + yy + 1e-3
    return {
        "exg": (2 * green - red - blue) / (red + green + blue + 24),
        "fine": np.log(_box(np.abs(grey - _gauss(grey, 1, scale)), 6, scale) + 0.003),
        "mid": np.log(_box(np.abs(coarse - _gauss(grey, 5, scale)), 9, scale) + 0.003),
        "o2": (xx - yy) / energy,
        "c2": np.sqrt((xx - yy) ** 2 + 4 * xy**2) / energy,
    }


def stereo_channels(
    frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], seed: int
) -> Float32[np.ndarray, "c h w"]:
    """The channels of `WEIGHTS`, unscaled, for every pixel of the left image.

    disparity: positive [px], read only where `valid`; with none at all, the ground of a level camera is assumed.
    seed: with the frame's key it seeds the search for the ground.
    """
    height, width = frame.size
    scale = frame_scale(height)
    rng = np.random.default_rng([seed, zlib.crc32(frame.key.encode())])
    known = valid & frame.valid
    plane = fit_ground_plane(disparity, known, rng) or usual_ground(frame.calibration, height, width)
    filled = complete_disparity(disparity, known, plane.disparity())
    channels = _shape_channels(filled, known, plane, frame.calibration, scale) | _colour_channels(frame.left, scale)
    stacked = np.empty((len(WEIGHTS), height, width), np.float32)
    for at, name in enumerate(WEIGHTS):
        stacked[at] = channels[name]
    return stacked


def superpixel_features(frame: StereoFrame, channels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "4 h w"]:
    """What superpixels follow: Lab of the slightly blurred image and six times the height (recipe 4)."""
    lab = cv2.cvtColor(cv2.GaussianBlur(frame.left, (0, 0), 0.8), cv2.COLOR_RGB2Lab)
    features = np.empty((4, *frame.size), np.float32)
    features[:3] = lab.transpose(2, 0, 1)
    features[3] = 6 * channels[list(WEIGHTS).index("h")]
    return features
