"""Compiled loops of the correspondence room. Plain arrays in, plain arrays out; each has a slow twin in the tests."""

import numpy as np
from numba import njit


@njit(cache=True)
def mirrored_error(disparity, mirrored):
    """|d(x) - d'(x - d)| of left disparity d and right disparity d' (float32 h w, NaN = unknown); inf where unknown."""
    height, width = disparity.shape
    error = np.full((height, width), np.inf, np.float32)
    for y in range(height):
        for x in range(width):
            d = disparity[y, x]
            if np.isnan(d):
                continue
            left = int(np.floor(x - d + 0.5))
            if left >= 0:
                other = mirrored[y, left]
                if not np.isnan(other):
                    error[y, x] = abs(d - other)
    return error


@njit(cache=True)
def loop_error(flow, backward):
    """Length of flow(x) + backward(x + flow(x)), float32 h w; inf where the pixel leaves the image or is NaN.

    flow, backward: float32 2 h w. The backward flow is read bilinearly; unknown (NaN) neighbours are left out.
    """
    height, width = flow.shape[1], flow.shape[2]
    error = np.full((height, width), np.inf, np.float32)
    for y in range(height):
        for x in range(width):
            u, v = flow[0, y, x], flow[1, y, x]
            if np.isnan(u) or np.isnan(v):
                continue
            px, py = x + u, y + v
            if px < 0 or py < 0 or px > width - 1 or py > height - 1:
                continue
            x0, y0 = int(px), int(py)
            ax, ay = px - x0, py - y0
            weight, bu, bv = 0.0, 0.0, 0.0
            for j in range(2):
                for i in range(2):
                    row, column = min(y0 + j, height - 1), min(x0 + i, width - 1)
                    w = (ax if i else 1 - ax) * (ay if j else 1 - ay)
                    if not np.isnan(backward[0, row, column]):
                        weight += w
                        bu += w * backward[0, row, column]
                        bv += w * backward[1, row, column]
            if weight > 1e-3:
                error[y, x] = np.sqrt((u + bu / weight) ** 2 + (v + bv / weight) ** 2)
    return error


@njit(cache=True)
def compose(residual, prediction):
    """total(x) = residual(x) + prediction(x + residual(x)), float32 2 h w, prediction read bilinearly and clamped."""
    height, width = residual.shape[1], residual.shape[2]
    total = np.empty_like(residual)
    for y in range(height):
        for x in range(width):
            u, v = residual[0, y, x], residual[1, y, x]
            px = min(max(x + u, 0.0), width - 1.0)
            py = min(max(y + v, 0.0), height - 1.0)
            x0, y0 = min(int(px), width - 2), min(int(py), height - 2)
            ax, ay = px - x0, py - y0
            for c in range(2):
                top = (1 - ax) * prediction[c, y0, x0] + ax * prediction[c, y0, x0 + 1]
                low = (1 - ax) * prediction[c, y0 + 1, x0] + ax * prediction[c, y0 + 1, x0 + 1]
                total[c, y, x] = residual[c, y, x] + (1 - ay) * top + ay * low
    return total
