"""Compiled loops of this room. Plain NumPy twins live in tests/geometry."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def fill_rows(values: np.ndarray, known: np.ndarray) -> None:
    """Fills every unknown cell of a row with the smaller of the next known cells on its left and right, in place.

    values: float32 h w; known: bool h w. A cell with a known cell on one side only takes that one; a row without any is
    left as it is. `known` becomes true where a value was written.
    """
    height, width = values.shape
    for y in range(height):
        start = 0  # first cell of the gap at hand
        for x in range(width + 1):
            if x < width and not known[y, x]:
                continue
            if start < x and (start > 0 or x < width):
                if start == 0:
                    value = values[y, x]
                elif x == width:
                    value = values[y, start - 1]
                else:
                    value = min(values[y, start - 1], values[y, x])
                for gap in range(start, x):
                    values[y, gap] = value
                    known[y, gap] = True
            start = x + 1


@njit(cache=True)
def sample_bilinear(field: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """out[c, i] = field[c] at (x[i], y[i]), NaN outside the outermost pixel centres.

    field: float32 c h w; x, y: float64 n [px]; out: float32 c n. A neighbour of weight zero is not read, so an integer
    position returns the very value of its pixel even beside a NaN.
    """
    channels, height, width = field.shape
    for i in range(x.size):
        px, py = x[i], y[i]
        if not (0.0 <= px <= width - 1.0 and 0.0 <= py <= height - 1.0):
            for c in range(channels):
                out[c, i] = np.nan
            continue
        x0, y0 = int(px), int(py)
        wx, wy = px - x0, py - y0
        for c in range(channels):
            value = (1.0 - wx) * (1.0 - wy) * field[c, y0, x0]
            if wx > 0.0:
                value += wx * (1.0 - wy) * field[c, y0, x0 + 1]
            if wy > 0.0:
                value += (1.0 - wx) * wy * field[c, y0 + 1, x0]
            if wx > 0.0 and wy > 0.0:
                value += wx * wy * field[c, y0 + 1, x0 + 1]
            out[c, i] = value
