"""Time and peak memory of DepthG's inference at two scales, beside the published way.

    python benchmarks/depthg.py [--ways ours half published] [--threads 2] [--size 640 1280] [--repeats 1]

A ViT-B/8 of random weights, one image, no CRF. Each way runs in a process of its own, so that its peak memory is its
own. `ours` and `published` look at the same windows (half the height, square) and are compared with each other; `half`
is our default, fewer windows of half the width. The published way, written anew here: all windows in one batch,
attention with its matrices written out, the image and the mirrored one in two passes. Times include no loading.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

WAYS = ("ours", "half", "published")
CLASSES, CODE_CHANNELS = 27, 100
MEGABYTE = 1024.0
"""Of the kilobytes that Linux tells."""


def published_scores(network, image, weight):
    """The two-scale scores as the published code orders its work (spec-stage1 5.2)."""
    import torch
    from torch.nn import functional

    from cupola.semantics.backbones import normalised

    for block in network.backbone.network.blocks:
        block.attn.fused_attn = False

    def scores(images, size):
        code = network.head(network.backbone(images))
        return network.probe.log_probabilities(functional.interpolate(code, size, mode="bilinear"))

    whole = torch.from_numpy(normalised(image))[None]
    height, width = whole.shape[-2:]
    small = functional.interpolate(whole, (height // 2, width // 2), mode="bilinear")
    code, mirrored = (network.head(network.backbone(images)) for images in (small, small.flip(-1)))
    code = functional.interpolate((code + mirrored.flip(-1)) / 2, (height, width), mode="bilinear")
    low = network.probe.log_probabilities(code)
    side, step = height // 2, height // 4
    crops = functional.unfold(whole, side, stride=step)[0].T.reshape(-1, 3, side, side)
    parts = scores(crops, (side, side)).flatten(1).T[None]
    high = functional.fold(parts, (height, width), side, stride=step)
    high /= functional.fold(torch.ones(1, side * side, len(crops)), (height, width), side, stride=step)
    share = torch.from_numpy(weight)
    return (share * low + (1 - share) * high)[0].softmax(0).numpy()


def run(way: str, size: tuple[int, int], repeats: int) -> None:
    """Prints seconds by the clock and of processors, the peak memory before and after [MB], and some of the result, as
    JSON."""
    import torch

    from cupola.semantics.backbones import random_backbone
    from cupola.semantics.depthg.checkpoint import Depthg
    from cupola.semantics.depthg.head import ClusterProbe, DepthgHead
    from cupola.semantics.depthg.inference import predict
    from cupola.semantics.depthg.settings import DepthgSettings

    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    backbone = random_backbone("dino_vitb8", 0)
    network = Depthg(backbone, DepthgHead(backbone.channels, CODE_CHANNELS), ClusterProbe(CLASSES, CODE_CHANNELS), {})
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    weight = rng.random(size, dtype=np.float32)
    settings = DepthgSettings(Path(), window="half" if way == "half" else "square", form="published")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    seconds, processor = [], time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        if way == "published":
            scores = published_scores(network, image, weight)
        else:
            scores = predict(network, image, weight, settings)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    processor = (time.process_time() - processor) / repeats
    corner = scores[:4, ::97, ::89].tolist()
    print(json.dumps({"seconds": seconds, "processor": processor, "before": before, "peak": peak, "corner": corner}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[640, 1280])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, tuple(arguments.size), arguments.repeats)
        return
    import torch

    print(f"{platform.machine()}, torch {torch.__version__}, {arguments.threads} threads, {arguments.size} px")
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "MKL_NUM_THREADS": str(arguments.threads)}
    corners = {}
    for way in arguments.ways:
        line = [sys.executable, __file__, "--run", way, "--repeats", str(arguments.repeats), "--size"]
        done = subprocess.run([*line, *map(str, arguments.size)], env=environment, stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        corners[way] = np.array(found["corner"])
        seconds = found["seconds"]
        print(
            f"{way:10}{median(seconds):8.1f} s ({min(seconds):.1f} .. {max(seconds):.1f})"
            f"{found['processor']:10.1f} s of processors"
            f"   peak {found['peak']:6.0f} MB ({found['before']:.0f} before)",
            flush=True,
        )
    if {"ours", "published"} <= corners.keys():
        print(f"largest difference of a probability: {np.abs(corners['ours'] - corners['published']).max():.1e}")


if __name__ == "__main__":
    main()
