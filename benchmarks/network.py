"""Time of a training step and of inference, part by part. Beside torchvision's network: network_torchvision.py.

python benchmarks/network.py [--preset small] [--size 192 384] [--batch 4] [--threads 2] [--precision float32]

A step is random images with six objects and an ignored strip each: the work does not depend on what the network has
learnt, except that NMS and sampling see the proposals of an untrained network. Medians over the repeats.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cupola.models import PRESETS, PanopticNetwork, Target, boxes_of_masks
from cupola.models.boxes import integral_image, one_each
from cupola.models.fusion import fused
from cupola.models.layers import upsample
from cupola.models.panoptic import MergeLimits, assembled
from cupola.models.semantic_head import STRIDE

THINGS, STUFF, OBJECTS = 3, 12, 6
SCORE = 0.5
"""Least score of a detection."""


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
def inference(network: PanopticNetwork, images: list[Tensor], precision: torch.dtype, clock: Clock) -> int:
    """The same calls as `PanopticNetwork.predict`, timed one by one; returns the number of detections."""
    rpn, heads = network.proposal_generator, network.roi_heads
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        with clock("batch"):
            batch = network.batch(images)
        with clock("trunk"):
            trunk = network.backbone.bottom_up(batch)
        with clock("pyramid"):
            features = network.backbone.pyramid(trunk)
        with clock("semantic head"):
            semantic = upsample(network.sem_seg_head(features).float(), STRIDE)
        with clock("RPN head"):
            anchors = rpn.anchors(features)
            logits, deltas = rpn.rpn_head(features)
        with clock("proposals (NMS)"):
            boxes = [box for box, _ in rpn.proposals(anchors, logits, deltas, sizes)]
        with clock("box heads and detections"):
            found = heads.detect(features, boxes, sizes, SCORE)
        with clock("mask head"):
            masks = heads.mask_probabilities(features, [f.boxes for f in found], [f.classes for f in found])
        with clock("pasting, merge"):
            limits = MergeLimits.of(network.settings.merge, SCORE, None, None, None)
            for number, (height, width) in enumerate(sizes):
                assembled(semantic[number, :, :height, :width], found[number], masks[number], sizes[number], limits)
    return sum(len(objects) for objects in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 384), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = PanopticNetwork(PRESETS[options.preset](), THINGS, STUFF).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    images, targets = zip(*[example(*options.size, generator) for _ in range(options.batch)], strict=True)
    precision = getattr(torch, options.precision)
    print(
        f"{platform.machine()}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{options.threads} threads; {options.preset} ({sum(p.numel() for p in network.parameters()):,} parameters), "
        f"{options.batch} x {options.size[0]} x {options.size[1]}, {options.precision}"
    )
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


if __name__ == "__main__":
    main()
