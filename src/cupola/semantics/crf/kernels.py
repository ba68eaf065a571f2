"""Compiled loops over the classes of pixels and vertices: the steps of the dense CRF.

Values of classes are flat float32 arrays in planes of 16 classes (see `walk.py`), one vector a pixel or vertex.
"""

import numpy as np
from numba import njit

from cupola.semantics.crf.stencil import BORDER, REACH
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
from cupola.semantics.crf.walk import BLOCK

AHEAD = 24
"""Vertices are asked for so many pixels, or places in a chain, early."""
IMPOSSIBLE = np.float32(-1e30)
"""Log-probability of the classes that fill up the last plane."""


@njit(cache=True, nogil=True, error_model="numpy")
def _lines(count):
    """Zeros for so many vectors, each in one cache line."""
    numbers = np.zeros((count + 1) * LANES, np.float32)
    skipped = -numbers.ctypes.data % (4 * LANES) // 4
    return numbers[skipped : skipped + count * LANES]


@njit(cache=True, nogil=True, error_model="numpy")
def splat(plane, walk, corners, classes, values):
    """Adds up on the vertices the probabilities of one plane's classes, times their weights, of the pixels around.

    classes, values: of pixels and vertices. Serial, so that the sums have one order.
    """
    count, size = len(corners.weights), len(values) // walk.planes
    base = plane * size
    values[base : base + size] = 0
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
def begin(probabilities, smallest, walk, logs, classes):
    """Clipped logarithms of the probabilities (float32 k n), and their softmax: the clipped ones over their sum."""
    (kinds, count), planes = probabilities.shape, walk.planes
    rows, padding = _lines(BLOCK * planes), _lines(planes)
    padding[kinds:] = IMPOSSIBLE
    for run in walk.in_rows:
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
