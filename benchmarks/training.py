"""Time of what the training loop does around the network: making batches, copy-paste, saving a state.

python benchmarks/training.py [--size 192 384] [--batch 4] [--precision bfloat16] [--repeats 30] [--json FILE]

Samples are noise with stuff stripes and six objects. The network's own step, for the share, is measured in the same run
on the same batches (`benchmarks/network.py` has its parts), as are one look for discoveries and the share of its time
that the loop waits for batches. Warm-up first; medians of wall and processor time, one
thread: the batches are made in a thread of their own while the network works.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cupola.diagnosis import installed_versions
from cupola.models import PRESETS, PanopticNetwork
from cupola.training import BootstrapSettings
from cupola.training.augment import augment
from cupola.training.copy_paste import CopyPasteSettings, cut_objects, paste_objects
from cupola.training.data import TrainingData
from cupola.training.discoveries import DiscoveryBank, DiscoverySettings
from cupola.training.loop import make_optimizer
from cupola.training.sampler import Batch, Batches, BatchSettings, make_batch, network_generator
from cupola.training.state import Progress, TrainingState
from cupola.training.targets import FIRST_OBJECT, Sample, make_target

FRAMES, OBJECTS, STUFF, THINGS = 16, 6, 12, 3
WARM_UP = 3
"""Steps before the waiting is counted."""

PUBLISHED_PASTE = (640, 1280), 60.0, 12.0
"""Image size, published time and our bar [ms] of pasting up to eight objects (issue 13)."""


def noise_sample(height: int, width: int, rng: np.random.Generator) -> Sample:
    """Noise, stripes of stuff, and objects of an eighth to a third of the height."""
    codes = np.repeat(1 + np.arange(STUFF, dtype=np.uint16), -(-height // STUFF))[:height, None].repeat(width, 1)
    for index in range(OBJECTS):
        h, w = (int(rng.integers(height // 8, height // 3)) for _ in range(2))
        y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
        codes[y : y + h, x : x + w] = FIRST_OBJECT + index
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Sample(image, codes, rng.integers(0, THINGS, OBJECTS))


def noise_data(height: int, width: int) -> TrainingData:
    """`FRAMES` such samples and their objects."""
    rng = np.random.default_rng(0)
    samples = [noise_sample(height, width, rng) for _ in range(FRAMES)]
    bank = tuple(cut for sample in samples for cut in cut_objects(sample, 8))
    keys = tuple(f"frame{number}" for number in range(FRAMES))
    return TrainingData(keys, ((height, width),) * FRAMES, bank, "", len(bank), samples.__getitem__)


def measure(work: Callable[[int], Any], repeats: int) -> dict[str, float]:
    """Median and least wall time and median processor time [ms] of work(0), work(1), ..., after two to warm up."""
    wall, processor = [], []
    for number in range(-2, repeats):
        start = time.perf_counter(), time.thread_time()
        work(number + 2)
        wall.append(1000 * (time.perf_counter() - start[0]))
        processor.append(1000 * (time.thread_time() - start[1]))
    return {"wall": statistics.median(wall[2:]), "least": min(wall[2:]), "processor": statistics.median(processor[2:])}


def batch_rows(data: TrainingData, settings: BatchSettings, repeats: int) -> dict[str, dict[str, float]]:
    """A whole batch, and its parts."""

    def each(work: Callable[[Sample, np.random.Generator], Any]) -> Callable[[int], None]:
        def batch(step: int) -> None:
            for index in range(settings.size):
                work(data.sample(index), np.random.default_rng([step, index]))

        return batch

    paste, view = settings.copy_paste, settings.augment
    return {
        "batch": measure(lambda step: make_batch(data, step, settings), repeats),
        "  paste": measure(each(lambda s, rng: paste_objects(s, data.bank, paste, rng)), repeats),
        "  augment": measure(each(lambda s, rng: augment(s, settings.canvas, view, rng)), repeats),
        "  target": measure(each(lambda s, rng: make_target(s)), repeats),
    }


def training_step(
    network: PanopticNetwork, optimizer: torch.optim.Optimizer, batch: Batch, number: int, *, half: bool
) -> None:
    """What the loop does with a batch. half: in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        losses = network.losses(batch.images, batch.targets, network_generator(0, number))
    torch.stack(list(losses.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()


def network_rows(
    data: TrainingData, settings: BatchSettings, preset: str, repeats: int, *, half: bool
) -> dict[str, dict[str, float]]:
    """A whole training step without making its batch, one look for discoveries, and saving a state."""
    torch.manual_seed(0)
    network = PanopticNetwork(PRESETS[preset](), THINGS, STUFF).train()
    optimizer = make_optimizer(network, network.named_parameters(), BootstrapSettings().optimizer)
    batches = [make_batch(data, number, settings) for number in range(repeats + 2)]
    rows = {
        f"step of network {preset}": measure(
            lambda number: training_step(network, optimizer, batches[number], number, half=half), repeats
        )
    }
    looks = DiscoverySettings(start=1, every=1, frames=settings.size)
    bank = DiscoveryBank(looks, settings.copy_paste.min_side, 0)
    device = torch.device("cpu")
    rows[f"look at {settings.size} frames"] = measure(
        lambda number: bank.before_step(number, network, data, device, 0, lambda found: [found]), min(repeats, 5)
    )
    with tempfile.TemporaryDirectory() as out:
        state = TrainingState(Path(out))
        rows["state saved"] = measure(
            lambda number: state.save(network, optimizer, Progress(number, 0.0, ""), {}), min(repeats, 5)
        )
    return rows


def waiting_share(data: TrainingData, settings: BatchSettings, preset: str, repeats: int, *, half: bool) -> float:
    """Share of the time that the loop waits for batches, which a thread makes meanwhile, after a few steps."""
    torch.manual_seed(0)
    network = PanopticNetwork(PRESETS[preset](), THINGS, STUFF).train()
    optimizer = make_optimizer(network, network.named_parameters(), BootstrapSettings().optimizer)
    waited, begun = 0.0, 0.0
    with Batches(data, settings) as batches:
        for number in range(repeats + WARM_UP):
            if number == WARM_UP:
                waited, begun = 0.0, time.perf_counter()
            asked = time.perf_counter()
            batch = batches.get(number)
            waited += time.perf_counter() - asked
            training_step(network, optimizer, batch, number, half=half)
    return waited / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(192, 384), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the forward pass")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures, machine and versions here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = tuple(options.size)
    plain = BootstrapSettings()
    settings = BatchSettings(options.batch, size, 0, plain.augment, plain.copy_paste)
    data = noise_data(*size)
    rows = batch_rows(data, settings, options.repeats)
    half = options.precision == "bfloat16"
    rows |= network_rows(data, settings, options.preset, options.repeats, half=half)
    waiting = waiting_share(data, settings, options.preset, options.repeats, half=half)

    large, published, bar = PUBLISHED_PASTE
    big, eight = noise_data(*large), CopyPasteSettings(pastes=(8, 8))
    rows["8 pastes into 640 x 1280"] = measure(
        lambda step: paste_objects(big.sample(0), big.bank, eight, np.random.default_rng(step)), options.repeats
    )
    print(f"batch {options.batch} at {size[0]} x {size[1]}\n{'[ms]':30}{'wall':>9}{'(least)':>10}{'processor':>11}")
    for name, row in rows.items():
        print(f"{name:30}{row['wall']:9.1f}{row['least']:10.1f}{row['processor']:11.1f}")
    step = rows[f"step of network {options.preset}"]["processor"]
    share, look = rows["batch"]["processor"] / step, rows[f"look at {options.batch} frames"]["processor"] / step
    every = DiscoverySettings().every
    print(
        f"\na batch takes {100 * share:.1f} % of a step; the loop waits for batches {100 * waiting:.2f} % of its time"
    )
    print(f"a look takes {100 * look:.0f} % of a step, in every {every}th one that is {100 * look / every:.1f} %")
    print(f"8 pastes: bar {bar} ms, published code {published} ms")
    if options.json:
        machine = {"machine": platform.machine(), "system": platform.system(), "versions": installed_versions()}
        chosen = {"size": list(size)} | {
            name: getattr(options, name) for name in ("batch", "preset", "precision", "repeats")
        }
        options.json.write_text(json.dumps(machine | {"settings": chosen, "ms": rows, "waiting": waiting}, indent=1))


if __name__ == "__main__":
    main()
