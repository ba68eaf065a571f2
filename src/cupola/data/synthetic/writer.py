"""`cupola render`: street video on disk in the `folder` layout, with truth beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float32, Int32

from cupola.config import plain, save_config
from cupola.data.synthetic.rendering import check_size, street
from cupola.data.synthetic.settings import StreetSettings, StreetTruth
from cupola.errors import ConfigError, StoreError
from cupola.io import write_ids, write_json, write_rgb, write_text
from cupola.progress import progress
from cupola.types import StereoFrame

DISPARITY_STEPS = 256
"""A stored disparity counts 1/256 px, 0 = none (KITTI's encoding)."""
MAX_SEQUENCES = 10_000
"""Sequences have names of four digits."""
STREET_FILE = "street.json"


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
    _claim(out, recipe)
    save_config(
        out / "config.yaml",
        out=out, seed=seed, frames=frames, sequences=sequences, height=height, width=width, settings=settings,
    )  # fmt: skip
    todo = [number for number in range(sequences) if not (out / f"{number:04d}" / STREET_FILE).is_file()]
    bar = progress(iter(()), "rendering", total=sequences * frames, done=(sequences - len(todo)) * frames)
    with bar:
        for number in todo:
            moving = {}
            for t, (frame, truth) in enumerate(street(seed, number, frames, height, width, settings)):
                write_frame(out / f"{number:04d}", f"{t:06d}", frame, truth)
                moving[f"{t:06d}"] = sorted(truth.moving)
                bar.update()
            _finish(out / f"{number:04d}", moving, settings, height, width, {**recipe, "sequence": number})
    return RenderResult(out, sequences, sequences * frames, len(todo) * frames)


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
