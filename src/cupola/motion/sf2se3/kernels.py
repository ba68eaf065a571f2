"""Compiled loops of SF2SE3. Plain arrays in, plain arrays out; the slow twins live in tests/motion.

Everywhere: rig = (fx, fy, cx, cy, fx * baseline); sigma = noise of flow x, flow y and disparity [px]; a motion is 4x4
with P(t+1) = T P(t) [m]; points are 3 h w [m], flow 2 h w [px], disparity_next h w [px]; x, y are the full-resolution
positions of columns and rows [px]; mirrored: points behind the camera are projected by |Z|, as the published code does
(defect S15), instead of being explained by nothing.
"""

import math

import numpy as np
from numba import njit
from scipy.special import erfc

REACH = 5.35
"""Beyond so many sigma 2 (1 - Phi) is exactly 0 in float32, as the published code computes it (spec-stage1 4.11)."""

STEPS = 4096
TAIL = erfc(np.arange(STEPS + 2) * (REACH / STEPS) / math.sqrt(2))
"""2 (1 - Phi) at equal steps up to REACH; a straight line between two is within 1e-7."""


@njit(cache=True, inline="always")
def tail(x):
    """2 (1 - Phi(x)) for x >= 0: how often a normal value lies at least so far out; 0 beyond REACH."""
    if not x < REACH:
        return 0.0
    position = x * (STEPS / REACH)
    i = int(position)
    return TAIL[i] + (position - i) * (TAIL[i + 1] - TAIL[i])


@njit(cache=True)
def tails_of(distances):
    """`tail` of every entry."""
    out = np.empty(distances.size)
    for i, distance in enumerate(distances.flat):
        out[i] = tail(distance)
    return out.reshape(distances.shape)


@njit(cache=True, inline="always")
def predict(px, py, pz, motion, rig, mirrored):
    """(x, y, disparity) [px] of a point after a motion; inf behind the camera."""
    qx = motion[0, 0] * px + motion[0, 1] * py + motion[0, 2] * pz + motion[0, 3]
    qy = motion[1, 0] * px + motion[1, 1] * py + motion[1, 2] * pz + motion[1, 3]
    qz = motion[2, 0] * px + motion[2, 1] * py + motion[2, 2] * pz + motion[2, 3]
    if mirrored:
        qz = abs(qz) + 1e-10
    elif not qz > 0:
        return np.inf, np.inf, np.inf
    return rig[0] * qx / qz + rig[2], rig[1] * qy / qz + rig[3], rig[4] / qz


@njit(cache=True, inline="always")
def misfit(points, flow, disparity_next, x, y, i, j, motion, rig, sigma, mirrored):
    """|measured - predicted| flow x, flow y and disparity of pixel (i, j) under a motion, in sigma."""
    u, v, d = predict(points[0, i, j], points[1, i, j], points[2, i, j], motion, rig, mirrored)
    return (
        abs(x[j] + flow[0, i, j] - u) / sigma[0],
        abs(y[i] + flow[1, i, j] - v) / sigma[1],
        abs(disparity_next[i, j] - d) / sigma[2],
    )


@njit(cache=True)
def motion_consensus(points, flow, disparity_next, reliable, x, y, motions, rig, sigma, mirrored, soft, square):
    """Fills soft and square, n h w: consensus of every pixel with every motion, and its squared misfit [sigma^2].

    Where not reliable both are 0.
    """
    for k in range(len(motions)):
        for i in range(len(y)):
            for j in range(len(x)):
                soft[k, i, j] = square[k, i, j] = 0.0
                if reliable[i, j]:
                    a, b, c = misfit(points, flow, disparity_next, x, y, i, j, motions[k], rig, sigma, mirrored)
                    soft[k, i, j] = tail(a) * tail(b) * tail(c)
                    square[k, i, j] = a * a + b * b + c * c


@njit(cache=True)
def row_distances(assigned, cell_x, column_cell, x, scale, reach):
    """|dx| / scale from every column to the nearest assigned cell in every cell row, n h' w; inf without one.

    assigned: n h' w'; cell_x: positions of the cells [px]; column_cell: the cell of each column; only `reach` cells to
    either side count; scale: one spatial sigma [px].
    """
    count, rows, columns = assigned.shape
    out = np.full((count, rows, len(x)), np.inf)
    for k in range(count):
        for r in range(rows):
            for c in range(columns):
                if assigned[k, r, c]:
                    # columns are in order, so those of the cells c - reach .. c + reach are one stretch
                    first = np.searchsorted(column_cell, c - reach)
                    last = np.searchsorted(column_cell, c + reach + 1)
                    for j in range(first, last):
                        out[k, r, j] = min(out[k, r, j], abs(x[j] - cell_x[c]) / scale)
    return out


@njit(cache=True, inline="always")
def nearest_cell(distances, tails, k, j, first, last, row_distance, row_tail):
    """(consensus, squared distance [sigma^2]) of the assigned cell with the largest consensus; (-1, inf) without one.

    Since the consensus is a product over the two axes, the best cell of a row is the nearest along it.
    """
    best, square = -1.0, np.inf
    for r in range(first, last):
        dx = distances[k, r, j]
        if dx < np.inf and tails[k, r, j] * row_tail[r] > best:
            best, square = tails[k, r, j] * row_tail[r], dx * dx + row_distance[r] * row_distance[r]
    return best, square


@njit(cache=True)
def spatial_consensus(distances, cell_y, row_cell, y, scale, reach, soft, square):
    """Fills soft and square, n h w: spatial consensus with the best assigned cell and its squared distance [sigma^2].

    distances: of `row_distances`; without an assigned cell in the window soft is 0 and square inf.
    """
    count, rows, width = distances.shape
    tails = tails_of(distances)
    for i in range(len(y)):
        first, last = max(0, row_cell[i] - reach), min(rows, row_cell[i] + reach + 1)
        row_distance = np.abs(y[i] - cell_y) / scale
        row_tail = tails_of(row_distance)
        for k in range(count):
            for j in range(width):
                best, far = nearest_cell(distances, tails, k, j, first, last, row_distance, row_tail)
                soft[k, i, j], square[k, i, j] = max(best, 0.0), far


@njit(cache=True)
def label_pixels(
    points,
    flow,
    disparity_next,
    reliable,
    x,
    y,
    motions,
    rig,
    sigma,
    mirrored,
    distances,
    cell_y,
    row_cell,
    scale,
    reach,
    labels,
    scores,
):
    """Fills labels (h w, the object of largest joint likelihood) and scores (its share among all objects).

    Both are 0 where not reliable and where no object has any joint consensus (spec-stage1 4.11, 4.13). Consensus itself
    is not needed here, only whether it is 0: when a misfit lies beyond REACH.
    """
    count, rows, width = distances.shape
    tails = tails_of(distances)
    likelihood = np.empty(count)
    for i in range(len(y)):
        first, last = max(0, row_cell[i] - reach), min(rows, row_cell[i] + reach + 1)
        row_distance = np.abs(y[i] - cell_y) / scale
        row_tail = tails_of(row_distance)
        for j in range(width):
            labels[i, j], scores[i, j] = 0, 0.0
            if not reliable[i, j]:
                continue
            explained, label = False, 0
            for k in range(count):
                likelihood[k] = -np.inf
                near, square = nearest_cell(distances, tails, k, j, first, last, row_distance, row_tail)
                if near < 0:
                    continue
                a, b, c = misfit(points, flow, disparity_next, x, y, i, j, motions[k], rig, sigma, mirrored)
                explained |= near > 0 and a < REACH and b < REACH and c < REACH
                likelihood[k] = -0.5 * (a * a + b * b + c * c + square)
                if likelihood[k] > likelihood[label]:
                    label = k
            if explained:
                total = 0.0
                for k in range(count):
                    total += math.exp(likelihood[k] - likelihood[label])
                labels[i, j], scores[i, j] = label, 1.0 / total


@njit(cache=True)
def motion_difference(points, labels, motions, rig, sigma, out):
    """Fills out (h w): how far apart the label's motion and motion 0 take a pixel [sigma, largest of flow x, flow y and
    disparity]; 0 where the label is 0, inf where either leads behind the camera."""
    height, width = labels.shape
    for i in range(height):
        for j in range(width):
            out[i, j] = 0.0
            if labels[i, j] != 0:
                px, py, pz = points[0, i, j], points[1, i, j], points[2, i, j]
                u0, v0, d0 = predict(px, py, pz, motions[0], rig, False)
                u, v, d = predict(px, py, pz, motions[labels[i, j]], rig, False)
                far = max(abs(u - u0) / sigma[0], abs(v - v0) / sigma[1], abs(d - d0) / sigma[2])
                out[i, j] = far if far < np.inf else np.inf  # inf - inf is NaN


@njit(cache=True)
def gains(soft, coverage, reliable):
    """Share of the reliable pixels each candidate explains beyond `coverage`: n, from soft n h w (spec-stage1 4.7)."""
    out = np.zeros(len(soft))
    total = 0
    for i in range(coverage.shape[0]):
        for j in range(coverage.shape[1]):
            if reliable[i, j]:
                total += 1
                for k in range(len(soft)):
                    out[k] += max(soft[k, i, j] - coverage[i, j], 0.0)
    return out / max(total, 1)


@njit(cache=True)
def overlaps(soft, accepted, reliable):
    """Largest soft Jaccard overlap of each candidate (n h w) with any accepted object (m h w): n (spec-stage1 4.7)."""
    out = np.zeros(len(soft))
    for k in range(len(soft)):
        for m in range(len(accepted)):
            shared, either = 0.0, 0.0
            for i in range(reliable.shape[0]):
                for j in range(reliable.shape[1]):
                    if reliable[i, j]:
                        a, b = np.float64(soft[k, i, j]), np.float64(accepted[m, i, j])
                        shared += a * b
                        either += a + b - a * b
            if either > 0:
                out[k] = max(out[k], shared / either)
    return out


@njit(cache=True)
def connected_parts(soft, usable, row_near, column_near, threshold, one_sided):
    """Part of every cell, h w (0 none, 1.. by first cell in raster order), and the number of parts (spec-stage1 4.8).

    Cells are linked where near * min(soft) of the two > threshold; near = row_near[i, i'] * column_near[j, j'].
    one_sided: near * soft of the earlier cell in raster order, as the published code links (defect S20); a cell that is
    no inlier itself then bridges others, and leaves its part only in the end.
    """
    height, width = soft.shape
    parts = np.zeros((height, width), np.int32)
    waiting = np.empty((height * width, 2), np.int64)
    count = 0
    for start_i in range(height):
        for start_j in range(width):
            if parts[start_i, start_j] or not (usable[start_i, start_j] and soft[start_i, start_j] > threshold):
                continue
            count += 1
            parts[start_i, start_j] = count
            waiting[0, 0], waiting[0, 1] = start_i, start_j
            size = 1
            while size:
                size -= 1
                i, j = waiting[size]
                for r in range(height):
                    if not row_near[i, r] > threshold:
                        continue
                    for c in range(width):
                        if parts[r, c] or not usable[r, c]:
                            continue
                        if one_sided:
                            level = soft[i, j] if (i, j) < (r, c) else soft[r, c]
                        else:
                            level = min(soft[i, j], soft[r, c])
                        if row_near[i, r] * column_near[j, c] * level > threshold:
                            parts[r, c] = count
                            waiting[size, 0], waiting[size, 1] = r, c
                            size += 1
    for i in range(height):
        for j in range(width):
            if not soft[i, j] > threshold:
                parts[i, j] = 0
    return parts, count


@njit(cache=True, inline="always")
def close_pair(points, i, j, reach):
    """Whether two points (n 3) lie within `reach` [m]."""
    dx, dy, dz = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]
    return dx * dx + dy * dy + dz * dz <= reach * reach


@njit(cache=True, inline="always")
def rigid_pair(points, points_next, i, j, tolerance):
    """Whether the distance of two points changes by at most `tolerance` [m] from t to t + 1."""
    now = (points[i, 0] - points[j, 0]) ** 2 + (points[i, 1] - points[j, 1]) ** 2 + (points[i, 2] - points[j, 2]) ** 2
    then = (
        (points_next[i, 0] - points_next[j, 0]) ** 2
        + (points_next[i, 1] - points_next[j, 1]) ** 2
        + (points_next[i, 2] - points_next[j, 2]) ** 2
    )
    return abs(math.sqrt(now) - math.sqrt(then)) <= tolerance


@njit(cache=True)
def can_seed(points, points_next, candidates, free, least, reach, tolerance):
    """Which candidates have at least `least` admissible free cells, themselves included if free: bool n.

    Looks outwards from each cell in raster order and stops once it has enough, which neighbours mostly are.
    """
    count = len(points)
    out = np.zeros(count, np.bool_)
    for i in range(count):
        if not candidates[i]:
            continue
        found = 1 if free[i] else 0
        step = 1
        while found < least and step < count:
            for j in (i - step, i + step):
                if 0 <= j < count and free[j] and close_pair(points, i, j, reach):
                    found += rigid_pair(points, points_next, i, j, tolerance)
            step += 1
        out[i] = found >= least
    return out


@njit(cache=True)
def grow_clusters(points, points_next, free, seeds, uniforms, reach, tolerance, exchanged, members):
    """Fills members (clusters by largest size, -1 = none) from one seed cell each; each further cell takes one of the
    uniform numbers (clusters by largest size - 1) and is drawn evenly from the free cells that may join.

    A cell may join that is rigid with all members and near at least one; exchanged: near all and rigid with at least
    one, as the published code has it (defect S18). points, points_next: n 3.
    """
    count = len(points)
    near, rigid = np.empty(count, np.bool_), np.empty(count, np.bool_)
    for cluster in range(len(seeds)):
        members[cluster] = -1
        members[cluster, 0] = seeds[cluster]
        near[:], rigid[:] = exchanged, not exchanged
        allowed = free.copy()
        allowed[seeds[cluster]] = False
        for size in range(1, members.shape[1]):
            newest = members[cluster, size - 1]
            choices = 0
            for j in range(count):
                if not allowed[j]:
                    continue
                if exchanged:
                    near[j] &= close_pair(points, newest, j, reach)
                    if near[j]:
                        rigid[j] |= rigid_pair(points, points_next, newest, j, tolerance)
                    else:
                        allowed[j] = False
                else:
                    near[j] |= close_pair(points, newest, j, reach)
                    rigid[j] &= rigid_pair(points, points_next, newest, j, tolerance)
                    allowed[j] = rigid[j]
                choices += near[j] and rigid[j]
            if choices == 0:
                break
            chosen = min(int(uniforms[cluster, size - 1] * choices), choices - 1)
            for j in range(count):
                if allowed[j] and near[j] and rigid[j]:
                    if chosen == 0:
                        members[cluster, size] = j
                        allowed[j] = False
                        break
                    chosen -= 1


@njit(cache=True)
def shared_pixels(ids, shared):
    """Fills shared (n n): pixels that any two masks have in common, on the diagonal their sizes.

    ids: runs h w, 0 = none, else 1 + number of the mask; masks of one run do not overlap.
    """
    for i in range(ids.shape[1]):
        for j in range(ids.shape[2]):
            for a in range(len(ids)):
                if ids[a, i, j]:
                    for b in range(a, len(ids)):
                        if ids[b, i, j]:
                            shared[ids[a, i, j] - 1, ids[b, i, j] - 1] += 1
