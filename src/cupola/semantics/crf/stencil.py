"""The spatial kernel at a reach of one pixel, as a stencil.

At sigma 1 one row of pixels down is a step of the two-dimensional lattice, so giving, blurring and taking is the same
weighted sum in every row: about forty taps, at most three pixels away, with weights of their own in every column. Only
near the upper and lower border, where vertices are missing, rows differ. This replaces a lattice with more vertices
than pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from scipy import sparse

from cupola.semantics.crf.permutohedral import Lattice, build_lattice

STENCIL_SIGMA = 1.0
"""Reach [px] at which rows are steps of the lattice."""
REACH = 3
"""Farthest tap [px]: half a simplex, three blurs and half a simplex."""
BORDER = 2 * REACH
"""Rows near the border that have weights of their own: their taps reach rows whose normalisation the border changes."""
NEGLIGIBLE = 1e-6
"""Share of the kernel's weight below which a tap is only rounding: where a pixel lies on a vertex."""
UNEQUAL = 1e-5
"""Share of the kernel's weight up to which two ways to write a tap differ by the float32 rounding of positions."""

CACHED = 4
"""Stencils that are kept: frames of one video have one size. About 3 MB each at 1280 columns."""


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


def no_stencil(height: int) -> Stencil:
    """A stencil without taps."""
    side = 2 * REACH + 1
    weights, thin = np.empty((0, 0, side, side), np.float32), np.empty((0, 3, side), np.float32)
    return Stencil(weights, np.zeros(height, np.int32), thin, 0, 0)


@lru_cache(maxsize=CACHED)
def spatial_stencil(height: int, width: int, weight: float) -> Stencil:
    """The spatial kernel of sigma 1, normalised and times `weight`, read off the lattice of a strip with one row of
    every kind."""
    rows = min(height, 2 * BORDER + 1)
    y, x = np.divmod(np.arange(rows * width, dtype=np.int32), np.int32(width))
    features = np.stack([x, y]).astype(np.float32)
    with ThreadPoolExecutor(1) as pool:
        lattice = build_lattice(features, weight, pool)
    matrix = filter_matrix(lattice)
    counts = matrix.data > NEGLIGIBLE * weight
    to, source, values = matrix.row[counts], matrix.col[counts], matrix.data[counts]
    weights = np.zeros((rows, width, 2 * REACH + 1, 2 * REACH + 1), np.float32)
    weights[y[to], x[to], y[source] - y[to] + REACH, x[source] - x[to] + REACH] = values
    from_below = height - 1 - np.arange(height)
    kinds = np.minimum(np.minimum(np.arange(height), BORDER), rows - 1)
    kinds = np.where(from_below < BORDER, np.maximum(rows - 1 - from_below, kinds), kinds)
    thin, left, right = np.zeros((width, 3, 2 * REACH + 1), np.float32), 0, 0
    if rows > BORDER:
        thin, left, right = thinned(weights[BORDER], UNEQUAL * weight)
    return Stencil(weights, kinds.astype(np.int32), thin, left, right)


def thinned(
    weights: Float32[np.ndarray, "width 7 7"], tolerance: float
) -> tuple[Float32[np.ndarray, "width 3 7"], int, int]:
    """`Stencil.thin`, and the columns between which it says the same as `weights`.

    One row down is a step along the lattice's last axis. So its blur along that axis may as well be done on the pixels,
    where it gives every row half of the two beside it, and the rest reaches only two rows up and down.
    """
    by_distance = weights[:, REACH:]
    second = 2 * by_distance[:, 3]
    first = 2 * (by_distance[:, 2] - second)
    same = by_distance[:, 0] - first
    thin = np.stack([same, first, second], axis=1)
    differences = np.abs(by_distance[:, 1] - (second / 2 + first + same / 2)).max(axis=1)
    differences = np.maximum(differences, np.abs(weights - weights[:, ::-1]).max(axis=(1, 2)))
    differences = np.maximum(differences, np.abs(np.delete(second, range(REACH - 1, REACH + 2), axis=1)).max(axis=1))
    columns = np.arange(len(weights))
    wrong, middle = columns[differences > tolerance], len(weights) // 2
    left, right = wrong[wrong < middle].max(initial=-1) + 1, wrong[wrong >= middle].min(initial=len(weights))
    return thin, int(left), int(right)


def filter_matrix(lattice: Lattice) -> sparse.coo_array:
    """The whole filter as a matrix, n n."""
    count, corners = lattice.corners.vertices.shape
    rows = np.repeat(np.arange(count), corners)
    take = sparse.csr_array(
        (lattice.corners.weights.ravel().astype(np.float64), (rows, lattice.corners.vertices.ravel())),
        (count, lattice.size),
    )
    result = take.T.tocsr()
    for line in lattice.chains:
        later = np.flatnonzero(line[1:] >= 0) + 1
        ends = np.maximum(line[later - 1], ~line[later - 1]), line[later]
        steps = sparse.csr_array((np.full(len(later), 0.5), ends), (lattice.size, lattice.size))
        result = result + (steps + steps.T) @ result
    matrix = (take @ result).tocoo()
    return matrix
