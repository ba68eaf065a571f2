"""Images a second of `cupola predict`, from files to files, against the network alone.

python benchmarks/predict.py [--model DIR | --preset small] [--size 375 1242] [--images 24] [--batch 4] [--threads 2]
    [--device auto] [--repeats 3] [--json FILE]

The same noise-and-boxes images as JPEG files and as a video. `network alone` has them in memory; `one after another`
reads, predicts, draws and writes each image in turn, as a plain loop would. The command does all of it beside the
network; its best speed is that of the network alone. The repeats of all ways alternate, and the best of each is told:
other work on the machine only slows them down, and hardly touches the processor time. An untrained network finds few
objects: give --model for real ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cupola.diagnosis import installed_versions
from cupola.io import read_rgb, write_rgb
from cupola.io.coco_panoptic import write_map
from cupola.io.video_stream import VideoOutput, VideoStream
from cupola.models import PRESETS, PanopticNetwork, save_network
from cupola.prediction import Predictor, load, predict

THINGS, STUFF = (12, 13, 14), tuple(range(12))


def make_images(folder: Path, count: int, height: int, width: int) -> None:
    """Smooth noise with bright boxes, as JPEG files in `images/` and as `video.mp4`."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    with VideoOutput(folder / "video.mp4", Fraction(10)) as video:
        for number in range(count):
            image = cv2.resize(rng.integers(0, 255, (24, 80, 3)).astype(np.uint8), (width, height))
            for _ in range(6):
                y, x = int(rng.integers(height * 3 // 4)), int(rng.integers(width * 3 // 4))
                image[y : y + height // 6, x : x + width // 12] = rng.integers(0, 255, 3)
            cv2.imwrite(str(folder / "images" / f"{number:04d}.jpg"), image)
            video.write(image, Fraction(number, 10))


def one_after_another(predictor: Predictor, images: list[Path], out: Path, batch: int) -> None:
    """What a plain loop would do with files."""
    for start in range(0, len(images), batch):
        paths = images[start : start + batch]
        for path, prediction in zip(paths, predictor.batch([read_rgb(path) for path in paths]), strict=True):
            write_map(out / "panoptic" / f"{path.stem}.png", prediction.segment_ids())
            write_rgb(out / "overlays" / f"{path.stem}.png", prediction.overlay(legend=True))


def measure(work: Path, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """(wall, processor) seconds of each way, the best of the repeats, and the share of its time that the network of
    the command waited."""
    predictor = load(model, device=options.device)
    images = sorted((work / "images").iterdir())
    pixels = [read_rgb(path) for path in images]
    predictor.batch(pixels[: options.batch])
    waits: dict[str, float] = {}

    def alone() -> None:
        for start in range(0, len(pixels), options.batch):
            predictor.batch(pixels[start : start + options.batch])

    def command(source: str) -> None:
        out = work / "out"
        run = predict([work / source], model=model, out=out, batch=options.batch, device=options.device)
        seconds = run.seconds
        waits[source] = min(waits.get(source, 1.0), 1 - seconds["network"] / sum(seconds.values()))

    def decode() -> None:
        with VideoStream(work / "video.mp4") as stream:
            for _ in stream.frames():
                pass

    ways: dict[str, Callable[[], None]] = {
        "network alone": alone,
        "one after another, images": lambda: one_after_another(predictor, images, work / "out", options.batch),
        "cupola predict, images": lambda: command("images"),
        "cupola predict, video": lambda: command("video.mp4"),
        "decoding the video alone": decode,
    }
    best = dict.fromkeys(ways, (float("inf"), float("inf")))
    for _ in range(options.repeats):
        for name, way in ways.items():
            shutil.rmtree(work / "out", ignore_errors=True)
            wall, processor = time.perf_counter(), time.process_time()
            way()
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            best[name] = min(best[name][0], wall), min(best[name][1], processor)
    return {"seconds": best, "waiting": waits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--preset", choices=[*PRESETS], default="small")
    parser.add_argument("--size", type=int, nargs=2, default=(375, 1242), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_images(work, options.images, *options.size)
        model = options.model
        if model is None:
            torch.manual_seed(0)
            model = work / "net"
            network = PanopticNetwork(PRESETS[options.preset](), len(THINGS), len(STUFF))
            save_network(model, network, {"things": THINGS, "stuff": STUFF})
        result = measure(work, model, options)
    size = f"{options.size[1]} x {options.size[0]}"
    print(f"{options.images} images of {size}, batch {options.batch}, {options.threads} threads, {model}")
    print(f"{'':28}{'images/s':>10}{'processor ms/image':>20}")
    for way, (wall, processor) in result["seconds"].items():
        print(f"{way:28}{options.images / wall:10.2f}{1000 * processor / options.images:20.0f}")
    for source, share in result["waiting"].items():
        print(f"the network waited {100 * share:.1f} % of its time for {source} (between first read and last write)")
    if options.json:
        about = {"versions": installed_versions(), "machine": platform.processor(), "options": vars(options)}
        options.json.write_text(json.dumps(about | result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
