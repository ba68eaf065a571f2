"""Class-agnostic masks in COCO's form, as detectors write them: run lengths (plain or packed) or polygons.

    [{"image_id": 1, "score": 0.9, "segmentation": {"size": [h, w], "counts": "..."}}, ...]      results, or
    {"images": [{"id": 1, "file_name": "a.png"}, ...], "annotations": [the same]}                 a whole data set

Files come from others: everything is checked before it is used, and nothing is trusted to have the size it claims.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int64

from cupola.errors import DataError
from cupola.io.images import MAX_PIXELS

MAX_BYTES = 4_000_000_000
"""Larger files of masks are refused [bytes]; 100 masks an image on 20,000 images are a tenth of it."""

ImageId = int | str

_SYMBOL_ZERO, _MORE, _SIGN, _BITS = 48, 0x20, 0x10, 5
"""A packed run is written in 5-bit digits, lowest first, as ASCII from 48 on; bit 6 says that another digit follows,
bit 5 of the last one is the sign (COCO's mask format)."""

_MOST_DIGITS = 6
"""30 bits hold every run of an image of `MAX_PIXELS`."""


@dataclass(frozen=True)
class ImageEntry:
    """An image that masks are of. size: (height, width) [px], if the file tells it."""

    file_name: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class CocoMask:
    """A detection as the file has it. score in [0, 1]; size: (height, width) [px] of its image; `decode` gives the
    mask."""

    score: float
    size: tuple[int, int]
    content: str | Sequence[int] | Sequence[Sequence[int | float]]

    def decode(self) -> Bool[np.ndarray, "h w"]:
        """The mask. Raises `ValueError` where the content is no mask of this size."""
        if isinstance(self.content, str):
            return runs_to_mask(unpack_runs(self.content), self.size)
        if self.content and not isinstance(self.content[0], int):
            return _filled([np.asarray(polygon, np.float64) for polygon in self.content], self.size)
        return runs_to_mask(np.asarray(self.content, np.int64), self.size)


def unpack_runs(packed: str) -> Int64[np.ndarray, "n"]:
    """Lengths of the runs in COCO's packed form, all digits at once. Raises `ValueError` where it is not that."""
    if not packed.isascii():
        raise ValueError("packed run lengths hold a character outside ASCII")
    symbols = np.frombuffer(packed.encode("ascii"), np.uint8).astype(np.int64) - _SYMBOL_ZERO
    if symbols.size and (symbols.min() < 0 or symbols.max() >= 2 * _MORE):
        raise ValueError("packed run lengths hold a character that stands for no digit")
    last = (symbols & _MORE) == 0
    if not symbols.size:
        return np.zeros(0, np.int64)
    if not last[-1]:
        raise ValueError("packed run lengths are cut off")
    ends = np.flatnonzero(last)
    starts = np.append(0, ends[:-1] + 1)
    if (ends - starts).max() >= _MOST_DIGITS:
        raise ValueError("a packed run length is longer than any image")
    place = np.arange(len(symbols)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((symbols & (_MORE - 1)) << (_BITS * place), starts)
    negative = (symbols[ends] & _SIGN) > 0
    values -= np.where(negative, np.int64(1) << (_BITS * (ends - starts + 1)), 0)
    # from the fourth run on a number is the difference to the run two before it
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def runs_to_mask(runs: Int64[np.ndarray, "n"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of runs outside, inside, outside .., down the columns. Raises `ValueError` unless they fill `size`."""
    height, width = size
    if runs.size and runs.min() < 0:
        raise ValueError("a run length is negative")
    if runs.sum() != height * width:
        raise ValueError(f"the run lengths cover {int(runs.sum())} of {height * width} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def read_masks(
    path: Path, images: Path | None = None
) -> tuple[dict[ImageId, tuple[CocoMask, ...]], dict[ImageId, ImageEntry]]:
    """Detections by image id, best first, and the images by id, empty where neither file lists them.

    images: JSON with COCO's list of `images`, for results that lack it. A detection without a score has 1. Raises
    `DataError` naming the file and the entry.
    """
    content = _json(path)
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f"{path} is neither a list of detections nor an object with `annotations` in COCO's form")
    listed = content if images is None else _json(images)
    named = _images(path if images is None else images, listed)
    found: dict[ImageId, list[CocoMask]] = {}
    for number, entry in enumerate(entries):
        try:
            image_id = _image_id(entry["image_id"])
            found.setdefault(image_id, []).append(_mask(entry, named.get(image_id)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"detection {number} of {path} cannot be used: {reason}; write the file again") from error
    best_first = {image: sorted(masks, key=lambda mask: -mask.score) for image, masks in found.items()}
    return {image: tuple(masks) for image, masks in best_first.items()}, named


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES:,} bytes; split it, or drop detections of low score")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; it should hold masks in COCO's form") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({type(error).__name__}); write it again") from error


def _images(path: Path, content: Any) -> dict[ImageId, ImageEntry]:
    listed = content.get("images", []) if isinstance(content, dict) else []
    named: dict[ImageId, ImageEntry] = {}
    try:
        for image in listed:
            size = (image["height"], image["width"]) if "height" in image and "width" in image else None
            image_id = _image_id(image["id"])
            if image_id in named:
                raise ValueError(f"id {image_id!r} occurs twice")
            named[image_id] = ImageEntry(str(image["file_name"]), None if size is None else _size(size))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the `images` of {path} are not in COCO's form ({error}); write the file again") from error
    return named


def _image_id(value: Any) -> ImageId:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"an image id must be a number or a name, not {value!r}")
    return value


def _size(value: Any) -> tuple[int, int]:
    """(height, width) [px], checked."""
    height, width = value
    if not all(isinstance(side, int) and side > 0 for side in (height, width)) or height * width > MAX_PIXELS:
        raise ValueError(f"the size {height} x {width} is outside 1 .. {MAX_PIXELS:,} pixels")
    return height, width


def _mask(entry: Mapping[str, Any], image: ImageEntry | None) -> CocoMask:
    score = entry.get("score", 1.0)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise ValueError(f"its score must be a number from 0 to 1, not {score!r}")
    segmentation = entry["segmentation"]
    if isinstance(segmentation, dict):
        size, counts = _size(segmentation["size"]), segmentation["counts"]
        packed = isinstance(counts, str)
        if not packed and not (isinstance(counts, list) and all(map(_is_run, counts))):
            raise ValueError("the counts of its segmentation are neither packed nor a list of lengths [px]")
        return CocoMask(float(score), size, counts)
    if not isinstance(segmentation, list) or not segmentation or not all(map(_is_polygon, segmentation)):
        raise ValueError("its segmentation is neither run lengths nor polygons of three corners or more")
    if image is None or image.size is None:
        raise ValueError("its segmentation is a polygon, but no list of images tells the height and width of its image")
    return CocoMask(float(score), image.size, segmentation)


def _is_run(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_PIXELS


def _is_polygon(corners: Any) -> bool:
    if not isinstance(corners, list) or len(corners) < 6 or len(corners) % 2:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) for value in corners)


def _filled(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The area of polygons (x, y, x, y, ..) in continuous coordinates, in which pixel centres lie at halves; to about
    half a pixel."""
    height, width = size
    canvas = np.zeros(size, np.uint8)
    for polygon in polygons:
        corners = np.clip(polygon.reshape(-1, 2), -1, (width + 1, height + 1))
        cv2.fillPoly(canvas, [np.rint(corners - 0.5).astype(np.int32)], 1)
    return canvas > 0
