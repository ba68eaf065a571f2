"""Images and ids at another size, with pixel centres kept (half-pixel rule; spec-stage1 1.5 and S3).

`Calibration.resized` with the factors new size / old size is the matching change of the intrinsics.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Integer, UInt8


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """(height, width) [px] of an image of this size after a resize by `scale`; at least 1 x 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: UInt8[np.ndarray, "h w 3"], scale: float) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resizes by `scale`: area filter when shrinking, so that fine texture doesn't alias (S3), linear when growing."""
    height, width = scaled_size(image.shape[0], image.shape[1], scale)
    if (height, width) == image.shape[:2]:
        return image
    resized: UInt8[np.ndarray, "h2 w2 3"] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return resized


def resize_ids(ids: Integer[np.ndarray, "h w"], scale: float) -> Integer[np.ndarray, "h2 w2"]:
    """Resizes by `scale`: each pixel is the one whose centre is nearest, of two equally near the later."""
    height, width = ids.shape
    new_height, new_width = scaled_size(height, width, scale)
    rows = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
    columns = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
    resized: Integer[np.ndarray, "h2 w2"] = ids[rows[:, None], columns]
    return resized
