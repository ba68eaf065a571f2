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
def row_runs(disparity, window, tolerance, slope):
    """Length [px] of the stretch of like disparity in its row that each pixel lies in.

    A row is read from the left; a stretch grows by the rule of `stixel_tops`. Returns float32 h w.
    """
    rows, columns = disparity.shape
    lengths = np.empty((rows, columns), np.float32)
    for y in range(rows):
        start = 0
        total = 0.0
        count = 0
        for x in range(columns):
            d = disparity[y, x]
            if count > 0:
                limit = max(tolerance, slope * d)
                if abs(d - total / count) >= limit:
                    lengths[y, start:x] = x - start
                    start = x
                    total = 0.0
                    count = 0
            if count == window:
                total -= disparity[y, x - window]
                count -= 1
            total += d
            count += 1
        lengths[y, start:] = columns - start
    return lengths


@njit(cache=True)
def assign_superpixels(features, centres, tops, lefts, weight, labels):
    """One SLIC assignment: every pixel takes the best of the 3 x 3 seeds around its own grid cell.

    features: float32 4 h w; centres: float32 n 6 (four features, y, x), row by row of the grid; tops, lefts: first row
    (column) of each grid row (column), then the height (width); weight: of a squared pixel against squared feature
    distance, float32. Writes int32 labels. Ties go to the seed with the smallest number.

    The innermost loop runs along a row with one seed, which the compiler turns into vector instructions.
    """
    grid_rows, grid_columns = len(tops) - 1, len(lefts) - 1
    best = np.full(labels.shape, np.inf, np.float32)
    for k in range(grid_rows * grid_columns):
        gy, gx = k // grid_columns, k % grid_columns
        top, bottom = tops[max(gy - 1, 0)], tops[min(gy + 2, grid_rows)]
        left, right = lefts[max(gx - 1, 0)], lefts[min(gx + 2, grid_columns)]
        c0, c1, c2, c3 = centres[k, 0], centres[k, 1], centres[k, 2], centres[k, 3]
        shift = np.float32(left) - centres[k, 5]
        number = np.int32(k)
        for y in range(top, bottom):
            dy = np.float32(y) - centres[k, 4]
            vertical = weight * dy * dy
            row0, row1 = features[0, y, left:right], features[1, y, left:right]
            row2, row3 = features[2, y, left:right], features[3, y, left:right]
            best_row, labels_row = best[y, left:right], labels[y, left:right]
            for i in range(right - left):
                d0, d1, d2, d3 = row0[i] - c0, row1[i] - c1, row2[i] - c2, row3[i] - c3
                dx = np.float32(i) + shift
                cost = d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3 + vertical + weight * dx * dx
                better = cost < best_row[i]
                best_row[i] = cost if better else best_row[i]
                labels_row[i] = number if better else labels_row[i]


@njit(cache=True)
def move_centres(features, labels, centres):
    """Moves every seed to the mean of its pixels; a seed without pixels stays. Changes `centres`."""
    n = len(centres)
    sums = np.zeros((n, 6))
    counts = np.zeros(n)
    rows, columns = labels.shape
    for y in range(rows):
        for x in range(columns):
            k = labels[y, x]
            for c in range(4):
                sums[k, c] += features[c, y, x]
            sums[k, 4] += y
            sums[k, 5] += x
            counts[k] += 1
    for k in range(n):
        if counts[k] > 0:
            for c in range(6):
                centres[k, c] = sums[k, c] / counts[k]


@njit(cache=True)
def segment_sums(channels, labels, use, count):
    """Sums of float32 channels (c h w) over the pixels of each label with `use`. Returns float64 c n and int64 n."""
    size = channels.shape[0]
    sums = np.zeros((size, count))
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
                    sums[c, labels[y, x]] += channels[c, y, x]
    return sums, pixels


@njit(cache=True)
def lower_to_distance(points, centre, distance):
    """Lowers each of `distance` to the squared distance of its point (float64 n c) to `centre`, if that is smaller."""
    for i in range(len(points)):
        total = 0.0
        for c in range(points.shape[1]):
            step = points[i, c] - centre[c]
            total += step * step
        if total < distance[i]:
            distance[i] = total
