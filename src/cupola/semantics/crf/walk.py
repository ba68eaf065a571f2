"""In which order pixels are worked on.

Tile by tile, because pixels that are near each other share vertices of the lattice: those of a tile stay in the cache.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from cupola.semantics.crf.stencil import REACH

BLOCK = 64
"""Columns of a tile. The values of one of its rows fit the first cache."""
TILE_ROWS = 32
"""Rows of a tile. Its vertices fit the second cache."""


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
    in_rows: Int64[np.ndarray, "r"]
    """The runs in the order of the image."""
    width: int
    planes: int
    room: int


def tiles(height: int, width: int) -> list[Int32[np.ndarray, "_ _"]]:
    """The numbers of the pixels in each tile."""
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    corners = product(range(0, height, TILE_ROWS), range(0, width, BLOCK))
    return [pixels[y : y + TILE_ROWS, x : x + BLOCK] for y, x in corners]


def visit(height: int, width: int, planes: int) -> Walk:
    """All pixels, tile by tile."""
    lengths = [np.full(len(tile), tile.shape[1]) for tile in tiles(height, width)]
    starts = np.append(0, np.cumsum(np.concatenate(lengths)))
    firsts = np.concatenate([tile[:, 0] for tile in tiles(height, width)]).astype(np.int64)
    return Walk(starts, firsts, np.argsort(firsts), width, planes, REACH * (width + 1))
