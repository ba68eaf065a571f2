"""Compiled loops of the dense CRF; `on_torch.py` computes the same without them.

The lattice (Adams, Baek and Davis 2010, section 3): points whose d + 1 coordinates have the sum 0 and the same
remainder by d + 1. Around each point of the space lie the d + 1 corners of one simplex. Corner number r has remainder
r, so all its coordinates are (d + 1) * c_i + r, and c_0 .. c_(d-1) with r name it; they are packed into one int64 key.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64
from numba import njit

from cupola.semantics.crf.vectors import (
    LANES,
    add,
    add_scaled,
    exp,
    fetch_early,
    larger,
    largest,
    load,
    log,
    repeat,
    scale,
    store,
    store_afar,
    total,
)

FIRST_SLOTS = 1 << 12
"""Slots of a hash table at the start; it doubles whenever half of them are taken."""
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: multiplying by it spreads neighbouring keys (Knuth, volume 3, section 6.4)."""
AHEAD = 24
"""Vertices are asked for so many pixels, or places in a chain, early."""
BLOCK = 64
"""Pixels in a run, that are worked on together: their values fit the first cache."""
REACH = 3
"""Farthest tap of the spatial kernel's stencil [px]: half a simplex, three blurs and half a simplex."""
BORDER = 2 * REACH
"""Rows near the border that have weights of their own: their taps reach rows whose normalisation the border changes."""


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(features, first, length, scale, position, cell, rank):
    """Simplices of some points: their position in the lattice's space, the nearest point of remainder 0 (in units of
    d + 1) and the order of the differences, all d + 1 `BLOCK`.

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
    excess = np.zeros(BLOCK, np.int32)
    left = np.empty((d + 1, BLOCK), np.float32)
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
    position, by_rank = np.empty((d + 1, BLOCK), np.float32), np.empty((d + 1, BLOCK), np.float32)
    cell, rank = np.empty((d + 1, BLOCK), np.int32), np.empty((d + 1, BLOCK), np.int32)
    for first in range(start, stop, BLOCK):
        length = min(BLOCK, stop - first)
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


class Walk(NamedTuple):
    """The order in which pixels are worked on, and where their values lie.

    Pixels are visited in runs, side by side in one row of the image, at most `BLOCK` long. Corners and unary terms lie
    in the order of the visit; probabilities, of which neighbours are needed, in that of the image, with `room` pixels
    before the first and after the last one for taps beyond it. Values of classes are flat arrays of `planes` planes:
    of all pixels first the first 16 classes, and so on.
    """

    starts: Int64[np.ndarray, "r+1"]
    """Place in the visit where each run starts."""
    firsts: Int64[np.ndarray, "r"]
    """Pixel where each run starts."""
    width: int
    planes: int
    room: int


class Corners(NamedTuple):
    """Where each pixel lies in the lattice: the vertices around it, and what it gives to and takes from each."""

    vertices: Int32[np.ndarray, "n corners"]
    weights: Float32[np.ndarray, "n corners"]


class Stencil(NamedTuple):
    """A weighted sum over the neighbourhood of every pixel."""

    weights: Float32[np.ndarray, "kinds width 7 7"]
    """For each kind of row, and each column: of the neighbours up to 3 pixels away, row by row."""
    kinds: Int32[np.ndarray, "height"]
    """Kind of each row; `BORDER` away from the border."""
    thin: Float32[np.ndarray, "width 3 7"]
    """For rows of that kind the weights of the same row, of the first above and below, and of the second above and
    below (only the three in the middle), after each row has got half of the two beside it."""
    left: int
    right: int
    """First column where `thin` may be used, and first one after it where it may not."""


@njit(cache=True, nogil=True, error_model="numpy")
def _lines(count):
    """Zeros for so many vectors, each in one cache line."""
    numbers = np.zeros((count + 1) * LANES, np.float32)
    skipped = -numbers.ctypes.data % (4 * LANES) // 4
    return numbers[skipped : skipped + count * LANES]


@njit(cache=True, nogil=True, error_model="numpy")
def splat(plane, walk, corners, classes, values):
    """Adds the probabilities of one plane's classes, times their weights, to the corners of every pixel.

    classes, values: float32, of pixels and vertices. Serial, so that the sums have one order.
    """
    count, base = len(corners.weights), plane * (len(values) // walk.planes)
    for run in range(len(walk.firsts)):
        start = walk.starts[run]
        here = plane * (count + 2 * walk.room) + walk.room + walk.firsts[run] - start
        for i in range(start, walk.starts[run + 1]):
            early = min(i + AHEAD, count - 1)
            pixel = load(classes, (here + i) * LANES)
            for r in range(corners.weights.shape[1]):
                fetch_early(values, base + corners.vertices[early, r] * LANES)
                at = base + corners.vertices[i, r] * LANES
                store(values, at, add_scaled(load(values, at), corners.weights[i, r], pixel))


@njit(cache=True, nogil=True, error_model="numpy")
def blur(start, stop, order, base, values):
    """`blur_ones` for vectors, from one start of a line to another; vertex 0 lies at values[base]. In place."""
    half = np.float32(0.5)
    at = base + ~order[start] * LANES
    before, current = repeat(np.float32(0)), load(values, at)
    for i in range(start + 1, stop):
        early, vertex = order[min(i + AHEAD, stop - 1)], order[i]
        fetch_early(values, base + max(early, ~early) * LANES)
        place = base + max(vertex, ~vertex) * LANES
        following = load(values, place)
        if vertex >= 0:
            store(values, at, add_scaled(current, half, add(before, following)))
            before = current
        else:
            store(values, at, add_scaled(current, half, before))
            before = repeat(np.float32(0))
        current, at = following, place
    store(values, at, add_scaled(current, half, before))


@njit(cache=True, nogil=True, error_model="numpy")
def _add_corners(run, walk, corners, values, logs, scores):
    """Scores of one run of pixels: the unary term and what the lattice reports.

    Two planes at a time, which share the work of finding a vertex; of an odd number the last one is done twice.
    """
    count, start, size = len(corners.weights), walk.starts[run], len(values) // walk.planes
    for i in range(start, walk.starts[run + 1]):
        early = min(i + AHEAD, count - 1)
        for one in range(0, walk.planes, 2):
            other = min(one + 1, walk.planes - 1)
            here, there = one * size, other * size
            score, score_there = load(logs, (one * count + i) * LANES), load(logs, (other * count + i) * LANES)
            for r in range(corners.weights.shape[1]):
                soon, at = corners.vertices[early, r] * LANES, corners.vertices[i, r] * LANES
                fetch_early(values, here + soon)
                fetch_early(values, there + soon)
                score = add_scaled(score, corners.weights[i, r], load(values, here + at))
                score_there = add_scaled(score_there, corners.weights[i, r], load(values, there + at))
            store(scores, ((i - start) * walk.planes + one) * LANES, score)
            store(scores, ((i - start) * walk.planes + other) * LANES, score_there)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_all_taps(weights, classes, at, width, scores, to):
    """Adds the stencil's sum around one pixel, at classes[at], to its score. weights: 7 7."""
    score = load(scores, to)
    for down in range(2 * REACH + 1):
        row = at + ((down - REACH) * width - REACH) * LANES
        for right in range(2 * REACH + 1):
            score = add_scaled(score, weights[down, right], load(classes, row + right * LANES))
    store(scores, to, score)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_thin_taps(weights, classes, at, width, scores, to, step, sums):
    """The same for a run of pixels by the thin weights, float32 n 3 7.

    at: of the first pixel; to, step: of its score and to the next one's; sums: room for (3, `BLOCK` + 6) vectors.
    """
    half, row, line = np.float32(0.5), width * LANES, (BLOCK + 2 * REACH) * LANES
    for i in range(len(weights) + 2 * REACH):
        here, to_sum = at + (i - REACH) * LANES, i * LANES
        fetch_early(classes, here + (REACH + 1) * row)
        same, first = load(classes, here), add(load(classes, here - row), load(classes, here + row))
        second = add(load(classes, here - 2 * row), load(classes, here + 2 * row))
        third = add(load(classes, here - 3 * row), load(classes, here + 3 * row))
        store(sums, to_sum, add_scaled(same, half, first))
        store(sums, to_sum + line, add_scaled(add(same, first), half, second))
        store(sums, to_sum + 2 * line, add_scaled(second, half, add(first, third)))
    for i in range(len(weights)):
        even, odd = load(scores, to + i * step), repeat(np.float32(0))
        for right in range(2 * REACH + 1):
            even = add_scaled(even, weights[i, 0, right], load(sums, (i + right) * LANES))
            odd = add_scaled(odd, weights[i, 1, right], load(sums, (i + right) * LANES + line))
        for right in range(REACH - 1, REACH + 2):
            even = add_scaled(even, weights[i, 2, right], load(sums, (i + right) * LANES + 2 * line))
        store(scores, to + i * step, add(even, odd))


@njit(cache=True, nogil=True, error_model="numpy")
def _add_neighbours(plane, first, length, walk, count, stencil, classes, scores, sums):
    """Adds to the scores of a run of pixels from pixel `first` on what the stencil reports."""
    y, x = first // walk.width, first % walk.width
    at = (plane * (count + 2 * walk.room) + walk.room + first) * LANES
    to, step = plane * LANES, walk.planes * LANES
    left, right = 0, 0
    if stencil.kinds[y] == BORDER:
        left = min(max(stencil.left - x, 0), length)
        right = max(min(stencil.right - x, length), left)
    if left < right:
        weights = stencil.thin[x + left : x + right]
        _add_thin_taps(weights, classes, at + left * LANES, walk.width, scores, to + left * step, step, sums)
    for i in range(length):
        if not left <= i < right:
            weights = stencil.weights[stencil.kinds[y], x + i]
            _add_all_taps(weights, classes, at + i * LANES, walk.width, scores, to + i * step)


@njit(cache=True, nogil=True, error_model="numpy")
def update(start, stop, walk, corners, stencil, values, logs, classes, result):
    """One mean field step (Kraehenbuehl and Koltun 2011, algorithm 1) of some runs of pixels: softmax of the unary term
    plus what both kernels report.

    values: float32, of the vertices; logs, classes, result: of the pixels (see `Walk`). Writes `result`.
    """
    count = len(corners.weights)
    scores = _lines(walk.planes * BLOCK)
    sums = _lines(3 * (BLOCK + 2 * REACH))
    for run in range(start, stop):
        first, length = walk.firsts[run], walk.starts[run + 1] - walk.starts[run]
        _add_corners(run, walk, corners, values, logs, scores)
        if len(stencil.weights):
            for plane in range(walk.planes):
                _add_neighbours(plane, first, length, walk, count, stencil, classes, scores, sums)
        _soften(scores, length, walk.planes, result, (walk.room + first) * LANES, (count + 2 * walk.room) * LANES)


@njit(cache=True, nogil=True, error_model="numpy")
def _soften(scores, length, planes, result, at, stride):
    """result[at :] = softmax of the scores of a run of pixels; `stride` values lie between planes of the result.

    In three loops, so that the processor finds work in the next pixels while it waits for one.
    """
    size = planes * LANES
    for first in range(0, length * size, size):
        best = load(scores, first)
        for k in range(first + LANES, first + size, LANES):
            best = larger(best, load(scores, k))
        down = repeat(-largest(best))
        for k in range(first, first + size, LANES):
            store(scores, k, add(load(scores, k), down))
    for k in range(0, length * size, LANES):
        store(scores, k, exp(load(scores, k)))
    for i in range(length):
        first, to = i * size, at + i * LANES
        sums = load(scores, first)
        for k in range(first + LANES, first + size, LANES):
            sums = add(sums, load(scores, k))
        factor = np.float32(1) / total(sums)
        for plane in range(planes):
            store_afar(result, to + plane * stride, scale(factor, load(scores, first + plane * LANES)))


@njit(cache=True, nogil=True, error_model="numpy")
def begin(start, stop, runs, probabilities, smallest, impossible, walk, logs, classes):
    """Clipped logarithms of the probabilities, and their softmax: the clipped probabilities over their sum.

    Of the runs runs[start:stop]. probabilities: float32 k n; impossible: the logarithm of what fills the last plane.
    """
    (kinds, count), planes = probabilities.shape, walk.planes
    rows, padding = _lines(BLOCK * planes), _lines(planes)
    padding[kinds:] = impossible
    for run in runs[start:stop]:
        first, place = walk.firsts[run], walk.starts[run]
        length = walk.starts[run + 1] - place
        for k in range(kinds):
            for i in range(length):
                rows[i * planes * LANES + k] = min(max(probabilities[k, first + i], smallest), np.float32(1))
        for i in range(length):
            sums = repeat(np.float32(0))
            for plane in range(planes):
                sums = add(sums, load(rows, (i * planes + plane) * LANES))
            factor = np.float32(1) / total(sums)
            for plane in range(planes):
                values = load(rows, (i * planes + plane) * LANES)
                unary = add(log(larger(values, repeat(smallest))), load(padding, plane * LANES))
                store_afar(logs, (plane * count + place + i) * LANES, unary)
                at = plane * (count + 2 * walk.room) + walk.room + first + i
                store_afar(classes, at * LANES, scale(factor, values))


@njit(cache=True, nogil=True, error_model="numpy")
def end(start, stop, walk, classes, probabilities):
    """probabilities[k, p] = what `classes` holds of them. Of some blocks of pixels."""
    count = probabilities.shape[1]
    for first in range(start * BLOCK, min(stop * BLOCK, count), BLOCK):
        for k in range(len(probabilities)):
            at = (k // LANES * (count + 2 * walk.room) + walk.room) * LANES + k % LANES
            for p in range(first, min(first + BLOCK, count)):
                probabilities[k, p] = classes[at + p * LANES]
