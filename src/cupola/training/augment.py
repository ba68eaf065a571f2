"""Random views of a sample: flip, zoom and crop as one warp; colour, grey and blur as one matrix and one filter.

Everything is drawn from the generator that is handed in, so a view is a function of its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from cupola.errors import ConfigError
from cupola.models import IGNORE
from cupola.training.targets import Sample, hide_remnants

PADDING = (124, 116, 104)
"""Colour outside the frame, RGB: the mean that the network subtracts (spec-network 1.2), hence zero to it."""

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G, B in the brightness of a pixel (ITU-R BT.601)."""

BLUR_RADIUS = 3
"""Half the side of the blur's kernel, without its centre [px] (spec-network 2.3: 7x7)."""


@dataclass(frozen=True)
class AugmentSettings:
    """How a sample is varied.

    Attributes:
        flip: chance of a mirror image.
        zoom: smallest and largest zoom (findings-demo, "Recipe").
        jitter: chance of a colour jitter (spec-network 2.3).
        brightness: largest relative change, as are contrast and saturation.
        contrast: see brightness.
        saturation: see brightness.
        hue: largest turn of the colour circle, as a share of it.
        grey: chance of a grey image.
        blur: chance of a Gaussian blur.
        blur_sigma: smallest and largest standard deviation of the blur [px].
        resolution: smallest and largest size of a step's images, as a share of the canvas, in multiples of 0.05; one
            size is drawn for a whole batch (spec-network 2.3, N26).
    """

    flip: float = 0.5
    zoom: tuple[float, float] = (0.7, 1.6)
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.05
    grey: float = 0.05
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.1, 1.0)
    resolution: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"the chance {name} must be 0..1, not {getattr(self, name)}")
        for name in ("zoom", "blur_sigma", "resolution"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} must be two rising positive numbers, not {low}, {high}")


def augment(
    sample: Sample, canvas: tuple[int, int], settings: AugmentSettings, rng: np.random.Generator, scale: float = 1.0
) -> Sample:
    """A random view of `sample` on a canvas of (height, width) [px]: geometry, then colour. scale: of the frame, beside
    the zoom that is drawn."""
    matrix = draw_view(sample.size, canvas, settings, rng, scale)
    view = warp(sample, matrix, canvas)
    return Sample(recolor(view.image, settings, rng), view.codes, view.classes)


def draw_view(
    size: tuple[int, int],
    canvas: tuple[int, int],
    settings: AugmentSettings,
    rng: np.random.Generator,
    scale: float = 1.0,
) -> Float64[np.ndarray, "2 3"]:
    """The affine map from pixels of a frame of `size` to a canvas [both (height, width), px]: mirrored or not, zoomed,
    and placed so that as much of the canvas as can be is filled. Pixel centres are integers."""
    zoom = scale * float(np.exp(rng.uniform(*np.log(settings.zoom))))
    mirrored = rng.random() < settings.flip
    y, x = (_place(length * zoom, room, rng) for length, room in zip(size, canvas, strict=True))
    # continuous coordinates: centre = integer + 0.5; x' = zoom x + offset
    offset_x, offset_y = x + 0.5 * zoom - 0.5, y + 0.5 * zoom - 0.5
    if mirrored:
        return np.array([[-zoom, 0, x + zoom * (size[1] - 0.5) - 0.5], [0, zoom, offset_y]])
    return np.array([[zoom, 0, offset_x], [0, zoom, offset_y]])


def _place(length: float, room: int, rng: np.random.Generator) -> float:
    """Where the frame begins: anywhere that keeps the smaller of frame and canvas inside the larger [px]."""
    return float(rng.uniform(min(0.0, room - length), max(0.0, room - length)))


def warp(sample: Sample, matrix: Float64[np.ndarray, "2 3"], canvas: tuple[int, int]) -> Sample:
    """The sample under an affine map of pixel coordinates; outside the frame lies `PADDING` without a label. Objects
    of which too little is left are hidden."""
    height, width = canvas
    image = cv2.warpAffine(sample.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=PADDING)
    codes = cv2.warpAffine(sample.codes, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=float(IGNORE))
    scale = abs(float(np.linalg.det(matrix[:, :2])))
    whole = (sample.areas() * scale).astype(np.int64)
    return Sample(image, hide_remnants(codes, whole), sample.classes)


def recolor(
    image: UInt8[np.ndarray, "h w 3"], settings: AugmentSettings, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """The image in random colours, perhaps grey, perhaps blurred (spec-network 2.3, all of it linear in RGB)."""
    matrix = np.eye(3, 4, dtype=np.float32)
    if rng.random() < settings.jitter:
        matrix = _jitter(float(image[::8, ::8].mean()), settings, rng)
    if rng.random() < settings.grey:
        matrix = (np.tile(LUMA, (3, 1)) @ matrix).astype(np.float32)
    if not np.array_equal(matrix, np.eye(3, 4)):
        image = cv2.transform(image, matrix)
    if rng.random() < settings.blur:
        side = 2 * BLUR_RADIUS + 1
        image = cv2.GaussianBlur(image, (side, side), float(rng.uniform(*settings.blur_sigma)))
    return image


def _jitter(level: float, settings: AugmentSettings, rng: np.random.Generator) -> Float32[np.ndarray, "3 4"]:
    """Brightness, contrast around `level` [grey levels], saturation and hue as one matrix on (R, G, B, 1)."""
    brightness = 1 + rng.uniform(-settings.brightness, settings.brightness)
    contrast = 1 + rng.uniform(-settings.contrast, settings.contrast)
    saturation = 1 + rng.uniform(-settings.saturation, settings.saturation)
    angle = 2 * math.pi * rng.uniform(-settings.hue, settings.hue)
    grey = np.tile(LUMA, (3, 1))
    color = grey + saturation * (np.eye(3) - grey)
    linear = brightness * contrast * (_turn(angle) @ color)
    shift = brightness * level * (1 - contrast)
    return np.hstack([linear, np.full((3, 1), shift)]).astype(np.float32)


def _turn(angle: float) -> Float64[np.ndarray, "3 3"]:
    """Rotation of RGB about the grey axis by `angle` [rad]."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
