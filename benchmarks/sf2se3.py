"""SF2SE3 and its ensemble: where the time of one frame goes, and the most memory it takes.

    python benchmarks/sf2se3.py [DATA] [--layout auto] [--limit N] [--form paper] [--out DIR] [--seed 0]

Without DATA a made-up street of 640 x 1280 pixels with exact flow and disparity plus noise is cut into objects: the
size and the kind of frame of the published code's 115 to 353 s and 9.2 GB (../shared/parity/README-stage1.md). With
DATA its clips are, matched classically; DIR then gets one <key>.png a pair, the form that
../shared/tools/score_motion.py scores. Times are CPU seconds a frame, without compiling.
"""

from __future__ import annotations

import argparse
import resource
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cupola.correspondence import ClassicalCorrespondence
from cupola.data import open_dataset
from cupola.io import write_ids
from cupola.motion import Sf2se3Segmenter
from cupola.motion.sf2se3.labelling import label_pixels, moving_objects, separate
from cupola.motion.sf2se3.observation import observe
from cupola.motion.sf2se3.proposals import propose
from cupola.motion.sf2se3.segmenter import combine
from cupola.motion.sf2se3.single_run import find_objects
from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

RIG = Calibration(1414.0, 1414.0, 639.5, 320.0, 0.21)
"""Cityscapes at 640 x 1280."""

NOISE = 0.1
"""Standard deviation of flow and disparity [px]."""

HEIGHT, WIDTH = 640, 1280
BOXES = ((-9, 2, 14, 0.0, 0.9), (-4, 2, 22, 0.0, -1.6), (0.5, 2, 18, 0.7, 0.3), (4, 2, 12, 0.0, 0.0), (7, 2, 26, -1, 0))
"""Left edge, width, depth, sideways and forward motion [m] of the moving boxes."""


def smooth_noise(rng: np.random.Generator, *channels: int) -> np.ndarray:
    """Errors as networks make them, alike at neighbouring pixels: NOISE px, correlated over some 4 px."""
    values = [
        cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)), None, 4.0) for _ in range(int(np.prod(channels, dtype=int)))
    ]
    return NOISE * np.reshape(values, (*channels, HEIGHT, WIDTH)) / np.std(values)


def made_up_clip() -> tuple[StereoClip, Correspondence]:
    """A road, a wall and boxes, 0.9 m of driving between the frames; flow and disparity with noise."""
    rng = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    x, y = (columns - RIG.cx) / RIG.fx, (rows - RIG.cy) / RIG.fy
    depth = np.minimum(60.0, 1.3 / np.maximum(y, 1e-9))
    move = np.zeros((2, HEIGHT, WIDTH))
    for left, width, distance, sideways, forward in BOXES:
        hit = (abs(x * distance - left - width / 2) < width / 2) & (abs(y * distance - 0.5) < 0.8) & (distance < depth)
        depth[hit], move[:, hit] = distance, np.array([[sideways], [forward]])
    later = depth + move[1] - 0.9
    flow = np.stack(
        [RIG.fx * (x * depth + move[0]) / later + RIG.cx - columns, RIG.fy * y * depth / later + RIG.cy - rows]
    )
    flow = (flow + smooth_noise(rng, 2)).astype(np.float32)
    scale = RIG.fx * RIG.baseline
    disparity, moved = ((scale / z + smooth_noise(rng)).astype(np.float32) for z in (depth, later))
    # The second disparity map is made by carrying every pixel to its nearest target, near ones last.
    disparity_next, backward = np.full_like(disparity, np.nan), np.full_like(flow, np.nan)
    at = np.rint(np.stack([rows + flow[1], columns + flow[0]])).astype(int)
    inside = (at >= 0).all(0) & (at[0] < HEIGHT) & (at[1] < WIDTH)
    order = np.argsort(moved[inside])
    target = tuple(axis[inside][order] for axis in at)
    disparity_next[target], backward[:, *target] = moved[inside][order], -flow[:, inside][:, order]
    grey, valid = np.full((HEIGHT, WIDTH, 3), 128, np.uint8), np.ones((HEIGHT, WIDTH), bool)
    valid[-128:], valid[:32], valid[:, :60], valid[:, -60:] = False, False, False, False
    frame = StereoFrame(grey, grey, RIG, valid, "made_up")
    everywhere = np.ones_like(valid)
    return StereoClip(frame, frame), Correspondence(
        flow, backward, disparity, disparity_next, inside, everywhere, np.isfinite(disparity_next)
    )


def clips(arguments: argparse.Namespace) -> Iterator[tuple[StereoClip, Correspondence]]:
    """The clips to measure, the first twice: it compiles."""
    if arguments.data is None:
        pair = made_up_clip()
        yield from (pair, pair, pair, pair)
        return
    dataset, provider = open_dataset(arguments.data, arguments.layout), ClassicalCorrespondence()
    pairs = dataset.pairs()[: arguments.limit]
    for pair in (pairs[0], *pairs):
        clip = dataset.clip(pair)
        yield clip, provider(clip)


def measure(
    segmenter: Sf2se3Segmenter, clip: StereoClip, correspondence: Correspondence, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """CPU seconds of each step, and the id map; the same as `segmenter(clip, correspondence, seed)` does."""
    spent = dict.fromkeys(("scene flow", "objects", "labels", "tests", "parts", "ensemble"), 0.0)
    last = time.process_time()

    def lap(step: str) -> None:
        nonlocal last
        now = time.process_time()
        spent[step] += now - last
        last = now

    seen = observe(clip, correspondence, segmenter)
    lap("scene flow")
    runs = []
    for run in range(segmenter.runs):
        rng = np.random.default_rng([seed, zlib.crc32(clip.key.encode()), run])
        objects = find_objects(seen, segmenter, partial(propose, seen.low, settings=segmenter, rng=rng))
        lap("objects")
        labels, shares = label_pixels(seen, objects, segmenter)
        lap("labels")
        kept = moving_objects(seen, objects, labels, segmenter)
        lap("tests")
        runs.append(separate(labels, shares, objects.motions, kept, segmenter.min_component))
        lap("parts")
    instances = combine(runs, seen.full.points, segmenter)
    lap("ensemble")
    return spent, instances.id_map()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--form", choices=("paper", "published"), default="paper")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    segmenter = Sf2se3Segmenter(form=arguments.form)
    frames, objects, before = [], 0, peak()
    for number, (clip, correspondence) in enumerate(clips(arguments)):
        before = peak() if number == 0 else before
        spent, ids = measure(segmenter, clip, correspondence, arguments.seed)
        if number:
            frames.append(spent)
            objects += int(ids.max())
        if arguments.out:
            write_ids(arguments.out / f"{clip.key}.png", ids, 16)
    height, width = ids.shape
    print(f"{len(frames)} frames of {height}x{width}, {objects} objects; CPU seconds a frame, {segmenter.form}")
    print(f"{'':12}{'median':>8}{'worst':>8}")
    for step in (*frames[0], "all"):
        values = [sum(frame.values()) if step == "all" else frame[step] for frame in frames]
        print(f"{step:12}{np.median(values):8.3f}{max(values):8.3f}")
    print(f"peak memory {peak():.0f} MB, of which before the first frame {before:.0f} MB")


def peak() -> float:
    """Most memory this process had so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
