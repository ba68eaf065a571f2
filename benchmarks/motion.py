"""Moving objects of a data set: writes id maps and prints where the time goes.

    python benchmarks/motion.py DATA --out DIR [--layout auto] [--limit N] [--every N] [--seed 0]

DIR gets one <key>.png a pair (16 bit, 0 = no object), the form that ../shared/tools/score_motion.py scores. Times are
seconds of this process's own thread (CPU) and of the clock, median and worst over the pairs; the first pair is left out
(it compiles).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from cupola.correspondence import ClassicalCorrespondence
from cupola.data import open_dataset
from cupola.io import write_ids
from cupola.motion import EgoMotionSegmenter
from cupola.progress import progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.data, arguments.layout)
    provider, segmenter = ClassicalCorrespondence(), EgoMotionSegmenter()
    times: dict[str, list[tuple[float, float]]] = {"disparity": [], "flow": [], "motion": []}
    objects = 0
    for pair in progress(dataset.pairs()[:: arguments.every][: arguments.limit], "motion"):
        clip = dataset.clip(pair)
        start = now()
        provider.disparity(clip.first)
        provider.disparity(clip.second)
        middle = now()
        correspondence = provider(clip)
        matched = now()
        instances = segmenter(clip, correspondence, arguments.seed)
        end = now()
        objects += len(instances)
        disparity = middle - start
        times["disparity"].append(tuple(disparity))
        times["flow"].append(tuple(matched - middle - disparity))
        times["motion"].append(tuple(end - matched))
        write_ids(arguments.out / f"{clip.key}.png", instances.id_map(), 16)
    report(times, objects)


def now() -> np.ndarray:
    """(CPU time of this thread, clock) [s]."""
    return np.array([time.thread_time(), time.perf_counter()])


def report(times: dict[str, list[tuple[float, float]]], objects: int) -> None:
    """Prints seconds a pair by part."""
    table = {name: np.array(values[1:] or values) for name, values in times.items()}
    table["all"] = np.sum(list(table.values()), axis=0)
    print(f"{len(times['motion'])} pairs, {objects} objects; seconds a pair")
    print(f"{'':10}{'CPU median':>12}{'worst':>9}{'clock median':>14}{'worst':>9}")
    for name, values in table.items():
        cpu, clock = values[:, 0], values[:, 1]
        print(f"{name:10}{np.median(cpu):12.3f}{cpu.max():9.3f}{np.median(clock):14.3f}{clock.max():9.3f}")


if __name__ == "__main__":
    main()
