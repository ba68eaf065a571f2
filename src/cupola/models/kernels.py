"""Compiled loops for a CPU: ROIAlign (spec-network 1.6), of which `pooler.pool_by_level` computes the same without
them, and non-maximum suppression.

In ROIAlign, a bin is the mean of samples on a grid, a sample lies between four places: so a bin is a weighted sum of
places, and its weights are products of one weight for the row and one for the column. All channels of a place lie side
by side, which the innermost loops turn into vector instructions.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def _samples(size, bins, ratio):
    """Samples a bin along one axis; ratio: that many, or 0 = one a place, rounded up."""
    return ratio if ratio > 0 else max(int(np.ceil(size / np.float32(bins))), 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _taps(start, size, places, bins, samples):
    """Along one axis: the places that each bin reads, their weights, and how many there are.

    start, size: of a box in units of places, whose centres are integers. A sample up to one place outside takes the
    border's value, further outside 0.
    """
    place = np.zeros((bins, 2 * samples), np.int64)
    weight = np.zeros((bins, 2 * samples), np.float32)
    count = np.zeros(bins, np.int64)
    step = size / np.float32(bins)
    for bin in range(bins):
        taps = 0
        for sample in range(samples):
            at = start + np.float32(bin) * step + (np.float32(sample) + np.float32(0.5)) * step / np.float32(samples)
            if not -1 <= at <= places:
                continue
            at = min(max(at, np.float32(0)), np.float32(places - 1))
            lower = int(at)
            share = at - np.float32(lower)
            for side in range(2):
                part = (share if side else np.float32(1) - share) / np.float32(samples)
                if part == 0:
                    continue
                if taps and place[bin, taps - 1] == lower + side:
                    weight[bin, taps - 1] += part
                elif taps > 1 and place[bin, taps - 2] == lower + side:
                    weight[bin, taps - 2] += part
                else:
                    place[bin, taps] = lower + side
                    weight[bin, taps] = part
                    taps += 1
        count[bin] = taps
    return place, weight, count


@njit(cache=True, nogil=True, error_model="numpy")
def pool_boxes(feature, boxes, image, chosen, bins, ratio, first, last, out):
    """Fills the rows chosen[first:last] of out, n x bins x bins x channels, from feature, images x rows x columns x
    channels, float32.

    boxes: (x0, y0, x1, y1) in units of places, whose centres are integers; image: of each box; ratio: samples a bin and
    side, 0 = adaptive.
    """
    rows, columns = feature.shape[1], feature.shape[2]
    for box in chosen[first:last]:
        x, y = boxes[box, 0], boxes[box, 1]
        width, height = boxes[box, 2] - x, boxes[box, 3] - y
        row, row_weight, row_count = _taps(y, height, rows, bins, _samples(height, bins, ratio))
        column, column_weight, column_count = _taps(x, width, columns, bins, _samples(width, bins, ratio))
        of_image = feature[image[box]]
        for i in range(bins):
            for j in range(bins):
                total = out[box, i, j]
                total[:] = 0
                for r in range(row_count[i]):
                    for c in range(column_count[j]):
                        weight = row_weight[i, r] * column_weight[j, c]
                        source = of_image[row[i, r], column[j, c]]
                        for channel in range(len(total)):
                            total[channel] += weight * source[channel]


@njit(cache=True, nogil=True, error_model="numpy")
def spread_boxes(gradient, boxes, image, chosen, bins, ratio, first, last, out):
    """Adds to out[..., first:last] the gradient of `feature` for one of `pool_boxes`' result: box after box, so the sum
    of a place does not depend on how the channels are shared out."""
    rows, columns = out.shape[1], out.shape[2]
    for box in chosen:
        x, y = boxes[box, 0], boxes[box, 1]
        width, height = boxes[box, 2] - x, boxes[box, 3] - y
        row, row_weight, row_count = _taps(y, height, rows, bins, _samples(height, bins, ratio))
        column, column_weight, column_count = _taps(x, width, columns, bins, _samples(width, bins, ratio))
        of_image = out[image[box]]
        for i in range(bins):
            for j in range(bins):
                source = gradient[box, i, j, first:last]
                for r in range(row_count[i]):
                    for c in range(column_count[j]):
                        weight = row_weight[i, r] * column_weight[j, c]
                        total = of_image[row[i, r], column[j, c], first:last]
                        for channel in range(len(total)):
                            total[channel] += weight * source[channel]


@njit(cache=True, nogil=True, error_model="numpy")
def suppress_boxes(boxes, groups, order, iou, limit):
    """Indices of at most `limit` boxes: in this order, each that overlaps none before it of its group by more than
    `iou`. boxes: (x0, y0, x1, y1), float32. Those that stay lie side by side, so that the inner loop is vectorised, and
    what comes after the last of them is never looked at."""
    kept, group = np.empty(limit, np.int64), np.empty(limit, np.int64)
    left, top, right, bottom, area = np.empty((5, limit), np.float32)
    count = 0
    for index in order:
        if count == limit:
            break
        x0, y0, x1, y1 = boxes[index]
        own = (x1 - x0) * (y1 - y0)
        covered = False
        for other in range(count):
            width = max(min(x1, right[other]) - max(x0, left[other]), np.float32(0))
            height = max(min(y1, bottom[other]) - max(y0, top[other]), np.float32(0))
            shared = width * height
            overlap = shared / (area[other] + own - shared)
            covered |= (group[other] == groups[index]) & (overlap > iou)
        if not covered:
            kept[count], group[count], area[count] = index, groups[index], own
            left[count], top[count], right[count], bottom[count] = x0, y0, x1, y1
            count += 1
    return kept[:count]
