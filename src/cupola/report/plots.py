"""Plots as pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110


def picture_of(plot: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """A matplotlib figure as an RGB picture."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    image = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)
