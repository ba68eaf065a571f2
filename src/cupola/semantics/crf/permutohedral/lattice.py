"""Permutohedral lattice: a Gaussian filter in any number of dimensions at a cost that grows with the number of pixels
(Adams, Baek and Davis 2010), normalised as Kraehenbuehl and Koltun (2011) do in their code.

Filtering is three sparse linear maps: every pixel gives its values to the corners of its simplex, the vertices blur
along each axis, every pixel collects from its corners. `Lattice` holds what is needed for that.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from cupola.errors import ConfigError
from cupola.semantics.crf.parallel import in_pieces
from cupola.semantics.crf.permutohedral.kernels import (
    blur_ones,
    chain,
    corner_keys,
    embed,
    normalise,
    number_keys,
    splat_ones,
)

TINY = np.float32(1e-20)
"""Keeps the normalisation of a pixel without weight finite (published)."""


class Corners(NamedTuple):
    """Where each pixel lies in the lattice: the vertices around it, and what it gives to and takes from each."""

    vertices: Int32[np.ndarray, "n corners"]
    weights: Float32[np.ndarray, "n corners"]


@dataclass(frozen=True)
class Lattice:
    """Where each pixel lies, and which vertices lie on a line.

    corners: with weights such that give, blur, take is the symmetric, normalised, weighted kernel; chains: for each
    axis the vertices line by line (`kernels.chain`); size: number of vertices.
    """

    corners: Corners
    chains: tuple[Int32[np.ndarray, "_"], ...]
    size: int

    def joined(self, other: Lattice) -> Lattice:
        """Both kernels as one: their sum. `other` blurs after this, on vertices of its own."""
        moved = tuple(np.where(line < 0, line - self.size, line + self.size).astype(np.int32) for line in other.chains)
        vertices = np.concatenate([self.corners.vertices, other.corners.vertices + np.int32(self.size)], axis=1)
        weights = np.concatenate([self.corners.weights, other.corners.weights], axis=1)
        return Lattice(Corners(vertices, weights), self.chains + moved, self.size + other.size)


def axis_scales(dimensions: int) -> Float32[np.ndarray, "d"]:
    """Scale of each feature, so that the lattice's own blur has deviation 1 (Adams et al., section 3.1)."""
    whole = np.float32(math.sqrt(2 / 3) * (dimensions + 1))
    return np.array([whole / np.float32(math.sqrt((i + 1) * (i + 2))) for i in range(dimensions)], np.float32)


def packing(features: Float32[np.ndarray, "d n"]) -> tuple[Int64[np.ndarray, "d"], Int64[np.ndarray, "d"]]:
    """Smallest value and stride of each cell coordinate in a key, from the largest features (the smallest is >= 0).

    Raises `ConfigError` where the keys would not fit 63 bits.
    """
    d = len(features)
    reach = (features.max(axis=1) * axis_scales(d)).astype(np.float64)
    lowest = np.array([0.0] + [-j * reach[j - 1] for j in range(1, d)])
    highest = np.array([reach[j:].sum() for j in range(d)])
    # Two more on each side: one for rounding and the simplex's other corners, one for the neighbours of the outermost.
    low = np.floor(lowest / (d + 1)).astype(np.int64) - 2
    spans = [int(span) for span in np.ceil(highest / (d + 1)).astype(np.int64) + 3 - low]
    if math.prod(spans) * (d + 1) ** d >= 2**63:
        raise ConfigError("The CRF's sigmas are too small for an image of this size: the lattice has too many places.")
    return low, np.cumprod([1, *spans[:-1]], dtype=np.int64)


def build_lattice(features: Float32[np.ndarray, "d n"], weight: float, pool: Executor) -> Lattice:
    """The lattice of a Gaussian kernel of deviation 1 on features >= 0, normalised and times `weight`.

    Vertices are numbered as they appear, which only matters for speed.
    """
    d, count = features.shape
    scale, (low, strides) = axis_scales(d), packing(features)
    weights, keys = np.empty((count, d + 1), np.float32), np.empty(count, np.int64)
    in_pieces(pool, embed, count, features, scale, low, strides, weights, keys)
    simplex_of, firsts, _ = number_keys(keys)
    simplices = np.empty((len(firsts), d + 1), np.int64)
    in_pieces(pool, corner_keys, len(firsts), keys[firsts], d, strides, simplices)
    vertices, firsts, table = number_keys(simplices.ravel())
    keys = simplices.ravel()[firsts]
    # One step along axis j adds 1 to all coordinates and takes d + 1 from the j-th. The remainder goes up by one, or
    # from d to 0, which carries into all cells. The last coordinate is not part of the key.
    own = (d + 1) * np.append(strides, 0)
    steps = [(1 - int(own[j]), int(own.sum() - own[j]) - d) for j in range(d + 1)]
    futures = [pool.submit(chain, keys, table, d + 1, *step) for step in steps]
    corners = Corners(np.take(vertices.reshape(-1, d + 1), simplex_of, axis=0), weights)
    chains = tuple(future.result() for future in futures)
    normalise_symmetrically(corners, chains, len(keys), weight, pool)
    return Lattice(corners, chains, len(keys))


def normalise_symmetrically(
    corners: Corners, chains: tuple[Int32[np.ndarray, "_"], ...], size: int, weight: float, pool: Executor
) -> None:
    """Scales the weights so that give, blur, take is `weight` times the kernel with its symmetric normalisation:
    divided on both sides by the root of its answer to a constant."""
    count, remainders = corners.weights.shape
    values = np.zeros(size, np.float32)
    splat_ones(*corners, values)
    for line in chains:
        blur_ones(line, values)
    gain = np.float32(1 / (1 + 2.0 ** (1 - remainders)))  # published: of the blur
    share = np.float32(weight) * gain
    in_pieces(pool, normalise, count, corners.vertices, values, gain, share, TINY, corners.weights)
