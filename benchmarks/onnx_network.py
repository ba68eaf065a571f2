"""Time of an exported network in onnxruntime against torch, in one run.

python benchmarks/onnx_network.py [--preset paper] [--size 640 1280] [--objects 60] [--threads 2] [--repeats 5]

A random network on a random picture, with the score threshold at which torch finds so many objects (whether they are
right makes no difference to the work). The ways take turns, so that other load meets all of them; the least wall time
and, on one thread, the processor time are hardly touched by it. (Several threads of onnxruntime wait busily, and that
counts as processor time.)
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import torch

from cupola.export.comparison import compare, open_session, run_session
from cupola.export.graph import build_model
from cupola.models import PRESETS, PanopticNetwork

THINGS, STUFF = (22, 23, 24, 25, 26), tuple(range(22))


def picture(height: int, width: int) -> np.ndarray:
    """Patches of 16 px with noise on them."""
    generator = np.random.default_rng(0)
    patches = generator.integers(0, 200, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    patches = patches.repeat(16, 0).repeat(16, 1)[:height, :width]
    return patches + generator.integers(0, 56, patches.shape, np.uint8)


def seconds(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) of each way, after one call to warm up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way()
            if repeat:
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 1280), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = PanopticNetwork(PRESETS[options.preset](), len(THINGS), len(STUFF)).eval()
    image = picture(*options.size)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    scores = network.predict([tensor], score_threshold=0.0)[0].scores
    threshold = float(scores[min(options.objects, len(scores) - 1)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        start = time.perf_counter()
        onnx_ir.save(build_model(network, THINGS, STUFF, 0.5, {}), path)
        exported = time.perf_counter() - start
        session = open_session(path, options.threads)
        size = path.stat().st_size
    print(
        f"{platform.machine()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {options.threads} "
        f"threads; {options.preset}, {options.size[0]} x {options.size[1]}; exported in {exported:.1f} s, "
        f"{size / 1e6:.0f} MB"
    )

    def in_bfloat16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return network.predict([tensor], score_threshold=threshold)

    ways = {
        "torch float32": lambda: network.predict([tensor], score_threshold=threshold),
        "torch bfloat16": in_bfloat16,
        "onnxruntime float32": lambda: run_session(session, image, threshold),
    }
    taken = seconds(ways, options.repeats)
    print(f"{'[s]':24}{'median':>9}{'least':>9}{'processor':>11}{'times as fast: least':>24}{'processor':>11}")
    first = None
    for name, values in taken.items():
        wall, processor = zip(*values, strict=True)
        least = min(wall), min(processor)
        first = first or least
        ratios = f"{first[0] / least[0]:24.2f}{first[1] / least[1]:11.2f}"
        print(f"{name:24}{statistics.median(wall):9.3f}{least[0]:9.3f}{least[1]:11.3f}{ratios}")
    print(compare(network, session, image, threshold, THINGS, STUFF))
    print(f"{len(run_session(session, image, threshold)['scores'])} objects")


if __name__ == "__main__":
    main()
