"""Images without labels to learn from: of a data set, a label store, or any folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cupola.data import StereoDataset, open_dataset
from cupola.errors import DataError
from cupola.io import IMAGE_SUFFIXES, read_rgb
from cupola.pseudo_labels import LabelStore
from cupola.pseudo_labels.journal import MANIFEST


@dataclass(frozen=True)
class Frames:
    """keys: names of the images; read: an image by number, RGB; fingerprint: of which images these are (of their keys
    and, where they are files, sizes in bytes)."""

    keys: tuple[str, ...]
    read: Callable[[int], UInt8[np.ndarray, "_h _w 3"]]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.keys)


def open_frames(images: Path) -> Frames:
    """The images of a label store, the left images of a data set, or all images in a folder and below it.

    Raises `DataError` where there is none, `StoreError` where a label store is unfinished or damaged.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a directory; name a data set, a label store or a folder of images")
    if (images / MANIFEST).is_file():
        store = LabelStore.open(images)
        return _frames(store.keys, [str(store.record(key).left) for key in store.keys], store.image)
    dataset = _dataset(images)
    if dataset is not None:
        records = {record.key: record for record in dataset.records}
        sources = [str(record.left) for record in dataset.records]
        return _frames(tuple(records), sources, lambda key: dataset.left(records[key]))
    paths = [path for path in sorted(images.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise DataError(
            f"there is no image in {images} (looked for {' '.join(IMAGE_SUFFIXES)}) and it is no data set; name a data "
            "set, a label store or a folder of images"
        )
    named = {path.relative_to(images).as_posix(): path for path in paths}
    return _frames(tuple(named), [str(path) for path in paths], lambda key: read_rgb(named[key]))


def _dataset(root: Path) -> StereoDataset | None:
    try:
        return open_dataset(root)
    except DataError:
        return None


def _frames(keys: tuple[str, ...], sources: list[str], read: Callable[[str], np.ndarray]) -> Frames:
    if not keys:
        raise DataError("there is no image to learn from; name a data set, a label store or a folder of images")
    sizes = [Path(source).stat().st_size if Path(source).is_file() else 0 for source in sources]
    digest = hashlib.sha256(json.dumps(list(zip(keys, sizes, strict=True))).encode()).hexdigest()
    return Frames(keys, partial(_read, keys, read), digest)


def _read(keys: tuple[str, ...], read: Callable[[str], np.ndarray], number: int) -> np.ndarray:
    return read(keys[number])
