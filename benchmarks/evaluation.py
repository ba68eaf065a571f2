"""Time of scoring one panoptic map, against plain mask arithmetic and, where installed, torchmetrics.

python benchmarks/evaluation.py [--size 512 1024] [--segments 20] [--repeats 9] [--json FILE]

All score the same two maps: blobs of stuff with rectangles of things on them, the prediction shifted by a few pixels.
The results must agree before anything is timed. Warm-up first; medians of wall and processor time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cupola.diagnosis import installed_versions
from cupola.evaluation import PanopticQuality, contingency

STUFF, THINGS = 10, 5
IS_THING = np.arange(STUFF + THINGS) >= STUFF
SHIFT = 3
"""The prediction is the target moved by this many pixels."""


def maps(height: int, width: int, segments: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(prediction, target), H x W x 2, with about `segments` segments."""
    rng = np.random.default_rng(seed)
    target = np.zeros((height, width, 2), np.int32)
    target[..., 0] = (np.arange(height)[:, None] * STUFF // height + (rng.random((height, width)) < 0.001)) % STUFF
    for instance in range(1, segments - STUFF + 1):
        y, x = int(rng.integers(height * 3 // 4)), int(rng.integers(width * 3 // 4))
        h, w = (int(rng.integers(side // 16, side // 4)) for side in (height, width))
        target[y : y + h, x : x + w] = (rng.integers(STUFF, STUFF + THINGS), instance)
    return np.roll(target, SHIFT, 1), target


def by_masks(prediction: np.ndarray, target: np.ndarray) -> float:
    """Standard PQ from one mask a segment: the way one would write it down first."""

    def segments(image: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        instance = np.where(IS_THING[image[..., 0]], image[..., 1], 0)
        found = np.unique(np.stack([image[..., 0], instance], -1).reshape(-1, 2), axis=0)
        return {(int(c), int(i)): (image[..., 0] == c) & (instance == i) for c, i in found}

    predicted, true = segments(prediction), segments(target)
    iou, counts = np.zeros(len(IS_THING)), np.zeros(len(IS_THING))
    for c, _ in [*predicted, *true]:
        counts[c] += 0.5
    for (c, _), g in true.items():
        for (d, _), m in predicted.items():
            if c == d:
                share = (m & g).sum() / (m | g).sum()
                iou[c] += share * (share > 0.5)
    return float((iou[counts > 0] / counts[counts > 0]).mean())


def by_cupola(prediction: np.ndarray, target: np.ndarray) -> float:
    quality = PanopticQuality(IS_THING)
    quality.update(prediction, target)
    return quality.compute().all.pq


def torchmetrics_scorer() -> Callable[[np.ndarray, np.ndarray], float] | None:
    if importlib.util.find_spec("torchmetrics") is None:
        return None
    import torch
    from torchmetrics.detection import PanopticQuality as Reference

    def score(prediction: np.ndarray, target: np.ndarray) -> float:
        reference = Reference(things=set(range(STUFF, STUFF + THINGS)), stuffs=set(range(STUFF)))
        reference.update(torch.from_numpy(prediction)[None], torch.from_numpy(target)[None])
        return float(reference.compute())

    return score


def measure(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and least wall time and median processor time [ms], after one call to warm up."""
    work()
    wall, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - start[0]))
        processor.append(1000 * (time.process_time() - start[1]))
    return {"wall": statistics.median(wall), "least": min(wall), "processor": statistics.median(processor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--segments", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures, machine and versions here")
    options = parser.parse_args()
    prediction, target = maps(*options.size, options.segments, options.seed)
    table = contingency(prediction, target)
    print(
        f"{options.size[0]} x {options.size[1]} px, {len(np.unique(table.true, axis=0))} true segments, "
        f"{len(table.areas)} pairs of segments"
    )

    scorers: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"cupola": by_cupola, "mask by mask": by_masks}
    reference = torchmetrics_scorer()
    if reference is not None:
        scorers["torchmetrics"] = reference
    values = {name: score(prediction, target) for name, score in scorers.items()}
    if not np.allclose(list(values.values()), values["cupola"], atol=1e-6):
        raise SystemExit(f"the scorers disagree: {values}")

    print(f"PQ {values['cupola']:.4f} from all\n\n{'[ms]':30}{'wall':>9}{'(least)':>10}{'processor':>11}{'ratio':>8}")
    rows = {name: measure(lambda s=score: s(prediction, target), options.repeats) for name, score in scorers.items()}
    rows["cupola, table of pairs only"] = measure(lambda: contingency(prediction, target), options.repeats)
    for name, row in rows.items():
        ratio = row["processor"] / rows["cupola"]["processor"]
        print(f"{name:30}{row['wall']:9.1f}{row['least']:10.1f}{row['processor']:11.1f}{ratio:8.1f}")
    if options.json:
        machine = {"machine": platform.machine(), "system": platform.system(), "versions": installed_versions()}
        settings = {"size": list(options.size), "segments": options.segments, "repeats": options.repeats}
        options.json.write_text(
            json.dumps(machine | {"settings": settings | {"seed": options.seed}, "ms": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
