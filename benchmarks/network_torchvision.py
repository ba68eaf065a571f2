"""Speed and memory of the paper's network beside torchvision's `maskrcnn_resnet50_fpn`, in one run.

python benchmarks/network_torchvision.py inference [--size 640 1280] [--batch 1] [--threads 2] [--repeats 5]
python benchmarks/network_torchvision.py step [--size 320 640] [--batch 2]
python benchmarks/network_torchvision.py memory

Weights are random; norms have seen one image, and class scores are sharpened until `DETECTIONS` objects an image pass a
score of 0.5 on either side. torchvision's own resizing is off. The programs take turns, so that other load meets all of
them; trust the ratios, and those of processor time where the machine is busy (OMP_WAIT_POLICY=passive lets threads
that wait sleep, so that waiting does not count). A step is forward, backward, clip and AdamW. `memory` runs each in a
process of its own and tells its peak beyond the imports. On a GPU (`--device cuda`) `inference` adds bfloat16 and a
compiled backbone, and tells images a second.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from network import example, resident, restart_peak
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn

from cupola.models import PanopticNetwork, Target, paper
from cupola.models.fusion import fused

THINGS, STUFF = 12, 15
"""Class numbers of the published measurements (../shared/parity/README.md, part 5)."""

DETECTIONS = 60
"""Objects an image that pass the threshold on either side."""

SCORE = 0.5
"""Threshold of the detections."""


@torch.no_grad()
def settle_norms(backbone: nn.Module, batch: Tensor) -> None:
    """Running statistics of the batch norms as of one batch."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    backbone.train()(batch)
    for norm in norms:
        norm.momentum = 0.1
    backbone.eval()


def sharpen(layers: list[nn.Linear], hidden: list[Tensor], count: Callable[[], int]) -> int:
    """Scales class scores, centred over some regions' features, until about `DETECTIONS` objects are counted."""
    for layer, features in zip(layers, hidden, strict=True):
        nn.init.normal_(layer.weight, std=0.01)
        layer.bias.data = -(features @ layer.weight.T).mean(0)
    best, low, high = (10**9, 1.0), 0.0, 12.0
    start = [(layer.weight.clone(), layer.bias.clone()) for layer in layers]

    def apply(power: float) -> int:
        for layer, (weight, bias) in zip(layers, start, strict=True):
            layer.weight.data, layer.bias.data = weight * 2**power, bias * 2**power
        return count()

    for _ in range(10):
        middle = (low + high) / 2
        found = apply(middle)
        best = min(best, (abs(found - DETECTIONS), middle))
        low, high = (middle, high) if found < DETECTIONS else (low, middle)
    return apply(best[1])


@torch.no_grad()
def our_network(image: Tensor) -> tuple[PanopticNetwork, int]:
    """The paper's network, and how many objects it finds in the image."""
    torch.manual_seed(0)
    network = PanopticNetwork(paper(), THINGS, STUFF).to(image.device).eval()
    batch, size = network.batch([image]), (image.shape[1], image.shape[2])
    settle_norms(network.backbone, batch)
    features, heads, rpn = network.backbone(batch), network.roi_heads, network.proposal_generator
    anchors = rpn.anchors(features)
    boxes = [box for box, _ in rpn.proposals(anchors, *rpn.rpn_head(features), [size])]
    layers, hidden = [predictor.cls_score for predictor in heads.box_predictor], []
    handles = [layer.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0])) for layer in layers]
    heads.cascade(features, boxes, [size])
    for handle in handles:
        handle.remove()
    count = sharpen(layers, hidden, lambda: len(heads.detect(features, boxes, [size], SCORE)[0]))
    return network, count


@torch.no_grad()
def their_network(image: Tensor) -> tuple[MaskRCNN, int]:
    """torchvision's network, and how many objects it finds in the image."""
    torch.manual_seed(0)
    sides = {"min_size": min(image.shape[1:]), "max_size": max(image.shape[1:]), "box_score_thresh": SCORE}
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=THINGS + 1, **sides)
    network = network.to(image.device).eval()
    inputs, _ = network.transform([image])
    settle_norms(network.backbone, inputs.tensors)
    features = network.backbone(inputs.tensors)
    boxes, _ = network.rpn(inputs, features)
    heads = network.roi_heads
    hidden = heads.box_head(heads.box_roi_pool(features, boxes, inputs.image_sizes))
    count = sharpen(
        [heads.box_predictor.cls_score],
        [hidden],
        lambda: len(heads(features, boxes, inputs.image_sizes)[0][0]["scores"]),
    )
    return network, count


def predictions(options: argparse.Namespace, only: str | None = None) -> dict[str, Callable[[], Any]]:
    """The programs that `inference` measures, by name; or one of them."""
    generator = torch.Generator().manual_seed(0)
    images = [example(*options.size, generator)[0].to(options.device) for _ in range(options.batch)]
    device, programs = options.device, {}
    if only != "torchvision":
        network, count = our_network(images[0])
        print(f"cupola finds {count} objects in the first image")
        full = fused(network) if only != "cupola bfloat16" else None
        half = fused(network, torch.bfloat16) if only != "cupola" else None

        def ours(network: PanopticNetwork | None, precision: torch.dtype) -> None:
            assert network is not None
            with torch.autocast(device, precision, enabled=precision != torch.float32):
                network.predict(images, score_threshold=SCORE)

        programs["cupola"] = lambda: ours(full, torch.float32)
        programs["cupola bfloat16"] = lambda: ours(half, torch.bfloat16)
        if device == "cuda" and only is None:
            compiled = fused(network, torch.bfloat16)
            compiled.backbone.compile(dynamic=False)
            programs["cupola compiled"] = lambda: ours(compiled, torch.bfloat16)
        del network  # as after loading: the fused copy alone stays
    if only in (None, "torchvision"):
        theirs, count = their_network(images[0])
        print(f"torchvision finds {count} objects in the first image")

        def predict() -> None:
            with torch.no_grad():
                theirs(images)

        programs["torchvision"] = predict
    return {only: programs[only]} if only else programs


def steps(options: argparse.Namespace, only: str | None = None) -> dict[str, Callable[[], Any]]:
    """The training steps that `step` measures, by name; or one of them."""
    generator = torch.Generator().manual_seed(0)
    images, targets = zip(*[example(*options.size, generator) for _ in range(options.batch)], strict=True)
    images, targets = [i.to(options.device) for i in images], [t.to(options.device) for t in targets]
    programs: dict[str, Callable[[], Any]] = {}
    torch.manual_seed(0)
    if only != "torchvision":
        network = PanopticNetwork(paper(), THINGS, STUFF).to(options.device).train()
        update = optimisation(network)
        choices = torch.Generator().manual_seed(0)
        programs["cupola"] = lambda: update(network.losses(images, targets, choices))

        def half() -> None:
            with torch.autocast(options.device, torch.bfloat16):
                losses = network.losses(images, targets, choices)
            update(losses)

        programs["cupola bfloat16"] = half
    if only in (None, "torchvision"):
        sides = {"min_size": min(options.size), "max_size": max(options.size)}
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=THINGS + 1, **sides)
        theirs.to(options.device).train()
        update_theirs = optimisation(theirs)
        labels = [torchvision_target(target) for target in targets]
        programs["torchvision"] = lambda: update_theirs(theirs(images, labels))
    return {only: programs[only]} if only else programs


def torchvision_target(target: Target) -> dict[str, Tensor]:
    """The same objects as torchvision wants them; class 0 is background there."""
    return {"boxes": target.boxes, "labels": target.classes + 1, "masks": target.masks.to(torch.uint8)}


def optimisation(network: nn.Module) -> Callable[[dict[str, Tensor]], None]:
    """Backward, clip and AdamW."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-6, fused=True)

    def update(losses: dict[str, Tensor]) -> None:
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return update


def measure(programs: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of each program, in turns, after one call to warm up."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    wait = torch.cuda.synchronize if device == "cuda" else nullcontext
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            wait()
            wall, processor = time.perf_counter(), time.process_time()
            program()
            wait()
            if repeat:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return seconds


def show(seconds: dict[str, list[tuple[float, float]]], images: int) -> None:
    """Times of each program, and their ratio to torchvision's: the median over the turns."""
    print(
        f"{'[s]':18}{'least':>8}{'median':>8}{'processor':>11}"
        f"{'ratios: least':>16}{'turns':>8}{'processor':>11}{'img/s':>8}"
    )
    least = {name: min(wall for wall, _ in rows) for name, rows in seconds.items()}
    for name, rows in seconds.items():
        wall, processor = zip(*rows, strict=True)
        ratios = []
        for index in (0, 1):
            theirs = seconds["torchvision"]
            ratios.append(statistics.median(a[index] / b[index] for a, b in zip(rows, theirs, strict=True)))
        print(
            f"{name:18}{least[name]:8.2f}{statistics.median(wall):8.2f}{min(processor):11.2f}"
            f"{least[name] / least['torchvision']:16.2f}{ratios[0]:8.2f}{ratios[1]:11.2f}{images / least[name]:8.2f}"
        )


def peak(options: argparse.Namespace) -> float:
    """Peak memory [MiB] of one program in this process (Linux): its weights and two calls, without the imports and
    without what making the weights took."""
    make = predictions if options.what == "inference" else steps
    before = resident("VmRSS")
    (program,) = make(options, options.only).values()
    restart_peak()
    for _ in range(2):
        program()
    return resident("VmHWM") - before


def memory(threads: int) -> None:
    """Peaks of both tasks, each program in a process of its own."""
    for what, size, batch in (("inference", (640, 1280), 1), ("step", (320, 640), 2)):
        found = {}
        for name in ("cupola", "cupola bfloat16", "torchvision"):
            arguments = [what, "--size", *map(str, size), "--batch", str(batch), "--threads", str(threads)]
            command = [sys.executable, __file__, *arguments, "--only", name]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            found[name] = float(lines[-1])
        row = ", ".join(f"{name} {mib:,.0f} MiB ({mib / found['torchvision']:.2f})" for name, mib in found.items())
        print(f"{what}, batch {batch} at {size[0]} x {size[1]}: {row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("inference", "step", "memory"))
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", help="run this program alone and print its peak memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    training = options.what == "step"
    options.size = tuple(options.size or ((320, 640) if training else (640, 1280)))
    options.batch = options.batch or (2 if training else 1)
    if options.only:
        print(peak(options))
        return
    print(
        f"{platform.machine()}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{options.device}, {options.threads} threads"
    )
    if options.what == "memory":
        memory(options.threads)
        return
    print(f"{options.what}, batch {options.batch} at {options.size[0]} x {options.size[1]}")
    programs = steps(options) if training else predictions(options)
    show(measure(programs, options.repeats, options.device), options.batch)


if __name__ == "__main__":
    main()
