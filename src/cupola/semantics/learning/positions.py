"""Where an image is looked at: random positions, or the farthest points of its depth; and how a grid is read there.

A position is (row, column) in cells of a grid, cell centres at integers, from 0 to the number of cells minus 1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64, Shaped


def random_positions(rows: int, columns: int, count: int, rng: np.random.Generator) -> Float32[np.ndarray, "n 2"]:
    """Positions that are uniform over the grid, anywhere between cell centres."""
    return (rng.random((count, 2)) * (rows - 1, columns - 1)).astype(np.float32)


def read_bilinear(
    grid: Float16[np.ndarray, "rows columns c"] | Float32[np.ndarray, "rows columns c"],
    positions: Float32[np.ndarray, "n 2"],
) -> Float32[np.ndarray, "n c"]:
    """Values of a grid between its cells. Only the cells around the positions are read (of a file, say)."""
    rows, columns = grid.shape[:2]
    top = np.clip(np.floor(positions).astype(np.int64), 0, (max(rows - 2, 0), max(columns - 2, 0)))
    share = positions - top.astype(np.float32)
    (row, column), (down, right) = top.T, share.T[:, :, None]
    below, beside = np.minimum(row + 1, rows - 1), np.minimum(column + 1, columns - 1)
    corners = [grid[r, c].astype(np.float32) for r in (row, below) for c in (column, beside)]
    upper = corners[0] * (1 - right) + corners[1] * right
    lower = corners[2] * (1 - right) + corners[3] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def read_nearest(
    grid: Shaped[np.ndarray, "rows columns"], positions: Float32[np.ndarray, "n 2"]
) -> Shaped[np.ndarray, "n"]:
    """Values of the cells nearest to the positions: for depth, which must not be mixed across an edge."""
    row, column = np.rint(positions).astype(np.int64).T
    values: Shaped[np.ndarray, "n"] = grid[row, column]
    return values


def farthest_points(
    points: Float32[np.ndarray, "n 3"], known: Bool[np.ndarray, "n"], count: int, start: int
) -> Int64[np.ndarray, "k"]:
    """Farthest point sampling: each next point is the one farthest from all so far, of equals the first.

    points: metres, read only where `known`; start: the first point, a known one. Returns the numbers of the points in
    the order in which they were chosen: `count` of them, or all known ones where there are fewer. (The published code
    exchanges the axes, mistakes degrees for radians and always starts in a corner; spec-stage1 5.5, defect S50.)
    """
    if not known[start]:
        raise ValueError(f"point {start} is not known")
    chosen = np.empty(min(count, int(known.sum())), np.int64)
    distance = np.where(known, np.float32(np.inf), np.float32(-1))
    for place in range(len(chosen)):
        chosen[place] = start
        step = ((points - points[start]) ** 2).sum(1)
        distance = np.where(known, np.minimum(distance, step), distance)
        distance[start] = -1
        start = int(distance.argmax())
    return chosen


def far_positions(
    points: Float32[np.ndarray, "3 rows columns"], count: int, rng: np.random.Generator
) -> Float32[np.ndarray, "n 2"]:
    """Cells that are the farthest points of the back-projected depth [m], from a random start.

    points: NaN where unknown. Cells of unknown depth (the sky) get the share of the positions that they are of all
    cells, at random, so that they are not forgotten; so do all positions beyond the number of cells.
    """
    rows, columns = points.shape[1:]
    flat = np.ascontiguousarray(points.reshape(3, -1).T)
    known = np.isfinite(flat).all(1)
    chosen = np.zeros(0, np.int64)
    if known.any():
        start = int(rng.choice(np.flatnonzero(known)))
        chosen = farthest_points(flat, known, round(count * known.mean()), start)
    others = np.flatnonzero(~known)
    unknown = rng.choice(others, min(count - len(chosen), len(others)), replace=False)
    cells = np.concatenate([chosen, unknown])
    found = np.stack(np.divmod(cells, columns), 1).astype(np.float32)
    return np.concatenate([found, random_positions(rows, columns, count - len(found), rng)])
