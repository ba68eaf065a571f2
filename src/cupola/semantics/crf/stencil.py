"""The spatial kernel at a reach of one pixel, as a stencil.

At sigma 1 one row of pixels down is a step of the two-dimensional lattice, so giving, blurring and taking is the same
weighted sum in every row: about forty taps, at most three pixels away, with weights of their own in every column. Only
near the upper and lower border, where vertices are missing, rows differ. This replaces a lattice with more vertices
than pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int32, Int64
from scipy import sparse

from cupola.semantics.crf.lattice import Lattice, build_lattice

STENCIL_SIGMA = 1.0
"""Reach [px] at which rows are steps of the lattice."""
REACH = 3
"""Farthest tap [px]: half a simplex, three blurs and half a simplex."""
NEGLIGIBLE = 1e-6
"""Share of the kernel's weight below which a tap is only rounding: where a pixel lies on a vertex."""
BORDER = 2 * REACH
"""Rows near the border that have weights of their own: their taps reach rows whose normalisation the border changes."""

CACHED = 4
"""Stencils that are kept: frames of one video have one size. About 3 MB each at 1280 columns."""


@dataclass(frozen=True)
class Stencil:
    """A weighted sum over the neighbourhood. weights: for each kind of row and column; offsets: pixels to go, row by
    row of the image; kinds: of each row. The number of taps is even."""

    weights: Float32[np.ndarray, "kinds width taps"]
    offsets: Int64[np.ndarray, "taps"]
    kinds: Int32[np.ndarray, "height"]


def no_stencil(height: int, width: int) -> Stencil:
    """A stencil without taps."""
    return Stencil(np.empty((1, width, 0), np.float32), np.empty(0, np.int64), np.zeros(height, np.int32))


@lru_cache(maxsize=CACHED)
def spatial_stencil(height: int, width: int, weight: float) -> Stencil:
    """The spatial kernel of sigma 1, normalised and times `weight`, read off the lattice of a strip with one row of
    every kind."""
    rows = min(height, 2 * BORDER + 1)
    y, x = np.divmod(np.arange(rows * width, dtype=np.int32), np.int32(width))
    features = np.stack([x, y], axis=1).astype(np.float32)
    with ThreadPoolExecutor(1) as pool:
        lattice = build_lattice(features, np.arange(rows * width, dtype=np.int32), weight, pool)
    matrix = filter_matrix(lattice)
    counts = matrix.data > NEGLIGIBLE * weight
    to, source, values = matrix.row[counts], matrix.col[counts], matrix.data[counts]
    down = (y[source] - y[to]).astype(np.int64)
    offsets, tap = np.unique(down * width + x[source] - x[to], return_inverse=True)
    weights = np.zeros((rows, width, len(offsets) + len(offsets) % 2), np.float32)
    weights[y[to], x[to], tap] = values
    from_below = height - 1 - np.arange(height)
    kinds = np.minimum(np.minimum(np.arange(height), BORDER), rows - 1)
    kinds = np.where(from_below < BORDER, np.maximum(rows - 1 - from_below, kinds), kinds)
    return Stencil(weights, np.pad(offsets, (0, len(offsets) % 2)), kinds.astype(np.int32))


def filter_matrix(lattice: Lattice) -> sparse.coo_array:
    """The whole filter as a matrix, n n."""
    count, corners = lattice.corners.shape
    rows = np.repeat(np.arange(count), corners)
    take = sparse.csr_array(
        (lattice.weights.ravel().astype(np.float64), (rows, lattice.corners.ravel())), (count, lattice.size)
    )
    result = take.T.tocsr()
    for line in lattice.chains:
        later = np.flatnonzero(line[1:] >= 0) + 1
        ends = np.maximum(line[later - 1], ~line[later - 1]), line[later]
        steps = sparse.csr_array((np.full(len(later), 0.5), ends), (lattice.size, lattice.size))
        result = result + (steps + steps.T) @ result
    matrix = (take @ result).tocoo()
    return matrix
