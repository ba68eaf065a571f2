"""Time of the offline semantics by part, and the score of a set.

    python benchmarks/semantics.py DATA [--frames 9] [--seed 0] [--score kitti15_stereo|kitti_odometry]

The time is processor time of one thread. The score is what ../shared/tools/score_semantics.py prints for the maps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import cv2
import numpy as np

from cupola import semantic_maps
from cupola.correspondence import ClassicalCorrespondence
from cupola.data import StereoDataset, open_dataset
from cupola.semantics import OfflineSemantics
from cupola.semantics.channels import frame_scale, stereo_channels, superpixel_features
from cupola.semantics.superpixels import slic

SCORER = Path(__file__).parents[2] / "shared" / "tools" / "score_semantics.py"


class Parts:
    """Processor seconds of each part, frame by frame."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name].append(time.process_time() - start)


def measure(dataset: StereoDataset, count: int, seed: int) -> Parts:
    """Times each part on `count` frames after one to warm up."""
    parts, correspondence, settings = Parts(), ClassicalCorrespondence(), OfflineSemantics()
    described = []
    for record in (dataset.records[0], *dataset.records[:count]):
        frame = dataset.frame(record)
        with parts.part("disparity"):
            disparity, valid = correspondence.disparity(frame)
        with parts.part("channels"):
            channels = stereo_channels(frame, disparity, valid, seed)
        with parts.part("superpixels"):
            superpixels = slic(superpixel_features(frame, channels), frame_scale(frame.size[0]))
        with parts.part("averages"):
            superpixels.means(channels, frame.valid)
            superpixels.neighbours()
        described.append(settings.describe(frame, disparity, valid, seed))
    with parts.part("clustering (all frames)"):
        model = settings.fit_described(described[1:], seed)
    for record in dataset.records[:count]:
        frame = dataset.frame(record)
        disparity, valid = correspondence.disparity(frame)
        with parts.part("prediction (all but disparity)"):
            model(frame, disparity, valid)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", choices=["kitti15_stereo", "kitti_odometry"])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    dataset = open_dataset(arguments.data)
    parts = measure(dataset, arguments.frames, arguments.seed)
    print(f"{dataset.frame(dataset.records[0]).size} px, numpy {np.__version__}, OpenCV {cv2.__version__}")
    for name, seconds in parts.seconds.items():
        used = seconds[1:] or seconds
        print(f"{name:32}{1000 * median(used):8.0f} ms  ({1000 * min(used):.0f} .. {1000 * max(used):.0f})")
    if arguments.score:
        with tempfile.TemporaryDirectory() as folder:
            semantic_maps(arguments.data, out=Path(folder), seed=arguments.seed)
            subprocess.run([sys.executable, str(SCORER), folder, "--set", arguments.score], check=True)


if __name__ == "__main__":
    main()
