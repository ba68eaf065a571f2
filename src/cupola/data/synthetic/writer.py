"""`cupola render`: street video on disk in the `folder` layout, with truth beside it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float32, Int32

from cupola.config import plain, save_config
from cupola.data.synthetic.rendering import check_size, street
from cupola.data.synthetic.settings import StreetSettings, StreetTruth
from cupola.engines import choose_engine
from cupola.errors import ConfigError, StoreError
from cupola.io import write_ids, write_json, write_rgb, write_text
from cupola.progress import progress
from cupola.types import StereoFrame

DISPARITY_STEPS = 256
"""A stored disparity counts 1/256 px, 0 = none (KITTI's encoding)."""
MAX_SEQUENCES = 10_000
"""Sequences have names of four digits."""
STREET_FILE = "street.json"
SPAN = 8
"""Frames that one process renders at a time: making the scene costs it about as much as one frame."""
FRAMES_A_WORKER = 40
"""Rendering so many frames takes about as long as starting one more worker (2 s)."""


@dataclass(frozen=True)
class RenderResult:
    """What `render` left in `out`: sequences, frames in all, and how many frames were rendered now."""

    out: Path
    sequences: int
    frames: int
    rendered: int


def render(
    out: Path,
    *,
    seed: int = 0,
    frames: int = 4,
    sequences: int = 160,
    height: int = 192,
    width: int = 384,
    settings: StreetSettings = StreetSettings(),
    workers: int = 0,
) -> RenderResult:
    """Renders stereo video of streets, with exact truth, in the `folder` layout.

    Run again with the same arguments, it goes on where it was stopped.

    Args:
        out: directory to fill: SEQUENCE/left, right, truth, calibration.yaml.
        seed: another seed gives other streets.
        frames: frames in each sequence.
        sequences: number of sequences; each is another street.
        height: of the images [px].
        width: of the images [px].
        settings: how the street is filmed and how busy it is.
        workers: processes; 0 takes as many as there are cores.

    Returns:
        Where it is and how much was rendered.

    Raises:
        ConfigError: an impossible size or length.
        StoreError: `out` holds a street of other settings.
        DiskError: writing failed.
    """
    check_size(frames, height, width)
    if not 1 <= sequences <= MAX_SEQUENCES:
        raise ConfigError(f"sequences must be 1..{MAX_SEQUENCES}, but is {sequences}")
    recipe = {"seed": seed, "frames": frames, "height": height, "width": width, "settings": plain(settings)}
    todo = [number for number in range(sequences) if not (out / f"{number:04d}" / STREET_FILE).is_file()]
    spans = [(number, range(t, min(t + SPAN, frames))) for number in todo for t in range(0, frames, SPAN)]
    engine = choose_engine(workers, len(todo) * frames // FRAMES_A_WORKER)
    _claim(out, recipe)
    save_config(
        out / "config.yaml",
        out=out, seed=seed, frames=frames, sequences=sequences, height=height, width=width, settings=settings,
    )  # fmt: skip
    moving: dict[int, dict[str, list[int]]] = {number: {} for number in todo}
    task = RenderSpan(out, seed, frames, height, width, settings)
    bar = progress(iter(()), "rendering", total=sequences * frames, done=(sequences - len(todo)) * frames)
    with engine, closing(engine.map(task, spans)) as done, bar:
        for (number, span), found in done:
            moving[number] |= found
            bar.update(len(span))
            if len(moving[number]) == frames:
                marks = dict(sorted(moving.pop(number).items()))
                _finish(out / f"{number:04d}", marks, settings, height, width, {**recipe, "sequence": number})
    return RenderResult(out, sequences, sequences * frames, len(todo) * frames)


@dataclass(frozen=True)
class RenderSpan:
    """Item: (number of a sequence, frames of it); writes these frames and gives what moves in each, by its name."""

    out: Path
    seed: int
    frames: int
    height: int
    width: int
    settings: StreetSettings

    def __call__(self, item: tuple[int, range]) -> dict[str, list[int]]:
        number, span = item
        moving = {}
        rendered = street(self.seed, number, self.frames, self.height, self.width, self.settings, span)
        for t, (frame, truth) in zip(span, rendered, strict=True):
            write_frame(self.out / f"{number:04d}", f"{t:06d}", frame, truth)
            moving[f"{t:06d}"] = sorted(truth.moving)
        return moving


def write_frame(directory: Path, name: str, frame: StereoFrame, truth: StreetTruth) -> None:
    """Writes the images and the truth of one frame. Raises `DiskError`."""
    write_rgb(directory / "left" / f"{name}.png", frame.left)
    write_rgb(directory / "right" / f"{name}.png", frame.right)
    write_ids(directory / "truth" / f"{name}_instanceIds.png", truth.instance_ids(), 16)
    write_ids(directory / "truth" / f"{name}_disparity.png", encode_disparity(truth.disparity), 16)


def encode_disparity(disparity: Float32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """KITTI's 16-bit encoding: value / 256 px; 0 = none (the sky); 255.996 px is the most."""
    steps = np.rint(disparity * DISPARITY_STEPS)
    return np.where(disparity > 0, np.clip(steps, 1, 65535), 0).astype(np.int32)


def _finish(
    directory: Path,
    moving: dict[str, list[int]],
    settings: StreetSettings,
    height: int,
    width: int,
    recipe: dict[str, Any],
) -> None:
    """The files that complete a sequence; `street.json`, written last, says that all of it is there."""
    rig = settings.calibration(height, width)
    calibration = {**plain(rig), "width": width, "height": height, "fps": 1 / settings.interval}
    write_text(directory / "calibration.yaml", yaml.safe_dump(calibration, sort_keys=False))
    write_json(directory / "truth" / "moving.json", moving)
    write_json(directory / STREET_FILE, recipe)


def _claim(out: Path, recipe: dict[str, Any]) -> None:
    """Raises `StoreError` where `out` holds a street made in another way; else records how this one is made."""
    path = out / STREET_FILE
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged; remove {out} and render again") from error
        if found != recipe:
            raise StoreError(f"{out} holds a street of another seed, size or settings; choose another --out")
    else:
        write_json(path, recipe)
