"""Time of MaskCut's steps on one image, with random weights: what takes how long does not depend on them.

    python benchmarks/maskcut.py [IMAGE] [--architecture dino_vitb8] [--side 480] [--repeats 3] [--dense]

Without an image: coloured squares on noise. Wall and processor time, least of the repeats. --dense also solves the
eigenproblem with LAPACK's dense solver (80 s at 3600 cells on a busy machine) and compares the vectors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import scipy.linalg
import torch

from cupola.io import read_rgb
from cupola.motion.maskcut.cutting import WEAK, find_objects, second_vector, similar
from cupola.motion.maskcut.segmenter import refine
from cupola.semantics.backbones import normalised, random_backbone

Result = TypeVar("Result")


def squares(side: int) -> np.ndarray:
    """An image to cut."""
    image = np.random.default_rng(0).integers(60, 100, (side, side, 3)).astype(np.uint8)
    image[side // 4 : side // 2, side // 4 : side // 2] = (220, 40, 40)
    image[side // 2 : 3 * side // 4, 5 * side // 8 : 7 * side // 8] = (40, 40, 220)
    return image


def timed(name: str, repeats: int, function: Callable[[], Result]) -> Result:
    """Calls it, prints the least times, gives its last result."""
    wall, processor = [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    print(f"{name:32}{min(wall):8.2f} s{min(processor):8.2f} s of processor")
    return result


def dense_vector(alike: np.ndarray) -> np.ndarray:
    """The same eigenvector by a dense solver."""
    weights = np.where(alike, 1.0, WEAK)
    degrees = weights.sum(1)
    problem = np.diag(degrees) - weights
    vector: np.ndarray = scipy.linalg.eigh(problem, np.diag(degrees), subset_by_index=[1, 1])[1][:, 0]
    return vector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--architecture", default="dino_vitb8")
    parser.add_argument("--side", type=int, default=480)
    parser.add_argument("--tau", type=float, default=0.15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dense", action="store_true")
    chosen = parser.parse_args()
    side = chosen.side
    image = squares(side) if chosen.image is None else cv2.resize(read_rgb(chosen.image), (side, side))
    backbone = random_backbone(chosen.architecture, 0)
    batch = torch.from_numpy(normalised(image))[None]
    with torch.no_grad():
        keys = timed("keys", chosen.repeats, lambda: backbone.keys(batch))[0].numpy()
    # Random weights make all keys much alike; without their mean they differ as trained ones do.
    keys = keys - keys.mean((1, 2), keepdims=True)
    flat = keys.reshape(len(keys), -1).T
    alike = timed("likeness", chosen.repeats, lambda: similar(flat, chosen.tau))
    print(f"  {len(alike)} cells, {alike.mean():.0%} of the pairs alike")
    vector = timed("eigenvector", chosen.repeats, lambda: second_vector(alike))
    found = timed("three objects", chosen.repeats, lambda: find_objects(keys, chosen.tau, 3))
    print(f"  {len(found)} found, of {', '.join(f'{mask.mean():.1%}' for mask in found)} of the cells")
    cut = cv2.resize(found[0].astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
    refine(image, cut)  # compiles
    timed("dense CRF, one object", chosen.repeats, lambda: refine(image, cut))
    if chosen.dense:
        other = timed("eigenvector by a dense solver", 1, lambda: dense_vector(alike))
        print(f"  correlation of the two {abs(np.corrcoef(vector, other)[0, 1]):.9f}")


if __name__ == "__main__":
    main()
