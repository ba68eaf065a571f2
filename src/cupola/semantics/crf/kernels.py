"""Compiled loops of the dense CRF; `on_torch.py` computes the same without them.

The lattice (Adams, Baek and Davis 2010, section 3): points whose d + 1 coordinates have the sum 0 and the same
remainder by d + 1. Around each point of the space lie the d + 1 corners of one simplex. Corner number r has remainder
r, so all its coordinates are (d + 1) * c_i + r, and c_0 .. c_(d-1) with r name it; they are packed into one int64 key.
"""

import numpy as np
from numba import njit

from cupola.semantics.crf.vectors import (
    HALF,
    LANES,
    add,
    add_scaled,
    exp,
    fetch_early,
    larger,
    largest,
    load,
    load_half,
    repeat,
    store,
    total,
)

FIRST_SLOTS = 1 << 12
"""Slots of a hash table at the start; it doubles whenever half of them are taken."""
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: multiplying by it spreads neighbouring keys (Knuth, volume 3, section 6.4)."""
AHEAD = 3
"""A pixel's corners are asked for so many pixels early."""
BLOCK = 64
"""Pixels that are transposed together: their values fit the first cache."""


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(feature, scale, position, cell, rank):
    """Simplex of a point: its position in the lattice's space, the nearest point of remainder 0 (in units of d + 1)
    and the order of the differences. Returns the sum of `cell`, by which that point misses the plane of sum 0.

    Float32 throughout and in the published order: another rounding would put some pixels into another simplex.
    """
    d = len(scale)
    running = np.float32(0)
    for j in range(d, 0, -1):
        scaled = feature[j - 1] * scale[j - 1]
        position[j] = running - np.float32(j) * scaled
        running += scaled
    position[0] = running
    inverse = np.float32(1) / np.float32(d + 1)
    excess = 0
    for i in range(d + 1):
        cell[i] = np.int64(np.rint(position[i] * inverse))
        excess += cell[i]
        rank[i] = 0
    for i in range(d):
        left = position[i] - np.float32(cell[i] * (d + 1))
        for j in range(i + 1, d + 1):
            if left < position[j] - np.float32(cell[j] * (d + 1)):
                rank[i] += 1
            else:
                rank[j] += 1
    return excess


@njit(cache=True, nogil=True, error_model="numpy")
def _return_to_plane(cell, rank, excess):
    """Moves the coordinates that lie farthest from their point, so that the sum of `cell` is 0."""
    size = len(cell)
    for i in range(size):
        rank[i] += excess
        if rank[i] < 0:
            rank[i] += size
            cell[i] += 1
        elif rank[i] >= size:
            rank[i] -= size
            cell[i] -= 1


@njit(cache=True, nogil=True, error_model="numpy")
def embed(start, stop, features, scale, low, strides, weights, keys):
    """Barycentric weights and simplex key of each point.

    features: float32 n d; scale: d float32; low, strides: int64 d, smallest cell and stride of each packed coordinate.
    Writes weights (float32 n d+1) and keys (int64 n). Equal keys mean the same simplex.
    """
    d = len(scale)
    position, cell, rank = np.empty(d + 1, np.float32), np.empty(d + 1, np.int64), np.empty(d + 1, np.int64)
    share = np.empty(d + 2, np.float32)
    for p in range(start, stop):
        _return_to_plane(cell, rank, _locate(features[p], scale, position, cell, rank))
        key, base, place = 0, 1, 0
        for i in range(d):
            key += rank[i] * base
            base *= d + 1
            place += (cell[i] - low[i]) * strides[i]
        keys[p] = key + base * place
        share[:] = 0
        for i in range(d + 1):
            difference = (position[i] - np.float32(cell[i] * (d + 1))) / np.float32(d + 1)
            share[d - rank[i]] += difference
            share[d + 1 - rank[i]] -= difference
        share[0] += np.float32(1) + share[d + 1]
        weights[p] = share[: d + 1]


@njit(cache=True, nogil=True, error_model="numpy")
def corner_keys(start, stop, points, features, scale, low, strides, keys):
    """Vertex keys (int64 m d+1) of the simplices around some points (numbers, int32 m)."""
    d = len(scale)
    position, cell, rank = np.empty(d + 1, np.float32), np.empty(d + 1, np.int64), np.empty(d + 1, np.int64)
    for s in range(start, stop):
        _return_to_plane(cell, rank, _locate(features[points[s]], scale, position, cell, rank))
        for r in range(d + 1):
            place = 0
            for i in range(d):
                place += (cell[i] - (rank[i] > d - r) - low[i]) * strides[i]
            keys[s, r] = r + (d + 1) * place


@njit(cache=True, nogil=True, error_model="numpy")
def _slot(table, key):
    """Slot that holds a key, or the free one where it belongs."""
    mask = np.uint64(len(table) - 1)
    mixed = np.uint64(key) * HASH_FACTOR
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while table[slot, 1] >= 0 and table[slot, 0] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True, error_model="numpy")
def _empty_table(slots):
    table = np.empty((slots, 2), np.int64)
    table[:, 1] = -1
    return table


@njit(cache=True, nogil=True, error_model="numpy")
def number_keys(keys):
    """Numbers the distinct keys by first appearance.

    keys: int64 n. Returns the numbers (int32 n), the place of each key's first appearance (int32 m), and the hash table
    (int64 slots 2: key, number or -1).
    """
    numbers, firsts = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    table, count = _empty_table(FIRST_SLOTS), 0
    for i in range(len(keys)):
        key = keys[i]
        if i > 0 and key == keys[i - 1]:
            numbers[i] = numbers[i - 1]
            continue
        slot = _slot(table, key)
        if table[slot, 1] < 0:
            table[slot, 0], table[slot, 1] = key, count
            firsts[count] = i
            count += 1
            if 2 * count > len(table):
                table = _empty_table(2 * len(table))
                for k in range(count):
                    known = keys[firsts[k]]
                    place = _slot(table, known)
                    table[place, 0], table[place, 1] = known, k
            numbers[i] = count - 1
        else:
            numbers[i] = table[slot, 1]
    return numbers, firsts[:count].copy(), table


@njit(cache=True, nogil=True, error_model="numpy")
def chain(keys, table, remainders, step, carried_step):
    """The vertices that have a neighbour along one axis, line by line in the order along it.

    keys: int64 m; step, carried_step: added to a key they give the next vertex, the second where the remainder is the
    largest. Returns int32: a line starts with ~vertex, the rest follow.
    """
    count = len(keys)
    following, starts = np.empty(count, np.int32), np.ones(count, np.bool_)
    for v in range(count):
        key = keys[v]
        key += carried_step if key % remainders == remainders - 1 else step
        following[v] = table[_slot(table, key), 1]
        if following[v] >= 0:
            starts[following[v]] = False
    order, length = np.empty(count, np.int32), 0
    for v in range(count):
        if starts[v] and following[v] >= 0:
            order[length] = ~v
            length += 1
            at = following[v]
            while at >= 0:
                order[length] = at
                length += 1
                at = following[at]
    return order[:length].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def splat_ones(corners, weights, values):
    """Adds every pixel's weights to its corners' values (float32 m)."""
    for p in range(len(corners)):
        for r in range(corners.shape[1]):
            values[corners[p, r]] += weights[p, r]


@njit(cache=True, nogil=True, error_model="numpy")
def blur_ones(order, values):
    """Adds to every value half of its two neighbours' along one chain."""
    half = np.float32(0.5)
    before, at, current = np.float32(0), np.int32(-1), np.float32(0)
    for i in range(len(order) + 1):
        vertex = order[i] if i < len(order) else np.int32(-1)
        if vertex >= 0:
            following = values[vertex]
            values[at] = current + half * (before + following)
            before, at, current = current, vertex, following
        else:
            if at >= 0:
                values[at] = current + half * before
            before, at = np.float32(0), ~vertex
            current = values[at]


@njit(cache=True, nogil=True, error_model="numpy")
def splat(part, order, corners, weights, classes, vertices, parts, offset):
    """Adds 16 of the class probabilities of every pixel, times its weights, to its corners.

    part: 0 .. parts - 1, which 16; order: pixels, int32 n; classes: float32, 16 * parts values a pixel from pixel
    -offset on; vertices: float32, 16 * parts values a vertex. Serial, so that the sums have one order.
    """
    last = len(order) - 1
    for i in range(len(order)):
        early = order[min(i + AHEAD, last)]
        for r in range(corners.shape[1]):
            fetch_early(vertices, (corners[early, r] * parts + part) * HALF)
        p = order[i]
        values = load_half(classes, ((p + offset) * parts + part) * HALF)
        for r in range(corners.shape[1]):
            at = (corners[p, r] * parts + part) * HALF
            store(vertices, at, add_scaled(load_half(vertices, at), weights[p, r], values))


@njit(cache=True, nogil=True, error_model="numpy")
def fetch_row(values, at):
    """Asks early for a vector that spans two cache lines."""
    fetch_early(values, at)
    fetch_early(values, at + HALF)


@njit(cache=True, nogil=True, error_model="numpy")
def blur(start, stop, order, vertices, groups):
    """`blur_ones` for rows of 32 * groups values, from one start of a line to another. In place."""
    half = np.float32(0.5)
    for group in range(groups):
        at = (~order[start] * groups + group) * LANES
        before, current = repeat(np.float32(0)), load(vertices, at)
        for i in range(start + 1, stop):
            vertex = order[i]
            if i + AHEAD < stop:
                early = order[i + AHEAD]
                fetch_row(vertices, (max(early, ~early) * groups + group) * LANES)
            if vertex >= 0:
                place = (vertex * groups + group) * LANES
                following = load(vertices, place)
                store(vertices, at, add_scaled(current, half, add(before, following)))
                before, current = current, following
            else:
                store(vertices, at, add_scaled(current, half, before))
                place = (~vertex * groups + group) * LANES
                before, current = repeat(np.float32(0)), load(vertices, place)
            at = place
        store(vertices, at, add_scaled(current, half, before))


@njit(cache=True, nogil=True, error_model="numpy")
def update(
    start,
    stop,
    order,
    corners,
    weights,
    vertices,
    taps,
    tap_offsets,
    tap_rows,
    width,
    logs,
    classes,
    result,
    groups,
    offset,
):
    """One mean field step (Kraehenbuehl and Koltun 2011, algorithm 1) of some pixels: softmax of the unary term plus
    what both kernels report.

    taps: float32 kinds width t (t even), the stencil of the spatial kernel; tap_offsets: int64 t, values to go;
    tap_rows: int32 h, the kind of each row. logs, classes: as in `splat`, logs without the offset. Writes `result`.
    """
    scores = np.empty(groups * LANES, np.float32)
    last = len(order) - 1
    for i in range(start, stop):
        early = order[min(i + AHEAD, last)]
        for r in range(corners.shape[1]):
            for group in range(groups):
                fetch_row(vertices, (corners[early, r] * groups + group) * LANES)
        p = order[i]
        y, x = p // width, p % width
        kind = tap_rows[y]
        best = repeat(np.float32(-np.inf))
        for group in range(groups):
            even, odd = load(logs, (p * groups + group) * LANES), repeat(np.float32(0))
            for r in range(corners.shape[1]):
                at = (corners[p, r] * groups + group) * LANES
                even = add_scaled(even, weights[p, r], load(vertices, at))
            here = ((p + offset) * groups + group) * LANES
            for t in range(0, len(tap_offsets), 2):
                even = add_scaled(even, taps[kind, x, t], load(classes, here + tap_offsets[t]))
                odd = add_scaled(odd, taps[kind, x, t + 1], load(classes, here + tap_offsets[t + 1]))
            score = add(even, odd)
            store(scores, group * LANES, score)
            best = larger(best, score)
        soften(scores, largest(best), result, (p + offset) * groups * LANES)


@njit(cache=True, nogil=True, error_model="numpy")
def soften(scores, highest, result, at):
    """result[at :] = softmax of the scores, whose largest is `highest`."""
    down = repeat(-highest)
    sums = repeat(np.float32(0))
    for k in range(0, len(scores), LANES):
        power = exp(add(load(scores, k), down))
        store(scores, k, power)
        sums = add(sums, power)
    factor = np.float32(1) / total(sums)
    for k in range(0, len(scores), LANES):
        store(result, at + k, add_scaled(repeat(np.float32(0)), factor, load(scores, k)))


@njit(cache=True, nogil=True, error_model="numpy")
def start_field(start, stop, logs, result, groups, offset):
    """result = softmax of the logs alone."""
    size = groups * LANES
    scores = np.empty(size, np.float32)
    for p in range(start, stop):
        highest = np.float32(-np.inf)
        for k in range(size):
            scores[k] = logs[p * size + k]
            highest = max(highest, scores[k])
        soften(scores, highest, result, (p + offset) * size)


@njit(cache=True, nogil=True, error_model="numpy")
def pixels_first(start, stop, planes, rows):
    """rows[p, k] = planes[k, p]."""
    for left in range(start, stop, BLOCK):
        right = min(left + BLOCK, stop)
        for k in range(len(planes)):
            for p in range(left, right):
                rows[p, k] = planes[k, p]


@njit(cache=True, nogil=True, error_model="numpy")
def classes_first(start, stop, rows, planes):
    """planes[k, p] = rows[p, k]."""
    for left in range(start, stop, BLOCK):
        right = min(left + BLOCK, stop)
        for k in range(len(planes)):
            for p in range(left, right):
                planes[k, p] = rows[p, k]
