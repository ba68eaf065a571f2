"""Time and memory of the network, part by part. Beside torchvision's network: network_torchvision.py.

python benchmarks/network.py [--preset small] [--sizes 192x384 320x640 512x1024 640x1280] [--threads 2] [--repeats 3]
python benchmarks/network.py step [--preset small] [--sizes 192x384] [--batches 4] [--precision float32]

The first prints, as a Markdown table, the time of each part of a prediction and the peak memory, at batches of 1 and 4
and four sizes, each measured in a process of its own: least processor milliseconds an image, which other load hardly
touches, then the least wall time, and the memory beyond the imports. Where there is a GPU, images a second on it
follow.
The second prints the parts of a training step too, medians over the repeats.

Images are random, with six objects and an ignored strip; networks are untrained. The work does not depend on what they
have learnt, except that NMS and sampling see the proposals of an untrained network. The score that a detection needs in
the table is set so low that `FOUND` objects, as many as an image may have, are found in each.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cupola.models import PRESETS, PanopticNetwork, Target, boxes_of_masks
from cupola.models.boxes import integral_image, one_each
from cupola.models.fusion import fused
from cupola.models.layers import upsample
from cupola.models.merge import MergeLimits
from cupola.models.panoptic import assembled, resized, size_to_predict
from cupola.models.semantic_head import STRIDE

THINGS, STUFF, OBJECTS = 3, 12, 6
SCORE = 0.5
"""Least score of a detection."""

FAINT = 0.5 / (THINGS + 1)
"""Score that an untrained network gives to more objects than `FOUND`."""

FOUND = 100
"""Detections of an image at the score `FAINT`: all that the presets keep."""


class Clock:
    """Seconds of named parts, a list of (wall, processor) each; the second is hardly touched by other load."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[part].append((time.perf_counter() - wall, time.process_time() - processor))

    def show(self, title: str) -> None:
        print(f"\n{title + ' [ms]':36}{'wall':>9}{'(least)':>10}{'processor':>11}")
        rows = {}
        for part, seconds in self.seconds.items():
            wall, processor = zip(*seconds, strict=True)
            rows[part] = [
                1000 * f(v) for f, v in ((statistics.median, wall), (min, wall), (statistics.median, processor))
            ]
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
        for part, (median, least, processor) in rows.items():
            print(f"  {part:34}{median:9.1f}{least:10.1f}{processor:11.1f}")


def example(height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Target]:
    """Noise with bright boxes as objects."""
    image = torch.rand(3, height, width, generator=generator) * 0.5
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
    for mask in masks:
        h, w = (int(torch.randint(height // 12, height // 3, (1,), generator=generator)) for _ in range(2))
        y = int(torch.randint(0, height - h, (1,), generator=generator))
        x = int(torch.randint(0, width - w, (1,), generator=generator))
        mask[y : y + h, x : x + w] = True
        image[:, mask] += torch.rand(3, 1, generator=generator) * 0.5
    semantic = torch.randint(1, STUFF + 1, (height // 8, width // 8), generator=generator)
    semantic = semantic.repeat_interleave(8, 0).repeat_interleave(8, 1)
    semantic[masks.any(0)] = 0
    ignore = torch.zeros(height, width, dtype=torch.bool)
    ignore[height // 2 :, : width // 10] = True
    classes = torch.randint(0, THINGS, (OBJECTS,), generator=generator)
    return image, Target(semantic, masks, boxes_of_masks(masks), classes, ignore)


def training_step(
    network: PanopticNetwork,
    optimiser: torch.optim.Optimizer,
    images: list[Tensor],
    targets: list[Target],
    generator: torch.Generator,
    precision: torch.dtype,
    clock: Clock,
) -> None:
    """The same calls as `PanopticNetwork.losses`, timed one by one."""
    generators = one_each(generator, len(images))
    rpn, heads, settings = network.proposal_generator, network.roi_heads, network.settings
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        with clock("batch"):
            batch = network.batch(images)
        with clock("trunk"):
            trunk = network.backbone.bottom_up(batch)
        with clock("pyramid"):
            features = network.backbone.pyramid(trunk)
        with clock("semantic head and loss"):
            losses = {"semantic": network.semantic_loss(features, targets, generators)}
        with clock("RPN head"):
            anchors = rpn.anchors(features)
            logits, deltas = rpn.rpn_head(features)
        with clock("anchor matching, RPN loss"):
            integrals: list[Tensor | None] = [integral_image(target.ignore) for target in targets]
            losses |= rpn.losses(anchors, logits, deltas, targets, integrals, settings.negatives, generators)
        with clock("proposals (NMS)"):
            boxes = [box for box, _ in rpn.proposals(anchors, logits, deltas, sizes)]
        with clock("region matching"):
            regions = [
                heads.sampled(box, target, integral, source)
                for box, target, integral, source in zip(boxes, targets, integrals, generators, strict=True)
            ]
        with clock("mask head and loss"):
            losses |= heads.mask_losses(features, regions, targets)
        with clock("box heads and losses"):
            losses |= heads.cascade_losses(features, regions, targets, sizes, integrals)
    with clock("backward"):
        torch.stack([part.mean for part in losses.values()]).sum().backward()
    with clock("clip and optimiser"):
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def inference(
    network: PanopticNetwork, images: list[Tensor], precision: torch.dtype, clock: Clock, score: float = SCORE
) -> int:
    """The same calls as `PanopticNetwork.predict`, timed one by one; returns the number of detections."""
    rpn, heads = network.proposal_generator, network.roi_heads
    outputs = [(image.shape[1], image.shape[2]) for image in images]
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        with clock("batch"):
            images = [resized(image, size_to_predict(image, network.settings.rows)) for image in images]
            sizes = [(image.shape[1], image.shape[2]) for image in images]
            batch = network.batch(images)
        with clock("trunk"):
            trunk = network.backbone.bottom_up(batch)
        with clock("pyramid"):
            features = network.backbone.pyramid(trunk)
        with clock("semantic head"):
            semantic = network.sem_seg_head(features).float()
        with clock("RPN head"):
            anchors = rpn.anchors(features)
            logits, deltas = rpn.rpn_head(features)
        with clock("proposals (NMS)"):
            boxes = [box for box, _ in rpn.proposals(anchors, logits, deltas, sizes)]
        with clock("box heads and detections"):
            found = heads.detect(features, boxes, sizes, score)
        with clock("mask head"):
            masks = heads.mask_probabilities(features, [f.boxes for f in found], [f.classes for f in found])
        with clock("enlarging, pasting, merge"):
            limits = MergeLimits.of(network.settings.merge, score, None, None, None)
            for number, ((height, width), output) in enumerate(zip(sizes, outputs, strict=True)):
                logits_of = upsample(semantic[number, None], STRIDE)[0, :, :height, :width]
                assembled(resized(logits_of, output), found[number], masks[number], sizes[number], limits)
    return sum(len(objects) for objects in found)


# ---- the table: each column in a process of its own


def resident(field: str) -> float:
    """Memory of this process [MiB]: `VmRSS` = now, `VmHWM` = the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def restart_peak() -> None:
    """The peak starts anew, with what is in use (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def column(options: argparse.Namespace) -> dict[str, float]:
    """Rows of one column: [ms] an image of each part, of all of them, of a prediction by the clock; peak memory [MiB].
    Or images a second on a GPU."""
    (size,), (batch,) = options.sizes, options.batches
    generator = torch.Generator().manual_seed(0)
    before = resident("VmRSS")
    torch.manual_seed(0)
    network = fused(PanopticNetwork(PRESETS[options.preset](), THINGS, STUFF).to(options.device))
    images = [example(*size, generator)[0].to(options.device) for _ in range(batch)]
    if options.device == "cuda":
        return gpu_rates(network, images, options.repeats)
    restart_peak()
    least = [float("inf")]
    for repeat in range(options.repeats + 1):  # one to warm up
        start = time.perf_counter()
        network.predict(images, score_threshold=FAINT)
        least += [time.perf_counter() - start] if repeat else []
    peak = resident("VmHWM") - before
    clock = Clock()
    for _ in range(options.repeats):
        found = inference(network, images, torch.float32, clock, FAINT)
    assert found == FOUND * batch, f"{found} objects instead of {FOUND * batch}"
    rows = {part: 1000 / batch * min(p for _, p in seconds) for part, seconds in clock.seconds.items()}
    return {**rows, "all parts": sum(rows.values()), "wall": 1000 / batch * min(least), "peak memory [MiB]": peak}


def gpu_rates(network: PanopticNetwork, images: list[Tensor], repeats: int) -> dict[str, float]:
    """Images a second in float32, bfloat16, and with a compiled backbone."""
    half = fused(network, torch.bfloat16)
    compiled = fused(network, torch.bfloat16)
    compiled.backbone.compile(dynamic=False)
    rates = {}
    for name, which in (("float32", network), ("bfloat16", half), ("compiled", compiled)):
        seconds = []
        for _ in range(repeats + 2):  # two to warm up
            torch.cuda.synchronize()
            start = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16, enabled=name != "float32"):
                which.predict(images, score_threshold=FAINT)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        rates[f"GPU, {name} [images/s]"] = len(images) / min(seconds[2:])
    return rates


def table(options: argparse.Namespace) -> None:
    """Prints the columns of all sizes and batches side by side, as Markdown."""
    columns: dict[str, dict[str, float]] = {}
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for height, width in options.sizes:
        for batch in options.batches:
            rows = columns.setdefault(f"{height}x{width}, {batch}", {})
            for device in devices:
                command = [sys.executable, __file__, "column", "--preset", options.preset, "--device", device]
                command += ["--sizes", f"{height}x{width}", "--batches", str(batch)]
                command += ["--threads", str(options.threads), "--repeats", str(options.repeats)]
                lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
                rows |= json.loads(lines[-1])
    print(f"\n| size, batch | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for part in next(iter(columns.values())):
        print(
            f"| {part} | {' | '.join(f'{rows[part]:.{0 if rows[part] >= 100 else 1}f}' for rows in columns.values())} |"
        )
    if len(devices) == 1:
        print("\nThere is no usable GPU here, so no images a second on one.")


def side_by_side(text: str) -> tuple[int, int]:
    """640x1280 as (640, 1280)."""
    height, width = text.split("x")
    return int(height), int(width)


def step(options: argparse.Namespace) -> None:
    """Prints the parts of a training step and of a prediction."""
    size, batch = options.sizes[0], options.batches[-1]
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = PanopticNetwork(PRESETS[options.preset](), THINGS, STUFF).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    images, targets = zip(*[example(*size, generator) for _ in range(batch)], strict=True)
    precision = getattr(torch, options.precision)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters, {batch} x {size[0]} x {size[1]}")
    clock = Clock()
    for repeat in range(options.repeats + 3):  # three to warm up
        if repeat == 3:
            clock = Clock()
        training_step(network, optimiser, list(images), list(targets), generator, precision, clock)
    clock.show("training step")
    fast = fused(network, precision)
    for repeat in range(options.repeats + 1):  # one to warm up
        if repeat < 2:
            clock = Clock()
        found = inference(fast, list(images), precision, clock)
    clock.show(f"inference, whole batch ({found} detections)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "step", "column"), nargs="?", default="table")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "mask2former"], default="small")
    parser.add_argument("--sizes", type=side_by_side, nargs="+", metavar="HEIGHTxWIDTH")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of a column")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    whole = options.what == "table"
    options.sizes = options.sizes or ([(192, 384), (320, 640), (512, 1024), (640, 1280)] if whole else [(192, 384)])
    options.batches = options.batches or ([1, 4] if whole else [4])
    if options.what == "column":
        print(json.dumps(column(options)))
        return
    print(
        f"{platform.machine()}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{options.threads} threads; {options.preset}"
    )
    (table if whole else step)(options)


if __name__ == "__main__":
    main()
