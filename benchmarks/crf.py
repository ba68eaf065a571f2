"""Time of the dense CRF, beside pydensecrf where it can be imported.

    python benchmarks/crf.py [IMAGE] [--size 640 1280] [--classes 27] [--steps 10] [--repeats 3]

Without an image: white noise, the worst case. Wall and processor time, least of the repeats after one to warm up; the
ratio is what to quote. NUMBA_NUM_THREADS sets the threads. Install pydensecrf2 for the comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numba import config

from cupola.semantics.crf import CrfSettings, dense_crf


def least_time(function: Callable[[], np.ndarray], repeats: int) -> tuple[float, float, np.ndarray]:
    """Wall and processor seconds, and the result."""
    result, wall, processor = function(), [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return min(wall), min(processor), result


def reference(image: np.ndarray, probabilities: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """The same by pydensecrf."""
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = probabilities.shape
    unary = -np.log(np.clip(probabilities, np.float32(settings.smallest_probability), np.float32(1)))
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1)))
    crf.addPairwiseGaussian(sxy=settings.spatial_sigma, compat=settings.spatial_weight)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_sigma, srgb=settings.colour_sigma, rgbim=image, compat=settings.bilateral_weight
    )
    return np.array(crf.inference(settings.steps)).reshape(probabilities.shape)


def flat_probabilities(rng: np.random.Generator, classes: int, height: int, width: int) -> np.ndarray:
    """Softmax of 2 cos-like scores on an eighth of the size: as unsure as the cluster probe."""
    rough = rng.uniform(-1, 1, (classes, height // 8, width // 8)).astype(np.float32)
    scores = np.stack([cv2.resize(plane, (width, height)) for plane in rough])
    powers = np.exp(2 * scores)
    return powers / powers.sum(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 1280))
    parser.add_argument("--classes", type=int, default=27)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    height, width = arguments.size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if arguments.image:
        image = cv2.resize(cv2.imread(str(arguments.image)), (width, height), interpolation=cv2.INTER_AREA)
    probabilities = flat_probabilities(rng, arguments.classes, height, width)
    settings = CrfSettings(steps=arguments.steps)
    print(f"{height}x{width}, {arguments.classes} classes, {arguments.steps} steps, {config.NUMBA_NUM_THREADS} threads")
    print(f"{'':12}{'wall':>8}{'CPU':>8}")
    wall, processor, ours = least_time(lambda: dense_crf(image, probabilities, settings), arguments.repeats)
    print(f"{'cupola':12}{wall:8.2f}{processor:8.2f} s")
    if importlib.util.find_spec("pydensecrf"):
        other, used, theirs = least_time(lambda: reference(image, probabilities, settings), arguments.repeats)
        print(f"{'pydensecrf':12}{other:8.2f}{used:8.2f} s")
        equal = (ours.argmax(axis=0) == theirs.argmax(axis=0)).mean()
        print(f"ratio {other / wall:.2f} (wall), {used / processor:.2f} (CPU); labels equal on {100 * equal:.4f} %")


if __name__ == "__main__":
    main()
