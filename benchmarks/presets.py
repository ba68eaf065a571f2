"""Parameters, time and memory of every preset, as rows of a Markdown table.

python benchmarks/presets.py [--size 640 1280] [--crop 256 512] [--batch 4] [--threads 2] [--repeats 3] [PRESET ...]

Each preset runs in a process of its own: prediction of one image, then training steps (losses, gradient, clipping,
AdamW) on a batch, of the images of benchmarks/network.py, on an untrained network. Times are least ones after a call to
warm up: wall, and processor (which is hardly touched by other load). Memory is the largest resident one of the process,
less what it held before there was a network.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from network import STUFF, THINGS, example

from cupola.models import PRESETS, build_network

GIB = 2**20
"""Kibibytes, in which Linux tells the memory of a process."""


def least(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall and processor seconds of a call, after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        seconds.append((time.perf_counter() - wall, time.process_time() - processor))
    walls, processors = zip(*seconds[1:], strict=True)
    return min(walls), min(processors)


def peak() -> float:
    """Largest resident memory so far [GiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB


def row(preset: str, options: argparse.Namespace) -> str:
    """One preset's row of the table."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    image, _ = example(*options.size, generator)
    images, targets = zip(*[example(*options.crop, generator) for _ in range(options.batch)], strict=True)
    before = peak()
    network = build_network(PRESETS[preset](), THINGS, STUFF)
    count = sum(p.numel() for p in network.parameters())
    predicting = least(lambda: network.predict([image]), options.repeats)
    predicted = peak() - before
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step() -> None:
        torch.stack(list(network.losses(images, targets, generator).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    network.train()
    training = least(step, options.repeats)
    return (
        f"| `{preset}` | {count / 1e6:.1f} | {predicting[0]:.2f} | {predicting[1]:.2f} | {predicted:.1f} "
        f"| {training[0]:.1f} | {training[1]:.1f} | {peak() - before:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 1280), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--crop", type=int, nargs=2, default=(256, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--row", action="store_true", help="only the row of one preset")
    options = parser.parse_args()
    if options.row:
        print(row(options.presets[0], options), flush=True)
        return
    print(
        f"{platform.machine()}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{options.threads} threads; one image of {options.size[0]} x {options.size[1]}, "
        f"steps of {options.batch} x {options.crop[0]} x {options.crop[1]}\n"
    )
    print(
        "| preset | parameters [M] | image, wall [s] | processor [s] | memory [GiB] "
        "| step, wall [s] | processor [s] | memory [GiB] |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    arguments = [a for a in sys.argv[1:] if a not in options.presets]
    for preset in options.presets:
        subprocess.run([sys.executable, __file__, *arguments, "--row", "--", preset], check=True)


if __name__ == "__main__":
    main()
