"""Pseudo labels as the published code keeps them on disk (spec-stage1 6.5).

STEM_semantic.png             8 bit: pseudo class 0..K-1, after each mask has its one class; 255 = unknown
STEM_instance.png             8 bit: 0 = none, else the id of a mask; ids may have gaps
pseudo_classes_split_I.pt     pixels of each class, those inside masks, masks of the class; summed over all such files

STEM is that of the left image: `CITY_SEQUENCE_FRAME_leftImg8bit` or `DRIVE_sync_FRAME`. The published code writes no
255, but takes it for ignore where it trains (spec-network 2.2, step 7).
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Int32, Int64, Integer, Shaped

from cupola.data import StereoDataset
from cupola.data.resizing import scaled_size
from cupola.errors import CheckpointError, DataError, ImageError
from cupola.io import read_ids, write_bytes, write_ids
from cupola.io.checkpoints import read_checkpoint
from cupola.pseudo_labels.statistics import ClassStatistics, summed
from cupola.pseudo_labels.store import UNKNOWN
from cupola.types import VOID

SEMANTIC, INSTANCE = "_semantic.png", "_instance.png"

SPLIT, SPLIT_SUFFIX = "pseudo_classes_split_", ".pt"

COUNTS = {
    "inside": "distribution inside object proposals",
    "total": "distribution all pixels",
    "masks": "distribution per object proposal",
}
"""Field of `ClassStatistics` -> its key in the files of statistics."""

MAX_OBJECTS = 255
"""Masks a frame that can be written: ids that 8 bits hold beside 0."""

MAX_READ = 65535
"""Ids of 16 bits are read too, should someone have kept more masks so."""

CITYSCAPES_STEM = "_leftImg8bit"
"""What Cityscapes' image names have behind our key."""

Size = tuple[int, int]


@dataclass(frozen=True)
class LabelFiles:
    """The two images of one frame."""

    semantic: Path
    instance: Path


def stem_of(key: str, layout: str) -> str:
    """The published file names' stem for a frame of ours."""
    return key + CITYSCAPES_STEM if layout == "cityscapes" else key


def list_labels(folder: Path) -> dict[str, LabelFiles]:
    """Label images of a directory by stem, sorted; nothing is opened.

    Raises `DataError` where the directory holds none, or where one of the two images of a frame is missing.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} is not a directory that can be read; it should hold *{SEMANTIC} files") from error
    semantic, instance = (
        {name.removesuffix(suffix) for name in names if name.endswith(suffix)} for suffix in (SEMANTIC, INSTANCE)
    )
    if not semantic | instance:
        raise DataError(f"{folder} holds no *{SEMANTIC}; name the directory of the published code's pseudo labels")
    single = sorted(semantic ^ instance)
    if single:
        there, missing = (SEMANTIC, INSTANCE) if single[0] in semantic else (INSTANCE, SEMANTIC)
        more = f" (and {len(single) - 1} more)" if len(single) > 1 else ""
        raise DataError(
            f"{folder / single[0]}{missing} is missing{more}: {single[0]}{there} has no partner; copy it again"
        )
    return {stem: LabelFiles(folder / (stem + SEMANTIC), folder / (stem + INSTANCE)) for stem in sorted(semantic)}


def labels_of_frames(labels: Mapping[str, LabelFiles], dataset: StereoDataset) -> dict[str, LabelFiles]:
    """The label images by the data set's keys, in its order. Raises `DataError` where one is of no frame in it."""
    by_key = {stem.removesuffix(CITYSCAPES_STEM): files for stem, files in labels.items()} | dict(labels)
    found = {record.key: by_key[record.key] for record in dataset.records if record.key in by_key}
    strays = sorted({files.semantic for files in labels.values()} - {files.semantic for files in found.values()})
    if strays:
        raise DataError(
            f"{len(strays)} of {len(labels)} labels are of no stereo frame in {dataset.root} ({dataset.layout}, whose "
            f"frames are named like {dataset.records[0].key}), the first is {strays[0]}; name the data set that they "
            "are of, or remove them"
        )
    return found


def whole_frame_scale(sizes: Sequence[tuple[Size, Size]]) -> float | None:
    """The factor by which every frame, (height, width) [px], gets its label's size; None if there is no common one.

    sizes: of (label, frame), each combination that occurs.
    """
    fractions = [(part, whole) for label, frame in sizes for part, whole in zip(label, frame, strict=True)]
    low = max((part - 0.5) / whole for part, whole in fractions)
    high = min((part + 0.5) / whole for part, whole in fractions)
    for scale in (*(part / whole for part, whole in fractions), (low + high) / 2):
        if all(scaled_size(*frame, scale) == label for label, frame in sizes):
            return scale
    return None


def centred(image: Shaped[np.ndarray, "h w"], size: Size, fill: int) -> Shaped[np.ndarray, "h2 w2"]:
    """An image laid back to where the published code cut it from: the centre of a frame of `size`, padded at the right
    and the bottom where the frame was too small (spec-stage1 1.3). What was not in it is `fill`."""
    canvas = np.full(size, fill, image.dtype)
    top, left = ((max(whole, part) - part) // 2 for whole, part in zip(size, image.shape, strict=True))
    height, width = (min(whole, part) for whole, part in zip(size, image.shape, strict=True))
    canvas[top : top + height, left : left + width] = image[:height, :width]
    return canvas


def read_classes(path: Path, num_classes: int) -> Int16[np.ndarray, "h w"]:
    """Pseudo classes, 255 as `VOID`. Raises `ImageError`, also for a class that is not below `num_classes`."""
    classes = read_ids(path)
    classes[classes == UNKNOWN] = VOID
    if classes.max(initial=0) >= num_classes or classes.min(initial=0) < VOID:
        wrong = classes[(classes >= num_classes) | (classes < VOID)][0]
        raise ImageError(
            f"{path} holds class {wrong}, but there are only {num_classes} (0 to {num_classes - 1}, and {UNKNOWN} for "
            "unknown); is the number of classes right?"
        )
    return classes.astype(np.int16)


def read_objects(path: Path) -> Int32[np.ndarray, "h w"]:
    """Masks numbered 1, 2, .. by ascending id, 0 = none. Raises `ImageError`."""
    ids = read_ids(path)
    if ids.min(initial=0) < 0 or ids.max(initial=0) > MAX_READ:
        raise ImageError(f"{path} holds ids outside 0 to {MAX_READ}; is it an instance map?")
    return without_gaps(ids)


def without_gaps(ids: Integer[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """Ids 0 (none) and 1, 2, .. in the order of the given ones."""
    present = np.zeros(int(ids.max(initial=0)) + 1, bool)
    present[ids.ravel()] = True
    present[0] = False
    numbers = np.where(present, np.cumsum(present), 0).astype(np.int32)
    closed: Int32[np.ndarray, "h w"] = numbers[ids]
    return closed


def write_classes(path: Path, classes: Int16[np.ndarray, "h w"]) -> None:
    """The inverse of `read_classes`, atomically. Raises `DiskError`."""
    write_ids(path, np.where(classes < 0, UNKNOWN, classes), bits=8)


def list_statistics(folder: Path) -> list[Path]:
    """The files of statistics in a directory, sorted."""
    return sorted(folder.glob(f"{SPLIT}*{SPLIT_SUFFIX}"))


def read_statistics(paths: Sequence[Path]) -> ClassStatistics | None:
    """The sum of the files of statistics, None without any. Nothing in them is executed.

    Raises `CheckpointError` for a file that is damaged, unsafe or something else, or of another number of classes.
    """
    counts = [_read_counts(path) for path in paths]
    for path, one in zip(paths, counts, strict=True):
        if one.num_classes != counts[0].num_classes:
            raise CheckpointError(
                f"{path} counts {one.num_classes} classes but {paths[0].name} {counts[0].num_classes}; they are of "
                "different runs: remove the old ones"
            )
    return summed(counts, counts[0].num_classes) if counts else None


def _read_counts(path: Path) -> ClassStatistics:
    content = read_checkpoint(path)
    vectors: dict[str, np.ndarray] = {}
    for field, name in COUNTS.items():
        if not isinstance(content, dict) or name not in content:
            raise CheckpointError(f"{path} lacks '{name}', so it holds no statistics of pseudo labels; remove it")
        vectors[field] = _vector(path, name, content[name])
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise CheckpointError(f"the counts in {path} are of different numbers of classes; remove it or make it again")
    return ClassStatistics(**vectors)


def _vector(path: Path, name: str, value: Any) -> Int64[np.ndarray, "k"]:
    """Counts from a tensor or an array. Raises `CheckpointError` for anything else."""
    try:
        vector = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        vector = np.zeros(0, object)
    if vector.ndim == 1 and vector.dtype.kind in "iu" and len(vector):
        counts: Int64[np.ndarray, "k"] = vector.astype(np.int64)
        if counts.min() >= 0:
            return counts
    raise CheckpointError(f"'{name}' in {path} is no list of counts; remove the file or make it again")


def write_statistics(path: Path, counts: ClassStatistics) -> None:
    """Writes a file of statistics as torch tensors (int64), atomically; `torch.load(weights_only=True)` reads it.
    Raises `DiskError`."""
    import torch

    tensors = {name: torch.from_numpy(getattr(counts, field).copy()) for field, name in COUNTS.items()}
    content = io.BytesIO()  # in memory, since torch writes the name of a file into it
    torch.save(tensors, content)
    write_bytes(path, content.getvalue())
