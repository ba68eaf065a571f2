"""What there is to predict: files, folders, patterns, data sets and videos, each image under a key of its own."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cupola.data import open_dataset
from cupola.errors import DataError
from cupola.io import IMAGE_SUFFIXES, read_rgb
from cupola.io.video import VIDEO_SUFFIXES

MOVING_SUFFIXES = (*VIDEO_SUFFIXES, ".gif", ".mpg", ".mpeg", ".ts", ".wmv")
"""Files that are taken as videos."""


@dataclass(frozen=True)
class ImageSource:
    """An image to predict: its key in the results, its name, and how to read it."""

    key: str
    name: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class VideoSource:
    """A video to predict; the keys of its frames begin with its own."""

    key: str
    path: Path

    def frame_key(self, index: int) -> str:
        """Key of the frame of this number from 0."""
        return f"{self.key}/{index:06d}"


Source = ImageSource | VideoSource


def unique_keys(paths: Sequence[Path]) -> list[str]:
    """File stems; where they repeat, with the suffix or as many parent folders before them as it takes."""
    longest = max((len(path.parts) for path in paths), default=0)
    stems = Counter((path.parent, path.stem.lower()) for path in paths)
    names = [f"{p.stem}_{p.suffix[1:]}" if stems[p.parent, p.stem.lower()] > 1 else p.stem for p in paths]
    keys = [path.stem for path in paths]
    for parents in range(longest + 1):
        count = Counter(key.lower() for key in keys)  # some file systems do not tell A.png from a.png
        repeated = [number for number, key in enumerate(keys) if count[key.lower()] > 1]
        if not repeated:
            return keys
        for number in repeated:
            folders = [part for part in paths[number].parts[:-1] if part not in ("..", paths[number].anchor)]
            keys[number] = "_".join((*folders[max(0, len(folders) - parents) :], names[number]))
    return [f"{number:06d}_{path.stem}" for number, path in enumerate(paths)]


def find_sources(named: Sequence[Path], out: Path) -> list[Source]:
    """Everything that `named` names: files, folders, patterns, or one data set (its left images). What lies in `out`
    is passed over. Raises `DataError` where it is nothing."""
    if len(named) == 1 and named[0].is_dir():
        dataset = _dataset_sources(named[0])
        if dataset:
            return dataset
    paths: dict[Path, None] = {}
    for name in named:
        if name.is_dir():
            paths |= dict.fromkeys(_in_folder(name, out))
        elif glob.has_magic(str(name)) and not name.exists():
            found = sorted(Path(p) for p in glob.glob(str(name), recursive=True))  # noqa: PTH207 (absolute patterns too)
            paths |= dict.fromkeys(path for path in found if not path.is_dir())
        else:
            paths[name] = None
    if not paths:
        kinds = " ".join((*IMAGE_SUFFIXES, *MOVING_SUFFIXES))
        raise DataError(
            f"there is no image or video at {', '.join(map(str, named))} (looked for {kinds}); name files or a folder"
        )
    return file_sources(list(paths))


def file_sources(paths: Sequence[Path]) -> list[Source]:
    """Images and videos, in the order given."""
    moving = [path for path in paths if _is_moving(path)]
    still = [path for path in paths if not _is_moving(path)]
    keys = dict(zip((*still, *moving), (*unique_keys(still), *unique_keys(moving)), strict=True))
    return [
        VideoSource(keys[path], path)
        if _is_moving(path)
        else ImageSource(keys[path], str(path), partial(read_rgb, path))
        for path in paths
    ]


def _is_moving(path: Path) -> bool:
    return path.suffix.lower() in MOVING_SUFFIXES


def _dataset_sources(folder: Path) -> list[Source]:
    """The left images of a data set, under its keys; nothing where the folder is none."""
    try:
        dataset = open_dataset(folder)
    except DataError:
        return []
    return [ImageSource(record.key, str(record.left), partial(dataset.left, record)) for record in dataset.records]


def _in_folder(folder: Path, out: Path) -> list[Path]:
    """Images and videos in the folder; where there are none, anywhere below it."""
    for paths in (sorted(folder.iterdir()), sorted(folder.rglob("*"))):
        found = [
            path
            for path in paths
            if path.suffix.lower() in (*IMAGE_SUFFIXES, *MOVING_SUFFIXES)
            and not path.name.startswith(".")
            and not path.resolve().is_relative_to(out.resolve())
        ]
        if found:
            return found
    return []
