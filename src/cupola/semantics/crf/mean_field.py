"""Dense CRF: labels that follow the image's edges (Kraehenbuehl and Koltun 2011).

Mean field with a spatial and a bilateral Gaussian kernel, Potts compatibility and symmetric normalisation, on the
permutohedral lattice. A step gives all class probabilities to the lattice, blurs there, and recomputes every pixel from
what the lattice and the stencil return. Classes lie side by side in memory, in planes of 16.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, UInt8
from numba import config

from cupola.errors import DataError
from cupola.semantics.crf.kernels import begin, blur, end, splat, update
from cupola.semantics.crf.parallel import in_parallel, in_pieces
from cupola.semantics.crf.permutohedral import Lattice, build_lattice
from cupola.semantics.crf.settings import CrfSettings
from cupola.semantics.crf.stencil import STENCIL_SIGMA, Stencil, no_stencil, spatial_stencil
from cupola.semantics.crf.vectors import LANES
from cupola.semantics.crf.walk import BLOCK, tiles, visit

CACHE_LINE = 64
"""Bytes. A vector that starts at a multiple of it lies in one line."""
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
    threads: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set by its start
    with ThreadPoolExecutor(threads) as pool:
        return mean_field(image, probabilities, settings, pool, threads)


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
    threads: int,
) -> Float32[np.ndarray, "k h w"]:
    """`dense_crf` on the CPU, with so many threads in `pool`."""
    classes, height, width = probabilities.shape
    count, walk = height * width, visit(height, width, -(-classes // LANES))
    runs, values = len(walk.firsts), walk.planes * LANES
    planes = np.ascontiguousarray(probabilities).reshape(classes, count)
    logs = aligned(count * values)
    now, new = (aligned((count + 2 * walk.room) * values) for _ in range(2))
    # Beside the lattice, whose hash tables keep one thread busy.
    begun = pool.submit(begin, planes, np.float32(settings.smallest_probability), walk, logs, now)
    lattice, stencil = kernels_of(image, settings, pool)
    vertices = aligned(lattice.size * values)
    pieces = blur_pieces(lattice, walk.planes, -(-threads // walk.planes))
    begun.result()
    for _ in range(settings.steps):
        in_parallel(pool, splat, [(plane, walk, lattice.corners, now, vertices) for plane in range(walk.planes)])
        for line in pieces:
            in_parallel(pool, blur, [(*piece, vertices) for piece in line])
        in_pieces(pool, update, runs, walk, lattice.corners, stencil, vertices, logs, now, new)
        now, new = new, now
    result = logs[: classes * count].reshape(classes, count)  # no longer needed
    in_pieces(pool, end, -(-count // BLOCK), walk, now, result)
    return result.reshape(classes, height, width)


def kernels_of(image: UInt8[np.ndarray, "h w 3"], settings: CrfSettings, pool: Executor) -> tuple[Lattice, Stencil]:
    """Both kernels: a lattice, and a stencil for the spatial one where that is possible."""
    height, width = image.shape[:2]
    order = np.concatenate([tile.ravel() for tile in tiles(height, width)])
    features = np.empty((5, height * width), np.float32)
    features[1], features[0] = np.divmod(order, np.int32(width))
    features[:2] /= np.float32(settings.bilateral_sigma)
    features[2:] = np.take(image.reshape(-1, 3), order, axis=0).T
    features[2:] /= np.float32(settings.colour_sigma)
    lattice = build_lattice(features, settings.bilateral_weight, pool)
    if settings.spatial_sigma == STENCIL_SIGMA:
        return lattice, spatial_stencil(height, width, settings.spatial_weight)
    features[1], features[0] = np.divmod(order, np.int32(width))
    features[:2] /= np.float32(settings.spatial_sigma)
    return lattice.joined(build_lattice(features[:2], settings.spatial_weight, pool)), no_stencil(height)


def blur_pieces(lattice: Lattice, planes: int, pieces: int) -> list[list[tuple[int, int, np.ndarray, int]]]:
    """For each axis, what may be blurred at the same time: in each plane so many pieces of whole lines, as arguments of
    `kernels.blur`. No result depends on their number."""
    result = []
    for line in lattice.chains:
        starts = np.append(np.flatnonzero(line < 0), len(line))
        edges = np.unique(starts[np.searchsorted(starts, np.linspace(0, len(line), pieces + 1))]).tolist()
        bases = range(0, planes * lattice.size * LANES, lattice.size * LANES)
        result.append([(start, stop, line, base) for base in bases for start, stop in pairwise(edges)])
    return result


def aligned(count: int) -> Float32[np.ndarray, "_"]:
    """Zeros that start with a cache line."""
    room = np.zeros(count + CACHE_LINE // 4, np.float32)
    skipped = -room.ctypes.data % CACHE_LINE // 4
    return room[skipped : skipped + count]
