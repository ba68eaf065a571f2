"""What every layout lists, and how a listed frame is read: images, intrinsics at their scale, valid pixels, truth.

Opening a data set lists directories and reads calibrations; images are opened only when a frame is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt8

from cupola.data.points import (
    DENSITY,
    POINTS_SUFFIX,
    LabelledPoints,
    decode_points,
    labelled_pixels,
    moving_ids,
    read_points,
)
from cupola.data.resizing import resize_image
from cupola.data.truth import read_truth
from cupola.errors import ConfigError, DataError, ImageError
from cupola.io import image_size, read_rgb
from cupola.io.video import VideoFrames
from cupola.taxonomy import Taxonomy
from cupola.types import Calibration, PanopticMap, StereoClip, StereoFrame

Item = TypeVar("Item")

MAX_SCALE = 4.0
"""Larger factors are taken for a mistake: nothing is gained by enlarging images."""
MAX_STEP = 1.5
"""Two frames are consecutive in time up to this many median steps of their sequence (spec-stage1 1.5: a missing frame
doubles the step)."""


@dataclass(frozen=True)
class VideoFrame:
    """Frame `index` (from 0) of a video file."""

    path: Path
    index: int

    def __str__(self) -> str:
        return f"frame {self.index} of {self.path}"


ImageSource = Path | VideoFrame


@dataclass(frozen=True)
class FrameRecord:
    """One stereo frame as a layout lists it; nothing is decoded.

    key: unique in the data set and usable as a file name; sequence, number: frames of a sequence whose numbers differ
    by one are neighbours in time; calibration: at the full image size; calibration_source: the file it came from;
    time [s]; truth: instance ids of the left image (`cupola.data.truth`), or labelled pixels of it as .npz
    (`cupola.data.points`); moving: raw instance ids that move from this frame to the next, where the data set says so.
    """

    key: str
    sequence: str
    number: int
    left: ImageSource
    right: ImageSource
    calibration: Calibration
    calibration_source: str
    time: float | None = None
    truth: Path | None = None
    moving: frozenset[int] | None = None


@dataclass(frozen=True)
class Margins:
    """Fractions of the image, from each side, that do not show the scene (ego vehicle, rectification border).

    Such pixels are unknown: neither background nor object (spec-stage1 1.5 and S4).
    """

    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0

    def __post_init__(self) -> None:
        for name in ("top", "bottom", "left", "right"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"the {name} margin must be a fraction from 0 to below 1, not {getattr(self, name)}")
        if self.top + self.bottom >= 1 or self.left + self.right >= 1:
            raise ConfigError(f"the margins leave no pixel of the image: {self}")

    def valid(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """True where an image of this size [px] shows the scene."""
        mask = np.zeros((height, width), bool)
        rows = slice(round(self.top * height), height - round(self.bottom * height))
        mask[rows, round(self.left * width) : width - round(self.right * width)] = True
        return mask


@dataclass(frozen=True)
class Gap:
    """Two neighbouring entries of a sequence that are not neighbours in time, so that they make no pair."""

    sequence: str
    before: str
    after: str


@dataclass(frozen=True)
class StereoDataset:
    """Stereo frames of one directory, sorted by sequence and number.

    scale: factor that every image is resized by when it is read; notes: what was left out on opening and why;
    truth_base: how the truth images pack class and instance (`cupola.data.truth`).
    Raises `DataError` where two frames share a key and `ConfigError` for an impossible scale.
    """

    layout: str
    root: Path
    records: tuple[FrameRecord, ...]
    margins: Margins = Margins()
    scale: float = 1.0
    notes: tuple[str, ...] = ()
    truth_base: int = 1000
    _videos: VideoFrames = field(default_factory=VideoFrames, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.scale <= MAX_SCALE:
            raise ConfigError(f"scale must be above 0 and at most {MAX_SCALE:g}, not {self.scale}")
        seen: dict[str, FrameRecord] = {}
        for record in self.records:
            if record.key in seen:
                raise DataError(f"{seen[record.key].left} and {record.left} get the same key {record.key}; rename one")
            seen[record.key] = record

    def __len__(self) -> int:
        return len(self.records)

    @property
    def sequences(self) -> dict[str, tuple[FrameRecord, ...]]:
        """Frames of each sequence, in order of their number."""
        found: dict[str, list[FrameRecord]] = defaultdict(list)
        for record in self.records:
            found[record.sequence].append(record)
        return {name: tuple(sorted(found[name], key=lambda record: record.number)) for name in sorted(found)}

    def pairs(self) -> tuple[tuple[FrameRecord, FrameRecord], ...]:
        """Neighbours in time: numbers that differ by one and, where times are known, no longer step than
        `MAX_STEP` (spec-stage1 1.5, S7)."""
        return tuple(
            pair for frames in self.sequences.values() for pair, consecutive in _neighbours(frames) if consecutive
        )

    def gaps(self) -> tuple[Gap, ...]:
        """Where a sequence has frames missing."""
        return tuple(
            Gap(name, first.key, second.key)
            for name, frames in self.sequences.items()
            for (first, second), consecutive in _neighbours(frames)
            if not consecutive
        )

    def source_size(self, record: FrameRecord) -> tuple[int, int]:
        """(height, width) [px] of the left image on disk, from its header. Raises `ImageError`."""
        if isinstance(record.left, VideoFrame):
            return self._videos.reader(record.left.path).size
        return image_size(record.left)

    def left(self, record: FrameRecord) -> UInt8[np.ndarray, "h w 3"]:
        """The left image at the working size. Raises `ImageError`."""
        return resize_image(self._read(record.left), self.scale)

    def frame(self, record: FrameRecord) -> StereoFrame:
        """Reads and resizes a frame; the intrinsics follow. Raises `ImageError` for a missing, damaged or unequal
        image."""
        left, right = self._read(record.left), self._read(record.right)
        if left.shape != right.shape:
            raise ImageError(
                f"{record.left} is {left.shape[1]} x {left.shape[0]} pixels but {record.right} is "
                f"{right.shape[1]} x {right.shape[0]}; rectify both to one size"
            )
        full_height, full_width = left.shape[:2]
        left, right = resize_image(left, self.scale), resize_image(right, self.scale)
        height, width = left.shape[:2]
        return StereoFrame(
            left=left,
            right=right,
            calibration=record.calibration.resized(width / full_width, height / full_height),
            valid=self.margins.valid(height, width),
            key=record.key,
            time=record.time,
        )

    def clip(self, pair: tuple[FrameRecord, FrameRecord]) -> StereoClip:
        """Reads both frames of a pair. Raises `ImageError`, also where the two frames differ in size."""
        first, second = self.frame(pair[0]), self.frame(pair[1])
        if first.size != second.size:
            raise ImageError(f"{pair[0].left} and {pair[1].left} differ in size; a sequence must keep one image size")
        return StereoClip(first, second)

    def truth(self, record: FrameRecord, taxonomy: Taxonomy) -> PanopticMap | None:
        """Classes of `taxonomy` (`VOID` where it has none) and instance ids class * 1000 + n, 0 for stuff and crowds,
        at the working size (nearest pixel); None where the data set has no truth for the frame. Sparse truth is `VOID`
        but for some pixels (`cupola.data.points`, with instance ids of its own). Raises `ImageError`, `DataError`."""
        if record.truth is None:
            return None
        points = self._points(record)
        if points is not None:
            return decode_points(points, taxonomy, self.source_size(record), self.scale)
        return read_truth(record.truth, taxonomy, self.truth_base, self.scale)

    def truth_density(self) -> float:
        """Share of an object's pixels of which the truth says anything: 1, or less where it is sparse."""
        return DENSITY if any(_is_sparse(record) for record in self.records) else 1.0

    def judged(
        self, record: FrameRecord, prediction: PanopticMap, truth: PanopticMap
    ) -> tuple[PanopticMap, PanopticMap]:
        """Both maps of the frame where they may be compared: as they are, or at the n labelled pixels of sparse truth,
        as maps of 1 x n. Of other pixels nothing can be said, which is not the same as void: an object that covers a
        few false pixels and many that nobody labelled is false. Raises `DataError`."""
        points = self._points(record)
        if points is None:
            return prediction, truth
        mask = labelled_pixels(points, self.source_size(record), self.scale)
        first, second = (
            PanopticMap(each.classes[mask][None], each.instances[mask][None]) for each in (prediction, truth)
        )
        return first, second

    def moving(self, record: FrameRecord) -> frozenset[int] | None:
        """Instance ids (as in `truth`) that move from this frame to the next (of sparse truth: at some time while
        they are seen); None where the data set doesn't say. Raises `DataError`."""
        points = self._points(record)
        return record.moving if points is None else moving_ids(points)

    def _points(self, record: FrameRecord) -> LabelledPoints | None:
        return read_points(record.truth) if record.truth is not None and _is_sparse(record) else None

    def _read(self, source: ImageSource) -> UInt8[np.ndarray, "h w 3"]:
        if isinstance(source, VideoFrame):
            return self._videos.reader(source.path).read(source.index)
        return read_rgb(source)


def _is_sparse(record: FrameRecord) -> bool:
    return record.truth is not None and record.truth.suffix == POINTS_SUFFIX


def _neighbours(frames: tuple[FrameRecord, ...]) -> list[tuple[tuple[FrameRecord, FrameRecord], bool]]:
    """Each two successive frames of a sequence, and whether they are neighbours in time."""
    pairs = list(pairwise(frames))
    steps = [
        second.time - first.time
        for first, second in pairs
        if first.time is not None and second.time is not None and second.number == first.number + 1
    ]
    longest = MAX_STEP * median(steps) if steps else float("inf")

    def consecutive(first: FrameRecord, second: FrameRecord) -> bool:
        if second.number != first.number + 1:
            return False
        return first.time is None or second.time is None or 0 < second.time - first.time <= longest

    return [(pair, consecutive(*pair)) for pair in pairs]


def every_kth(items: tuple[Item, ...], every: int, limit: int | None) -> tuple[Item, ...]:
    """Every `every`-th item, at most the first `limit` of these. Raises `ConfigError` for less than 1 of either."""
    if every < 1:
        raise ConfigError(f"every must be at least 1, not {every}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    return items[::every][:limit]
