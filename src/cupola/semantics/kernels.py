"""Compiled loops of the offline semantics; each has a plain twin in tests/semantics."""

import numpy as np
from numba import njit


@njit(cache=True)
def stixel_tops(disparity, height, window, tolerance, slope):
    """Largest height of the upright segment that each pixel lies in.

    A column is read from below. A segment grows while the disparity stays within max(tolerance, slope * d) of the mean
    of its last `window` pixels.

    disparity, height: float32 h w. Returns float32 h w.
    """
    rows, columns = disparity.shape
    tops = np.empty((rows, columns), np.float32)
    for x in range(columns):
        start = rows - 1
        total = 0.0
        count = 0
        largest = np.float32(-np.inf)
        for y in range(rows - 1, -1, -1):
            d = disparity[y, x]
            if count > 0:
                limit = max(tolerance, slope * d)
                if abs(d - total / count) >= limit:
                    for k in range(y + 1, start + 1):
                        tops[k, x] = largest
                    start = y
                    total = 0.0
                    count = 0
                    largest = np.float32(-np.inf)
            if count == window:
                total -= disparity[y + window, x]
                count -= 1
            total += d
            count += 1
            largest = max(largest, height[y, x])
        for k in range(start + 1):
            tops[k, x] = largest
    return tops


@njit(cache=True)
def assign_superpixels(features, centres, step_y, step_x, weight, grid_rows, grid_columns, labels):
    """One SLIC assignment: every pixel takes the best of the 3 x 3 seeds around its own grid cell.

    features: float32 h w 4; centres: float32 n 6 (four features, y, x); weight: of a squared pixel against squared
    feature distance. Writes int32 labels. Ties go to the seed with the smallest number.
    """
    rows, columns, _ = features.shape
    for y in range(rows):
        cell_y = min(int(y / step_y), grid_rows - 1)
        for x in range(columns):
            cell_x = min(int(x / step_x), grid_columns - 1)
            f0, f1, f2, f3 = features[y, x, 0], features[y, x, 1], features[y, x, 2], features[y, x, 3]
            best = np.float32(np.inf)
            chosen = cell_y * grid_columns + cell_x
            for gy in range(max(cell_y - 1, 0), min(cell_y + 2, grid_rows)):
                for gx in range(max(cell_x - 1, 0), min(cell_x + 2, grid_columns)):
                    k = gy * grid_columns + gx
                    d0, d1 = f0 - centres[k, 0], f1 - centres[k, 1]
                    d2, d3 = f2 - centres[k, 2], f3 - centres[k, 3]
                    dy, dx = y - centres[k, 4], x - centres[k, 5]
                    cost = d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3 + weight * (dy * dy + dx * dx)
                    if cost < best:
                        best = cost
                        chosen = k
            labels[y, x] = chosen


@njit(cache=True)
def move_centres(features, labels, centres):
    """Moves every seed to the mean of its pixels; a seed without pixels stays. Changes `centres`."""
    n = len(centres)
    sums = np.zeros((n, 6))
    counts = np.zeros(n)
    rows, columns, _ = features.shape
    for y in range(rows):
        for x in range(columns):
            k = labels[y, x]
            for c in range(4):
                sums[k, c] += features[y, x, c]
            sums[k, 4] += y
            sums[k, 5] += x
            counts[k] += 1
    for k in range(n):
        if counts[k] > 0:
            for c in range(6):
                centres[k, c] = sums[k, c] / counts[k]


@njit(cache=True)
def segment_sums(channels, labels, use, count):
    """Sums of float32 channels (c h w) over the pixels of each label with `use`. Returns float64 n c and int64 n."""
    size = channels.shape[0]
    sums = np.zeros((count, size))
    pixels = np.zeros(count, np.int64)
    rows, columns = labels.shape
    for y in range(rows):
        for x in range(columns):
            if use[y, x]:
                pixels[labels[y, x]] += 1
    for c in range(size):
        for y in range(rows):
            for x in range(columns):
                if use[y, x]:
                    sums[labels[y, x], c] += channels[c, y, x]
    return sums, pixels
