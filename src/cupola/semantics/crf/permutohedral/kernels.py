"""Compiled loops that build the lattice; `on_torch.py` computes the same without them.

The lattice (Adams, Baek and Davis 2010, section 3): points whose d + 1 coordinates have the sum 0 and the same
remainder by d + 1. Around each point of the space lie the d + 1 corners of one simplex. Corner number r has remainder
r, so all its coordinates are (d + 1) * c_i + r, and c_0 .. c_(d-1) with r name it; they are packed into one int64 key.
"""

import numpy as np
from numba import njit

FIRST_SLOTS = 1 << 12
"""Slots of a hash table at the start; it doubles whenever half of them are taken."""
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: multiplying by it spreads neighbouring keys (Knuth, volume 3, section 6.4)."""
TOGETHER = 64
"""Points that are located together: what is known of them fits the first cache."""


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(features, first, length, scale, position, cell, rank):
    """Simplices of some points: their position in the lattice's space, the nearest point of remainder 0 (in units of
    d + 1) and the order of the differences, all d + 1 `TOGETHER`.

    Float32 throughout and in the published order: another rounding would put some pixels into another simplex. Point
    after point in the innermost loops, which become vector instructions.
    """
    d = len(scale)
    running = position[0]
    running[:] = 0
    for j in range(d, 0, -1):
        for p in range(length):
            scaled = features[j - 1, first + p] * scale[j - 1]
            position[j, p] = running[p] - np.float32(j) * scaled
            running[p] += scaled
    excess = np.zeros(TOGETHER, np.int32)
    left = np.empty((d + 1, TOGETHER), np.float32)
    for i in range(d + 1):
        for p in range(length):
            nearest = np.rint(position[i, p] * (np.float32(1) / np.float32(d + 1)))
            left[i, p] = position[i, p] - nearest * np.float32(d + 1)
            cell[i, p] = np.int32(nearest)
            excess[p] += cell[i, p]
    for i in range(d + 1):
        for p in range(length):
            rank[i, p] = excess[p]
    for i in range(d):
        for j in range(i + 1, d + 1):
            for p in range(length):
                less = np.int32(left[i, p] < left[j, p])
                rank[i, p] += less
                rank[j, p] += np.int32(1) - less
    # Where the sum is not 0 (the excess), the coordinates that lie farthest from their point are moved.
    for i in range(d + 1):
        for p in range(length):
            move = np.int32(rank[i, p] < 0) - np.int32(rank[i, p] > d)
            rank[i, p] += np.int32(d + 1) * move
            cell[i, p] += move


@njit(cache=True, nogil=True, error_model="numpy")
def embed(start, stop, features, scale, low, strides, weights, keys):
    """Barycentric weights and simplex key of each point.

    features: float32 d n; scale: d float32; low, strides: int64 d, smallest cell and stride of each packed coordinate.
    Writes weights (float32 n d+1) and keys (int64 n). Equal keys mean the same simplex.
    """
    d = len(scale)
    position, by_rank = np.empty((d + 1, TOGETHER), np.float32), np.empty((d + 1, TOGETHER), np.float32)
    cell, rank = np.empty((d + 1, TOGETHER), np.int32), np.empty((d + 1, TOGETHER), np.int32)
    for first in range(start, stop, TOGETHER):
        length = min(TOGETHER, stop - first)
        _locate(features, first, length, scale, position, cell, rank)
        keys[first : first + length] = 0
        base = 1
        for i in range(d):
            for p in range(length):
                keys[first + p] += rank[i, p] * base
            base *= d + 1
        for i in range(d):
            for p in range(length):
                keys[first + p] += (cell[i, p] - low[i]) * (strides[i] * base)
        for i in range(d + 1):
            for p in range(length):
                left = position[i, p] - np.float32(cell[i, p] * np.int32(d + 1))
                by_rank[rank[i, p], p] = left / np.float32(d + 1)
        for p in range(length):
            weights[first + p, 0] = by_rank[d, p] + (np.float32(1) - by_rank[0, p])
            for r in range(1, d + 1):
                weights[first + p, r] = by_rank[d - r, p] - by_rank[d + 1 - r, p]


@njit(cache=True, nogil=True, error_model="numpy")
def corner_keys(start, stop, simplices, d, strides, keys):
    """Vertex keys (int64 m d+1) of some simplices by their keys (int64 m)."""
    base, drop = (d + 1) ** d, np.zeros(d + 1, np.int64)
    for s in range(start, stop):
        ranks, place = simplices[s] % base, simplices[s] // base
        drop[:] = 0  # by rank: what the cell of that coordinate counts in the key; the last one is not part of it
        for i in range(d):
            drop[ranks % (d + 1)] = strides[i]
            ranks //= d + 1
        for r in range(d + 1):
            keys[s, r] = r + (d + 1) * place
            place -= drop[d - r]


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
def normalise(start, stop, corners, values, gain, share, tiny, weights):
    """Multiplies each pixel's weights by the root of `share` over its answer to a constant, gain * weights . values.

    values: float32 m, of the vertices after the blur; tiny: added to the answer.
    """
    for p in range(start, stop):
        answer = np.float32(0)
        for r in range(corners.shape[1]):
            answer += weights[p, r] * values[corners[p, r]]
        factor = np.sqrt(share) / np.sqrt(answer * gain + tiny)
        for r in range(corners.shape[1]):
            weights[p, r] *= factor
