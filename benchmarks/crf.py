"""Time and memory of the dense CRF, beside pydensecrf where it can be imported.

    python benchmarks/crf.py [IMAGE] [--size 640 1280] [--classes 27] [--steps 10] [--rounds 3] [--calls 2]

Without an image: white noise, the worst case. Wall and processor time (all threads), least of all calls after one to
warm up. In each round the two come in turn, each with so many calls in a row, as on the frames of a video: memory that
the other one has just given back is slow to get in a virtual machine, which only the first call in a row pays. The
ratio is what to quote, with the load average beside it. Memory is the peak above what was held before the call, the
result included (Linux only). NUMBA_NUM_THREADS sets the threads. Install pydensecrf2 for the comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numba import config

from cupola.io import read_rgb
from cupola.semantics.crf import CrfSettings, dense_crf


@dataclass
class Cost:
    """Least of all calls: wall and processor time [s], peak of memory above what was held before [MB]."""

    wall: float = math.inf
    processor: float = math.inf
    memory: float = math.inf

    def __str__(self) -> str:
        return f"{self.wall:8.2f}{self.processor:8.2f} s{self.memory:8.0f} MB"


def held(entry: str) -> float:
    """An entry of the process's status [MB], NaN where the system has none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(entry)), math.nan)


def measure(function: Callable[[], np.ndarray], cost: Cost) -> None:
    """Calls it once and lowers `cost`."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")  # the peak so far (man 5 proc)
    before, start, start_processor = held("VmRSS"), time.perf_counter(), time.process_time()
    function()
    cost.wall = min(cost.wall, time.perf_counter() - start)
    cost.processor = min(cost.processor, time.process_time() - start_processor)
    cost.memory = min(cost.memory, held("VmHWM") - before)


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=2)
    arguments = parser.parse_args()
    height, width = arguments.size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if arguments.image:
        image = cv2.resize(read_rgb(arguments.image), (width, height), interpolation=cv2.INTER_AREA)
    probabilities = flat_probabilities(rng, arguments.classes, height, width)
    settings = CrfSettings(steps=arguments.steps)
    print(f"{height}x{width}, {arguments.classes} classes, {arguments.steps} steps, {config.NUMBA_NUM_THREADS} threads")
    print(f"{'':12}{'wall':>8}{'CPU':>8}{'memory':>10}")
    runs = {"cupola": lambda: dense_crf(image, probabilities, settings)}
    if importlib.util.find_spec("pydensecrf"):
        runs["pydensecrf"] = lambda: reference(image, probabilities, settings)
    results = {name: run().argmax(axis=0) for name, run in runs.items()}
    costs = {name: Cost() for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            for _ in range(arguments.calls):
                measure(run, costs[name])
    for name, cost in costs.items():
        print(f"{name:12}{cost}")
    print("load average at the end: {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    if len(runs) > 1:
        ours, other = costs.values()
        equal = np.mean(results["cupola"] == results["pydensecrf"])
        print(
            f"ratio {other.wall / ours.wall:.2f} (wall), {other.processor / ours.processor:.2f} (CPU); "
            f"labels equal on {100 * equal:.4f} %"
        )


if __name__ == "__main__":
    main()
