"""COCO panoptic files: an RGB PNG of 24-bit segment ids an image, and one JSON of segments and categories.

The label store and the predictions are both in this form, so every tool that reads COCO panoptic opens them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from scipy.ndimage import find_objects

from cupola.errors import StoreError
from cupola.io.files import write_json
from cupola.io.images import read_rgb, write_rgb
from cupola.types import VOID, PanopticMap, Segment

MAX_ID = (1 << 24) - 1


@dataclass(frozen=True)
class Category:
    """A class of the file: id as in `Segment.category`."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Annotation:
    """The segments of one image. file_name: the PNG inside the panoptic folder; image: the image's own path, relative
    to the folder of images (for the reader's tools; never opened by us)."""

    key: str
    file_name: str
    image: str
    height: int
    width: int
    segments: tuple[Segment, ...]


def ids_to_rgb(ids: Int32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Segment ids 0 .. 2^24 - 1 as R + 256 G + 65536 B. Raises `ValueError` outside that range."""
    if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
        raise ValueError(f"segment ids {ids.min()}..{ids.max()} are outside 0..{MAX_ID}")
    little_endian = np.ascontiguousarray(ids, "<i4").view(np.uint8)
    return little_endian.reshape(*ids.shape, 4)[..., :3].copy()


def rgb_to_ids(rgb: UInt8[np.ndarray, "h w 3"]) -> Int32[np.ndarray, "h w"]:
    """The inverse of `ids_to_rgb`."""
    wide = rgb.astype(np.int32)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16


def to_segments(
    panoptic: PanopticMap, things: Sequence[int] | frozenset[int], scores: dict[int, float] | None = None
) -> tuple[Int32[np.ndarray, "h w"], tuple[Segment, ...]]:
    """Segment ids (0 = void) and their description: one segment a stuff class, one an instance of a thing class.

    An instance counts as a thing segment of its class where the class is among `things`; pixels of a thing class
    without instance form one segment without a score. scores: by instance id.
    """
    is_thing = np.isin(panoptic.classes, list(things))
    known = panoptic.classes != VOID
    packed = np.where(known, (panoptic.classes.astype(np.int64) + 1) << 32, 0)
    packed += np.where(known & is_thing, panoptic.instances, 0)
    values, inverse, areas = np.unique(packed, return_inverse=True, return_counts=True)
    ids = np.zeros(len(values), np.int32)
    segments: list[Segment] = []
    for position, (value, area) in enumerate(zip(values.tolist(), areas.tolist(), strict=True)):
        if value == 0:
            continue
        category, instance = (value >> 32) - 1, value & 0xFFFFFFFF
        ids[position] = len(segments) + 1
        score = (scores or {}).get(instance) if instance else None
        segments.append(Segment(len(segments) + 1, category, category in things, area, score))
    image = ids[inverse.reshape(packed.shape)]
    return image, with_boxes(image, segments)


def with_boxes(ids: Int32[np.ndarray, "h w"], segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments with the boxes that they have in the image of their ids 1, 2, ..; some readers insist on them."""
    found = find_objects(ids, max((segment.id for segment in segments), default=0))
    boxes = {
        number: (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        for number, (rows, columns) in ((n, place) for n, place in enumerate(found, 1) if place is not None)
    }
    return tuple(replace(segment, box=boxes.get(segment.id)) for segment in segments)


def from_segments(ids: Int32[np.ndarray, "h w"], segments: Sequence[Segment]) -> PanopticMap:
    """The panoptic map of segment ids; ids without a description are void. Instances keep the segment ids of things,
    except crowds."""
    highest = int(ids.max(initial=0))
    classes, instances = np.full(highest + 1, VOID, np.int16), np.zeros(highest + 1, np.int32)
    for segment in segments:
        if segment.id <= highest:
            classes[segment.id] = segment.category
            instances[segment.id] = segment.id if segment.is_thing and not segment.is_crowd else 0
    return PanopticMap(classes[ids], instances[ids])


def write_map(path: Path, ids: Int32[np.ndarray, "h w"]) -> None:
    """Writes the PNG of one image, atomically. Raises `DiskError`."""
    write_rgb(path, ids_to_rgb(ids))


def write_index(
    path: Path, annotations: Sequence[Annotation], categories: Sequence[Category], info: dict[str, Any]
) -> None:
    """Writes panoptic.json, atomically. Raises `DiskError`."""
    images = [
        {"id": number, "file_name": a.image, "height": a.height, "width": a.width, "key": a.key}
        for number, a in enumerate(annotations, 1)
    ]
    entries = [
        {
            "image_id": number,
            "file_name": a.file_name,
            "segments_info": [
                {"id": s.id, "category_id": s.category, "area": s.area, "iscrowd": int(s.is_crowd)}
                | ({} if s.score is None else {"score": round(s.score, 4)})
                | ({} if s.box is None else {"bbox": list(s.box)})
                for s in a.segments
            ],
        }
        for number, a in enumerate(annotations, 1)
    ]
    kinds = [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "supercategory": "", "color": list(c.color)}
        for c in categories
    ]
    write_json(path, {"info": info, "images": images, "annotations": entries, "categories": kinds})


def read_index(path: Path) -> tuple[tuple[Annotation, ...], tuple[Category, ...]]:
    """Reads panoptic.json as written here or by others. Raises `StoreError` naming the file and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = tuple(
            Category(int(c["id"]), str(c["name"]), bool(c["isthing"]), tuple(c.get("color", (0, 0, 0))))
            for c in content["categories"]
        )
        is_thing = {category.id: category.is_thing for category in categories}
        images = {image["id"]: image for image in content["images"]}
        annotations = tuple(_annotation(entry, images[entry["image_id"]], is_thing) for entry in content["annotations"])
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; is this a folder of COCO panoptic files?") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is not a COCO panoptic file ({type(error).__name__}: {error}); make it again"
        ) from error
    return annotations, categories


def _annotation(entry: dict[str, Any], image: dict[str, Any], is_thing: dict[int, bool]) -> Annotation:
    name = PurePosixPath(entry["file_name"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"file_name {name} leaves the folder")
    segments = tuple(_segment(s, is_thing) for s in entry["segments_info"])
    key = str(image.get("key", name.stem))
    return Annotation(key, str(name), str(image["file_name"]), int(image["height"]), int(image["width"]), segments)


def _segment(entry: dict[str, Any], is_thing: dict[int, bool]) -> Segment:
    category = int(entry["category_id"])
    box = entry.get("bbox")
    where = None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
    area, crowd = int(entry.get("area", 0)), bool(entry.get("iscrowd", 0))
    return Segment(int(entry["id"]), category, is_thing[category], area, entry.get("score"), where, crowd)


def read_map(folder: Path, annotation: Annotation) -> PanopticMap:
    """The panoptic map of one image. Raises `ImageError` where its PNG is missing or damaged, `StoreError` where its
    size is not the one told."""
    rgb = read_rgb(folder / annotation.file_name)
    if rgb.shape[:2] != (annotation.height, annotation.width):
        raise StoreError(
            f"{folder / annotation.file_name} is {rgb.shape[1]} x {rgb.shape[0]}, but its index says "
            f"{annotation.width} x {annotation.height}; make it again"
        )
    return from_segments(rgb_to_ids(rgb), annotation.segments)
