"""Listing directories of images: sorted, once, without opening a file; left matched with right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cupola.data.dataset import StereoDataset
from cupola.errors import DataError, ImageError
from cupola.io import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Layout:
    """One way to lay out stereo video on disk. matches: is this directory laid out so?; read: lists it;
    looks_for: what `matches` looks for, in words."""

    name: str
    looks_for: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], StereoDataset]


def subdirectories(folder: Path) -> list[Path]:
    """Directories in `folder`, sorted, without hidden ones; none where `folder` does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Images in `folder` by name without suffix, sorted. Raises `DataError` where the folder is missing or two images
    differ in nothing but the suffix."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES))
    except OSError as error:
        raise DataError(f"{folder} is not a directory that can be read; it should hold images") from error
    found: dict[str, Path] = {}
    for name in names:
        stem = name.rpartition(".")[0]  # quicker than Path.stem, which counts with 100,000 images
        if name.startswith("."):
            continue
        if stem in found:
            raise DataError(f"{found[stem]} and {folder / name} are two images of one frame; remove one")
        found[stem] = folder / name
    return found


def match_images(left: Path, right: Path) -> list[tuple[str, Path, Path]]:
    """(stem, left image, right image) of the two folders, sorted by stem; right images without a left one are passed
    over. Raises `ImageError` naming the first right image that is missing."""
    left_images, right_images = images_by_stem(left), images_by_stem(right)
    missing = [path for stem, path in left_images.items() if stem not in right_images]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ImageError(
            f"{right / missing[0].name} is missing{more}: "
            f"{missing[0]} has no right image; add it or remove the left one"
        )
    return [(stem, path, right_images[stem]) for stem, path in left_images.items()]


def frame_number(stem: str, path: Path) -> int:
    """The number at the end of a file's name: 123 of `left_000123`. Raises `DataError` where there is none."""
    digits = re.findall(r"[0-9]+", stem)
    if not digits:
        raise DataError(f"{path} has no frame number in its name; number the frames in order of time, as in 000000.png")
    return int(digits[-1])


def safe_name(name: str) -> str:
    """`name` as part of a key: whatever is awkward in a file name becomes a hyphen."""
    return re.sub(r"[^\w.-]", "-", name)
