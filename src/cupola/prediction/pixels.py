"""Whatever people call an image, as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from cupola.errors import ImageError
from cupola.io import read_rgb


@runtime_checkable
class Convertible(Protocol):
    """An image of Pillow."""

    def convert(self, mode: str) -> Any:
        """The image with other channels."""


Picture = np.ndarray | str | Path | Convertible
"""An image file, an image of Pillow, or an array: H×W, H×W×1, H×W×3 (RGB) or H×W×4, of 8 or 16 bits or 0 .. 1."""


def rgb_of(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as 8-bit RGB: grey is repeated, 16 bits are scaled down, a fourth channel is dropped.

    Files are read as `cupola.io.read_rgb` does. Raises `ImageError` where the file or the array is no image.
    """
    if isinstance(picture, (str, Path)):
        return read_rgb(Path(picture))
    if not isinstance(picture, np.ndarray):
        if not isinstance(picture, Convertible):
            raise ImageError(f"an image is a path, an array or an image of Pillow, not a {type(picture).__name__}")
        return np.array(picture.convert("RGB"), np.uint8)
    array = picture[..., None] if picture.ndim == 2 else picture
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ImageError(f"an array of shape {picture.shape} is no image; give height x width x 1, 3 or 4 channels")
    array = _eight_bits(array[..., :3])
    return np.ascontiguousarray(np.repeat(array, 3, 2) if array.shape[2] == 1 else array)


def _eight_bits(array: np.ndarray) -> UInt8[np.ndarray, "h w c"]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1:
        return np.asarray(np.rint(array * 255), np.uint8)
    raise ImageError(
        f"an array of type {array.dtype} with values {array.min()} .. {array.max()} is no image; give 8 bits, 16 bits, "
        "or floating point numbers from 0 to 1"
    )


def shrunk(image: UInt8[np.ndarray, "h w 3"], pixels: int) -> UInt8[np.ndarray, "_h _w 3"]:
    """The image with at most so many pixels, each the mean of those it stands for; unchanged where it has no more."""
    height, width = image.shape[:2]
    if height * width <= pixels:
        return image
    scale = (pixels / (height * width)) ** 0.5
    # A very long image cannot become thinner than a pixel: then its length alone shrinks.
    rows = max(1, int(height * scale))
    columns = max(1, min(int(width * scale), pixels // rows))
    size = columns, max(1, min(rows, pixels // columns))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
