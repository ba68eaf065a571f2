"""Cityscapes: `leftImg8bit_sequence/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png` (or `leftImg8bit/...`), the
same with `rightImg8bit` in both places, `camera/...`, and `gtFine/...` where there (spec-stage1 1.1, spec-network 6.1).

Takes the data set, or one split or city in its folder of left images (`.../leftImg8bit_sequence/train`). The video
frames are preferred where there are both. Left images without a right one are no stereo frames: they are passed over
and counted in the notes, since the annotated left images are often had alone.

Margins: top 5 % and bottom 20 % (bonnet) and 96 of 2048 columns on either side (rectification) are unknown, in every
split (S5).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupola.data.dataset import FrameRecord, Margins, StereoDataset
from cupola.data.listing import Layout, images_by_stem, subdirectories
from cupola.errors import CalibrationError, DataError, ImageError
from cupola.progress import progress
from cupola.types import Calibration

MARGINS = Margins(top=0.05, bottom=0.20, left=96 / 2048, right=96 / 2048)
"""Spec-stage1 1.1, `valid`."""
MAX_CAMERA_DISTANCE = 20
"""A camera file this many frames away or more is of another snippet (spec-stage1 1.1)."""
FRAMES_PER_SECOND = 17.0
"""Rate of the snippets (spec-stage1 1.1)."""

_LEFT_FOLDERS = ("leftImg8bit_sequence", "leftImg8bit")
_NAME = re.compile(r"(?P<sequence>.+_[0-9]+)_(?P<frame>[0-9]+)_(?P<kind>leftImg8bit|camera)")


@dataclass(frozen=True)
class _City:
    """Where one city of one split is: base is the root of the data set, images its folder of left images."""

    base: Path
    images: str
    split: str
    name: str

    def folder(self, kind: str) -> Path:
        return self.base / kind / self.split / self.name


def _cities(root: Path) -> list[_City]:
    """Cities below `root`, which may be the data set, a folder of left images, a split or a city."""
    inside = root.absolute()
    for images in _LEFT_FOLDERS:
        if inside.name == images:
            return _cities_of(inside.parent, images, None, None)
        if inside.parent.name == images:
            return _cities_of(inside.parent.parent, images, inside.name, None)
        if inside.parent.parent.name == images:
            return _cities_of(inside.parent.parent.parent, images, inside.parent.name, inside.name)
        found = _cities_of(root, images, None, None)
        if found:
            return found
    return []


def _cities_of(base: Path, images: str, split: str | None, city: str | None) -> list[_City]:
    splits = [split] if split else [folder.name for folder in subdirectories(base / images)]
    return [
        _City(base, images, part, name)
        for part in splits
        for name in ([city] if city else [folder.name for folder in subdirectories(base / images / part)])
    ]


def matches(root: Path) -> bool:
    """Whether `root` holds folders of Cityscapes' left images, or is one of them."""
    return bool(_cities(root))


def read_camera(path: Path) -> Calibration:
    """Reads a camera.json. Raises `CalibrationError` naming the file and the key."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} is not readable JSON; copy it again") from error

    def number(group: str, key: str) -> float:
        part: Any = content.get(group) if isinstance(content, dict) else None
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CalibrationError(f"{path} lacks the number {group}.{key}; copy it again")
        return float(value)

    fx, fy, cx, cy = (number("intrinsic", key) for key in ("fx", "fy", "u0", "v0"))
    baseline = number("extrinsic", "baseline")
    try:
        return Calibration(fx, fy, cx, cy, baseline)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


class _Cameras:
    """Camera files of a city; each is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, list[tuple[int, Path]]] = defaultdict(list)
        self._read: dict[Path, Calibration] = {}
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                name = _NAME.fullmatch(path.stem)
                if name is not None and path.suffix == ".json":
                    self._files[name["sequence"]].append((int(name["frame"]), path))

    def of(self, sequence: str, frame: int) -> tuple[Calibration, Path]:
        """Calibration of a frame: the only file of its sequence, else the nearest in frame number (spec-stage1 1.1).

        Raises `CalibrationError` naming the frame where there is none closer than `MAX_CAMERA_DISTANCE`.
        """
        files = self._files[sequence]
        if not files:
            raise CalibrationError(
                f"{self.folder / sequence}_*_camera.json is missing, so frame {frame} of {sequence} has no "
                "calibration; unpack the camera files of Cityscapes there"
            )
        distance, path = min((abs(number - frame), path) for number, path in files)
        if len(files) > 1 and distance >= MAX_CAMERA_DISTANCE:
            raise CalibrationError(
                f"frame {frame} of {sequence} has no camera file within {MAX_CAMERA_DISTANCE - 1} frames in "
                f"{self.folder}; the nearest is {path.name}: unpack all camera files of Cityscapes there"
            )
        if path not in self._read:
            self._read[path] = read_camera(path)
        return self._read[path], path


def _read_city(city: _City, missing: list[tuple[Path, Path]]) -> list[FrameRecord]:
    right_folder = city.folder(city.images.replace("left", "right"))
    rights = images_by_stem(right_folder) if right_folder.is_dir() else {}
    truth_folder = city.folder("gtFine")
    truths = images_by_stem(truth_folder) if truth_folder.is_dir() else {}
    cameras = _Cameras(city.folder("camera"))
    records = []
    for stem, left in images_by_stem(city.folder(city.images)).items():
        name = _NAME.fullmatch(stem)
        if name is None or name["kind"] != "leftImg8bit":
            raise DataError(
                f"{left} is not named CITY_SEQUENCE_FRAME_leftImg8bit as Cityscapes does; move it elsewhere"
            )
        right = rights.get(stem.replace("leftImg8bit", "rightImg8bit"))
        if right is None:
            missing.append((left, right_folder / left.name.replace("leftImg8bit", "rightImg8bit")))
            continue
        key = stem.removesuffix("_leftImg8bit")
        frame = int(name["frame"])
        calibration, source = cameras.of(name["sequence"], frame)
        records.append(
            FrameRecord(
                key=key,
                sequence=name["sequence"],
                number=frame,
                left=left,
                right=right,
                calibration=calibration,
                calibration_source=str(source),
                time=frame / FRAMES_PER_SECOND,
                truth=truths.get(f"{key}_gtFine_instanceIds"),
            )
        )
    return records


def read(root: Path) -> StereoDataset:
    """Lists Cityscapes. Raises `ImageError` where no left image has a right one, `CalibrationError` for a frame without
    a camera file, `DataError` for a strange name."""
    missing: list[tuple[Path, Path]] = []
    cities = progress(_cities(root), "listing")
    records = tuple(record for city in cities for record in _read_city(city, missing))
    if missing and not records:
        raise ImageError(f"{missing[0][1]} is missing and so is every other right image; unpack the right images there")
    notes: tuple[str, ...] = ()
    if missing:
        notes = (f"{len(missing)} left images have no right one and are left out, the first is {missing[0][0]}",)
    return StereoDataset(LAYOUT.name, root, records, MARGINS, notes=notes)


LAYOUT = Layout(
    "cityscapes",
    "leftImg8bit_sequence (or leftImg8bit), rightImg8bit_sequence (or rightImg8bit) and camera, each SPLIT/CITY/",
    matches,
    read,
)
