"""Dense CRF: labels that follow the image's edges (Kraehenbuehl and Koltun 2011).

Mean field with a spatial and a bilateral Gaussian kernel, Potts compatibility and symmetric normalisation, on the
permutohedral lattice. A step gives all class probabilities to the lattice, blurs there, and recomputes every pixel from
what the lattice and the stencil return. Classes lie side by side in memory, in groups of 32.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from numba import config

from cupola.errors import DataError
from cupola.semantics.crf.kernels import blur, classes_first, pixels_first, splat, start_field, update
from cupola.semantics.crf.lattice import PIECES, Lattice, build_lattice, in_pieces
from cupola.semantics.crf.settings import CrfSettings
from cupola.semantics.crf.stencil import STENCIL_SIGMA, Stencil, no_stencil, spatial_stencil
from cupola.semantics.crf.vectors import HALF, LANES

TILE = (32, 64)
"""Rows and columns of the tiles in whose order pixels are visited: their vertices fit the second cache."""
CACHE_LINE = 64
"""Bytes. A vector that starts at a multiple of it lies in one line."""
IMPOSSIBLE = np.float32(-1e30)
"""Log-probability of the classes that fill up the last group."""
SMALLEST_CLASSES = 2


def dense_crf(
    image: np.ndarray, probabilities: np.ndarray, settings: CrfSettings = CrfSettings(), device: str = "cpu"
) -> np.ndarray:
    """Class probabilities after mean field inference.

    Args:
        image: uint8 h w 3. The order of the channels matters a little, since the lattice treats its axes differently;
            the published results were computed with blue first.
        probabilities: float32 k h w, k >= 2, finite and >= 0. They need not sum to 1.
        settings: The kernels and the number of steps.
        device: `cpu`, or any other name of a torch device.

    Returns:
        float32 k h w, summing to 1 over the classes; the same for any number of threads.

    Raises:
        DataError: The arrays do not fit together, or hold a negative or non-finite number.
        ConfigError: The sigmas are too small for the image, or the device is unknown or absent.
    """
    check(image, probabilities)
    if device != "cpu":
        from cupola.semantics.crf.on_torch import named_device, torch_crf

        return torch_crf(image, probabilities, settings, named_device(device))
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as pool:  # type: ignore[attr-defined]  # set by its start
        return mean_field(image, probabilities, settings, pool)


def check(image: np.ndarray, probabilities: np.ndarray) -> None:
    """Raises `DataError` for arrays that `dense_crf` can't use."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise DataError(f"The CRF needs an image of uint8 height x width x 3, not {image.dtype} {image.shape}.")
    if probabilities.ndim != 3 or probabilities.dtype != np.float32 or len(probabilities) < SMALLEST_CLASSES:
        raise DataError(
            "The CRF needs probabilities of float32 classes x height x width with two classes or more, not "
            f"{probabilities.dtype} {probabilities.shape}."
        )
    if probabilities.shape[1:] != image.shape[:2]:
        raise DataError(
            f"The CRF's probabilities have {probabilities.shape[1:]} pixels, but its image has {image.shape[:2]}."
        )
    # The sum is finite only if all numbers are, short of an overflow that no probability comes near.
    if not (np.isfinite(probabilities.max()) and probabilities.min() >= 0):
        raise DataError("The CRF's probabilities hold a negative number, an infinity or NaN.")


def mean_field(
    image: UInt8[np.ndarray, "h w 3"],
    probabilities: Float32[np.ndarray, "k h w"],
    settings: CrfSettings,
    pool: Executor,
) -> Float32[np.ndarray, "k h w"]:
    """`dense_crf` on the CPU, with the threads of `pool`."""
    classes, height, width = probabilities.shape
    count, groups = height * width, -(-classes // LANES)
    order = tile_order(height, width)
    lattice, stencil = kernels_of(image, settings, order, pool)
    offset = int(np.abs(stencil.offsets).max(initial=0))  # room for taps beyond the image, whose weights are 0
    values = groups * LANES
    logs, now, new = (
        aligned(count * values),
        aligned((count + 2 * offset) * values),
        aligned((count + 2 * offset) * values),
    )
    vertices = aligned(lattice.size * values)
    in_pieces(pool, log_probabilities, height, probabilities, settings.smallest_probability, logs.reshape(count, -1))
    in_pieces(pool, start_field, count, logs, now, groups, offset)
    for _ in range(settings.steps):
        filter_classes(lattice, order, now, vertices, groups, offset, pool)
        in_pieces(
            pool, update, count, order, lattice.corners, lattice.weights, vertices, stencil.weights,
            stencil.offsets * values, stencil.kinds, width, logs, now, new, groups, offset,
        )  # fmt: skip
        now, new = new, now
    del logs, new, vertices
    result = np.empty((classes, count), np.float32)
    in_pieces(pool, classes_first, count, now.reshape(-1, values)[offset:], result)
    return result.reshape(classes, height, width)


def kernels_of(
    image: UInt8[np.ndarray, "h w 3"], settings: CrfSettings, order: Int32[np.ndarray, "n"], pool: Executor
) -> tuple[Lattice, Stencil]:
    """Both kernels: a lattice, and a stencil for the spatial one where that is possible."""
    height, width = image.shape[:2]
    y, x = (axis.ravel().astype(np.float32) for axis in np.indices((height, width)))
    near = np.stack([x, y], axis=1)
    colours = image.reshape(-1, 3).astype(np.float32) / np.float32(settings.colour_sigma)
    bilateral = np.concatenate([near / np.float32(settings.bilateral_sigma), colours], axis=1)
    lattice = build_lattice(bilateral, order, settings.bilateral_weight, pool)
    if settings.spatial_sigma == STENCIL_SIGMA:
        return lattice, spatial_stencil(height, width, settings.spatial_weight)
    near /= np.float32(settings.spatial_sigma)
    return lattice.joined(build_lattice(near, order, settings.spatial_weight, pool)), no_stencil(height, width)


def filter_classes(
    lattice: Lattice, order: Int32[np.ndarray, "n"], classes: Float32[np.ndarray, "_"],
    vertices: Float32[np.ndarray, "_"], groups: int, offset: int, pool: Executor,
) -> None:  # fmt: skip
    """Gives the classes to the vertices and blurs there. Writes `vertices`."""
    vertices.fill(0)
    parts = groups * LANES // HALF
    arguments = (order, lattice.corners, lattice.weights, classes, vertices, parts, offset)
    for future in [pool.submit(splat, part, *arguments) for part in range(parts)]:
        future.result()
    for line in lattice.chains:
        starts = np.append(np.flatnonzero(line < 0), len(line))
        edges = np.unique(starts[np.searchsorted(starts, np.linspace(0, len(line), PIECES + 1))]).tolist()
        ends = pairwise(edges)
        for future in [pool.submit(blur, a, b, line, vertices, groups) for a, b in ends]:
            future.result()


def log_probabilities(
    start: int,
    stop: int,
    probabilities: Float32[np.ndarray, "k h w"],
    smallest: float,
    logs: Float32[np.ndarray, "n _"],
) -> None:
    """Writes the clipped logarithms of some rows, pixel by pixel."""
    classes, _, width = probabilities.shape
    row = np.empty((classes, width), np.float32)
    for y in range(start, stop):
        np.clip(probabilities[:, y], np.float32(smallest), np.float32(1), out=row)
        np.log(row, out=row)
        part = logs[y * width : (y + 1) * width]
        part[:, classes:] = IMPOSSIBLE
        pixels_first(0, width, row, part)


def tile_order(height: int, width: int) -> Int32[np.ndarray, "n"]:
    """All pixels, tile by tile."""
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    tiles = [
        pixels[y : y + TILE[0], x : x + TILE[1]].ravel()
        for y in range(0, height, TILE[0])
        for x in range(0, width, TILE[1])
    ]
    return np.concatenate(tiles)


def aligned(count: int) -> Float32[np.ndarray, "_"]:
    """Zeros that start with a cache line."""
    room = np.zeros(count + CACHE_LINE // 4, np.float32)
    skipped = -room.ctypes.data % CACHE_LINE // 4
    return room[skipped : skipped + count]
