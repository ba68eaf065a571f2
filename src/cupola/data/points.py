"""Sparse truth: SemanticKITTI's labelled lidar points (Behley et al., 2019) at pixels of the left image.

A file `FFFFFF.npz` holds arrays of equal length, an entry a pixel: `row`, `col` [px], `label` (raw SemanticKITTI id),
`instance` (0 = none, else unique together with the label) and `depth` [m]. Pixels that are not listed have no truth:
neither right nor wrong can be said of them.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from cupola.data.resizing import scaled_size
from cupola.errors import DataError
from cupola.taxonomy import Taxonomy
from cupola.types import VOID, PanopticMap

DENSITY = 0.08
"""Share of an object's pixels that have a lidar point: the median over the 92 objects of 100 points or more in 43
frames of seven sequences is 0.080 (points / area of their convex hull)."""

LEAST_POINTS = 8
"""An object of fewer points (of less than about 100 px in the image) is unknown: its IoU would say nothing."""

INSTANCE_BASE = 1 << 16
"""An instance id is raw label * 65536 + instance: both are 16-bit numbers in SemanticKITTI."""

FIRST_MOVING = 252
"""Raw labels from here on are things that move at some time while they are seen (not: in this very frame)."""

LABEL_IDS = {
    10: 26,  # car
    11: 33,  # bicycle
    13: 28,  # bus
    15: 32,  # motorcycle
    16: 31,  # on rails
    18: 27,  # truck
    30: 24,  # person
    31: 25,  # bicyclist
    32: 25,  # motorcyclist
    40: 7,  # road
    44: 9,  # parking
    48: 8,  # sidewalk
    50: 11,  # building
    51: 13,  # fence
    60: 7,  # lane marking
    70: 21,  # vegetation
    71: 21,  # trunk
    72: 22,  # terrain
    80: 17,  # pole
    81: 20,  # traffic sign
    252: 26,  # moving car
    253: 25,  # moving bicyclist
    254: 24,  # moving person
    255: 25,  # moving motorcyclist
    256: 31,  # moving on rails
    257: 28,  # moving bus
    258: 27,  # moving truck
}
"""Raw SemanticKITTI label -> Cityscapes label id. The others (unlabelled, other vehicle, other ground, other structure,
other object) have no class there."""

POINTS_SUFFIX = ".npz"

_ARRAYS = ("row", "col", "label", "instance", "depth")


@dataclass(frozen=True)
class LabelledPoints:
    """Labelled pixels of one image. row, col [px]; label: raw SemanticKITTI id; instance: 0 = none; depth [m]."""

    row: Int64[np.ndarray, "n"]
    col: Int64[np.ndarray, "n"]
    label: Int64[np.ndarray, "n"]
    instance: Int64[np.ndarray, "n"]
    depth: Float32[np.ndarray, "n"]

    def inside(self, size: tuple[int, int], scale: float) -> LabelledPoints:
        """The points in the image of `size` (height, width) [px] resized by `scale`; of those that share a pixel, the
        nearest. Raises `DataError` for points outside the image."""
        height, width = size
        if self.row.size and (self.row.max() >= height or self.col.max() >= width):
            raise DataError(f"points reach row {self.row.max()}, column {self.col.max()}, outside {width} x {height}")
        new_height, new_width = scaled_size(height, width, scale)
        row, col = self.row * new_height // height, self.col * new_width // width
        nearest_first = np.argsort(self.depth, kind="stable")
        _, chosen = np.unique((row * new_width + col)[nearest_first], return_index=True)
        kept = nearest_first[chosen]
        return LabelledPoints(row[kept], col[kept], self.label[kept], self.instance[kept], self.depth[kept])

    def instance_ids(self) -> Int64[np.ndarray, "n"]:
        """Id of the object of each point, unique in the image; 0 where it is none."""
        ids: Int64[np.ndarray, "n"] = np.where(self.instance > 0, self.label * INSTANCE_BASE + self.instance, 0)
        return ids


def read_points(path: Path) -> LabelledPoints:
    """Reads a file of labelled pixels; nothing in it is executed. Raises `DataError` saying what is wrong with it."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            missing = [name for name in _ARRAYS if name not in archive.files]
            if missing:
                raise DataError(f"{path} has no array `{missing[0]}`; a file of labelled pixels holds {_ARRAYS}")
            arrays = [np.asarray(archive[name]) for name in _ARRAYS]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise DataError(
            f"{path} is not an npz file of labelled pixels, or is damaged ({error}); copy it again"
        ) from error
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise DataError(f"{path}: {', '.join(_ARRAYS)} are not lists of equal length; copy it again")
    *numbers, depth = arrays
    if any(array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() < 1 << 16)
           for array in numbers):  # fmt: skip
        raise DataError(f"{path}: {', '.join(_ARRAYS[:-1])} must be whole numbers from 0 to 65535; copy it again")
    if depth.dtype.kind not in "iuf":
        raise DataError(f"{path} has depths that are no numbers; copy it again")
    row, col, label, instance = (array.astype(np.int64) for array in numbers)
    return LabelledPoints(row, col, label, instance, depth.astype(np.float32))


def decode_points(points: LabelledPoints, taxonomy: Taxonomy, size: tuple[int, int], scale: float) -> PanopticMap:
    """Truth of an image of `size` (height, width) [px] resized by `scale`: classes of `taxonomy` at labelled pixels,
    `VOID` at all others, and where the taxonomy has no such class or the object has less than `LEAST_POINTS` points.

    Instance ids as `LabelledPoints.instance_ids`; 0 for stuff. Raises `DataError` for points outside the image.
    """
    raw = np.full(1 << 16, VOID, np.int16)
    table = taxonomy.from_label_ids()
    for label, label_id in LABEL_IDS.items():
        raw[label] = table[label_id]
    is_thing = np.append(np.array(taxonomy.is_thing, bool), False)  # the last entry answers for VOID = -1
    small = _small_things(points, is_thing[raw])
    kept = points.inside(size, scale)
    classes = np.full(scaled_size(*size, scale), VOID, np.int16)
    instances = np.zeros(classes.shape, np.int32)
    known = ~np.isin(_segment(kept), small)
    found = np.where(known, raw[kept.label], VOID)
    classes[kept.row, kept.col] = found
    instances[kept.row, kept.col] = np.where(is_thing[found], kept.instance_ids(), 0)
    return PanopticMap(classes, instances)


def _segment(points: LabelledPoints) -> Int64[np.ndarray, "n"]:
    segments: Int64[np.ndarray, "n"] = points.label * INSTANCE_BASE + points.instance
    return segments


def _small_things(points: LabelledPoints, thing_labels: Bool[np.ndarray, "65536"]) -> Int64[np.ndarray, "k"]:
    """(label, instance), packed, of things with fewer than `LEAST_POINTS` points."""
    segments, numbers = np.unique(_segment(points), return_counts=True)
    small: Int64[np.ndarray, "k"] = segments[(numbers < LEAST_POINTS) & thing_labels[segments // INSTANCE_BASE]]
    return small


def labelled_pixels(points: LabelledPoints, size: tuple[int, int], scale: float) -> Bool[np.ndarray, "h w"]:
    """True at the pixels that have a label, be it one without a class. Raises `DataError` for points outside."""
    kept = points.inside(size, scale)
    mask = np.zeros(scaled_size(*size, scale), bool)
    mask[kept.row, kept.col] = True
    return mask


def moving_ids(points: LabelledPoints) -> frozenset[int]:
    """Instance ids (as in `decode_points`) of what moves at some time while it is seen."""
    ids = points.instance_ids()[points.label >= FIRST_MOVING]
    return frozenset(int(number) for number in np.unique(ids) if number)
