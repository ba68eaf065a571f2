"""Masks that any other network has found, from a file in COCO's form, instead of what moves (docs/baselines.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool

from cupola.data.listing import safe_name
from cupola.errors import ConfigError, DataError
from cupola.io import content_hash
from cupola.io.coco_masks import CocoMask, ImageId, read_masks
from cupola.types import Correspondence, Instances, StereoClip, StereoFrame

MAX_STRETCH = 0.02
"""Masks of another size are taken over if the two scales differ by less than this share."""

FOLDERS = 4
"""So many folders above an image may give a part of its frame's key; no layout has more between them."""


@dataclass(frozen=True)
class MasksFromFile:
    """Masks of single images, made by any network (CutLER, VideoCutLER, ...); no motion is used.

    Args:
        file: JSON of detections in COCO's form: image_id, score, segmentation (run lengths or polygons).
        images: JSON with COCO's list of images (id, file_name), for results whose image ids are numbers and that do
            not list the images themselves. Frames are found by file name.
        score: detections of a lower score are left out.
        overlap: the best detection comes first; a later one is dropped if more than this share of it is taken, and else
            keeps what is left.
    """

    file: Path
    images: Path | None = None
    score: float = 0.5
    overlap: float = 0.5

    name: ClassVar[str] = "masks"

    def __post_init__(self) -> None:
        for name in ("score", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"motion.{name} must be from 0 to 1, not {getattr(self, name)}")

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """Reads the file and looks for the images of these frames. Raises `DataError` where it cannot be read, lacks a
        frame that it should list, or (where it lists no images) has a detection on none of them."""
        found = self._found()
        wanted = [key for key, _ in keys]
        missing = [key for key in wanted if key not in found.images]
        if missing and (found.lists_images or len(missing) == len(wanted)):
            raise DataError(
                f"{self.images or self.file} names no image of frame {missing[0]} (its images are named like "
                f"{found.example}); take the detections of this data set's left images, with their list of images in "
                "--motion.images"
            )
        for key in wanted:
            found.image_of(key)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files. Raises `DataError` where one is missing."""
        self._found()
        files = {"file": self.file} | ({} if self.images is None else {"images": self.images})
        return {name: content_hash(path) for name, path in files.items()}

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """The objects of the clip's first frame; correspondence and seed are not read. Raises `DataError`."""
        return self.objects(clip.first)

    def objects(self, frame: StereoFrame) -> Instances:
        """Objects on the left image, best first and none overlapping another, without motions. Unlike what moves they
        are not cut to the pixels that show the scene. Raises `DataError` for a mask that is damaged or of another
        shape than the image."""
        taken = np.zeros(frame.size, bool)
        masks, scores = [], []
        for number, detection in enumerate(self._found().of(frame.key)):
            if detection.score < self.score:
                break
            mask = self._mask(detection, frame, number)
            area = mask.sum()
            free = mask & ~taken
            if area and free.sum() >= (1 - self.overlap) * area and free.any():
                masks.append(free)
                scores.append(detection.score)
                taken |= mask
        if not masks:
            return Instances.empty(*frame.size)
        return Instances(np.stack(masks), np.array(scores, np.float32))

    def _mask(self, detection: CocoMask, frame: StereoFrame, number: int) -> Bool[np.ndarray, "h w"]:
        """The mask at the size of the frame, by the nearest pixel."""
        (height, width), (rows, columns) = detection.size, frame.size
        if abs((rows / height) / (columns / width) - 1) > MAX_STRETCH:
            raise DataError(
                f"{self.file}: the masks of frame {frame.key} are for an image of {width} x {height} pixels, but it is "
                f"{columns} x {rows}; detect on the whole left images"
            )
        try:
            mask = detection.decode()
        except ValueError as error:
            raise DataError(f"{self.file}: mask {number} of frame {frame.key} is damaged ({error})") from error
        resized: Bool[np.ndarray, "h w"] = (
            cv2.resize(mask.view(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT) > 0
        )
        return resized

    def _found(self) -> _Found:
        return _read(self.file, self.images, *_stamp(self.file), *(_stamp(self.images) if self.images else ()))


@dataclass(frozen=True)
class _Found:
    """What the file holds. images: ids of the images that a key may mean; example: the name of one of them."""

    file: Path
    masks: Mapping[ImageId, tuple[CocoMask, ...]]
    images: Mapping[str, tuple[ImageId, ...]]
    example: str
    lists_images: bool

    def image_of(self, key: str) -> ImageId | None:
        """The image of a frame, None where it has no detection. Raises `DataError` where there are several."""
        found = self.images.get(key, ())
        if len(found) > 1:
            raise DataError(f"{self.file}: {len(found)} images could be frame {key}; name them by sequence and frame")
        return found[0] if found else None

    def of(self, key: str) -> tuple[CocoMask, ...]:
        """Detections on a frame, best first."""
        image = self.image_of(key)
        return () if image is None else self.masks.get(image, ())


def keys_of(file_name: str) -> set[str]:
    """Keys that the frame of this left image may have: its name, after any of the folders it lies in."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    stem = safe_name(path.name.rpartition(".")[0] or path.name).removesuffix("_leftImg8bit")
    folders = [safe_name(part) for part in path.parts[:-1]][-FOLDERS:]
    before = [chosen for count in range(len(folders) + 1) for chosen in combinations(folders, count)]
    return {"_".join((*chosen, stem)) for chosen in before}


@lru_cache(maxsize=1)
def _read(file: Path, images: Path | None, *_: int) -> _Found:
    """Read once a process, since the frames come one by one."""
    masks, listed = read_masks(file, images)
    if listed:
        names = [(image.file_name, image_id) for image_id, image in listed.items()]
    else:
        names = [(image_id, image_id) for image_id in masks if isinstance(image_id, str)]
        if len(names) < len(masks):
            raise DataError(
                f"{file} numbers its images without saying which is which, and their order could be any; give the "
                "JSON that lists them (id and file_name) with --motion.images"
            )
    found: dict[str, list[ImageId]] = {}
    for name, image_id in names:
        for key in keys_of(name):
            found.setdefault(key, []).append(image_id)
    ids_of = {key: tuple(ids) for key, ids in found.items()}
    return _Found(file, masks, ids_of, names[0][0] if names else "nothing", bool(listed))


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of the file: another one is read anew. Raises `DataError` where it is missing."""
    try:
        about = path.stat()
    except OSError as error:
        raise DataError(f"there is no file {path}; give --motion.file the detections in COCO's form") from error
    return about.st_size, about.st_mtime_ns
