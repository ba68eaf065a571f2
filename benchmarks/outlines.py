"""What enlarging small images and drawing outlines anew bring and cost: moving objects of the rendered street.

    python benchmarks/outlines.py [--sequences 40] [--height 192] [--seed 7]

The numbers in `cupola.motion.outlines` were chosen on streets of seed 0, so others are measured.

For each form: moving things of at least 100 px that a mask covers at IoU > 0.5, by size and kind; masks on nothing that
moves; processor seconds a pair of frames, correspondence and motion together (the first street, which compiles, left
out).
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from cupola.correspondence import ClassicalCorrespondence
from cupola.data.synthetic import StreetTruth, street
from cupola.motion import EgoMotionSegmenter
from cupola.progress import progress
from cupola.pseudo_labels.detail import DetailSettings
from cupola.types import Instances, StereoClip

FORMS = {
    "as it is": DetailSettings(rows=0, outlines=False),
    "outlines": DetailSettings(rows=0, outlines=True),
    "enlarged": DetailSettings(rows=288, outlines=False),
    "both (default)": DetailSettings(rows=288, outlines=True),
    "enlarged twice, outlines": DetailSettings(rows=384, outlines=True),
}
PERSON, RIDER = 24, 25
SMALLEST, MIDDLE, LARGE = 100, 200, 1000
"""Bounds of the sizes [px]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=40)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    counts = {form: Counter[str]() for form in FORMS}
    seconds = dict.fromkeys(FORMS, 0.0)
    for number in progress(range(arguments.sequences), "outlines"):
        for clip, truth in pairs(arguments.seed, number, arguments.height):
            for form, detail in FORMS.items():
                start = time.process_time()
                found = find(clip, detail)
                seconds[form] += (time.process_time() - start) * (number > 0)
                counts[form].update(judge(found, truth))
    kinds = sorted(kind for kind in counts["as it is"] if kind.startswith("true "))
    for form, count in counts.items():
        shares = [f"{kind[5:]} {count['found ' + kind[5:]]}/{count[kind]}" for kind in kinds]
        spent = seconds[form] / max(1, 2 * (arguments.sequences - 1))
        print(f"{form:25} {spent:.2f} s  false {count['false']}  {', '.join(shares)}")


def pairs(seed: int, number: int, height: int) -> Iterator[tuple[StereoClip, StreetTruth]]:
    """The two pairs of a video of three frames, with the truth of the first frame of each."""
    frames = list(street(seed, number, 3, height, 2 * height))
    for (first, truth), (second, _) in pairwise(frames):
        yield StereoClip(first, second), truth


def find(clip: StereoClip, detail: DetailSettings) -> Instances:
    seen = detail.enlarged(clip)
    return detail.finished(EgoMotionSegmenter()(seen, ClassicalCorrespondence()(seen), 0), clip.first)


def judge(found: Instances, truth: StreetTruth) -> Iterator[str]:
    """What to count: `true KIND`, `found KIND` and `false`."""
    ids, explained = found.id_map(), set()
    for instance in truth.moving:
        mask = truth.instances == instance
        area = int(mask.sum())
        under, pixels = np.unique(ids[mask], return_counts=True)
        explained |= {int(i) for i, n in zip(under, pixels, strict=True) if n > 0.3 * (ids == i).sum()}
        if area < SMALLEST:
            continue
        who = "people" if instance // 1000 in (PERSON, RIDER) else "vehicles"
        size = "small" if area < MIDDLE else "middle" if area < LARGE else "large"
        best = max((n / (area + (ids == i).sum() - n) for i, n in zip(under, pixels, strict=True) if i), default=0.0)
        for kind in ("all", f"{size} {who}"):
            yield f"true {kind}"
            if best > 0.5:
                yield f"found {kind}"
    yield from ("false" for i in np.unique(ids[ids > 0]) if int(i) not in explained)


if __name__ == "__main__":
    main()
