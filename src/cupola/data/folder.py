"""Your own stereo rig, in the simplest layout there is.

    ROOT/                        or, with several sequences, ROOT/SEQUENCE/ with the same inside
      calibration.yaml           in the sequence, else in ROOT
      left/000000.png ...        rectified images (or one video, left.mp4)
      right/000000.png ...       the same names (or right.mp4)
      truth/000000_instanceIds.png   optional: label ids, things as id * 1000 + n (Cityscapes)
      truth/moving.json          optional: {"000000": [26001]}: instances that move from this frame to the next

`calibration.yaml` describes the rectified pair:

    fx: 718.9          # focal lengths [px]
    fy: 718.9
    cx: 607.2          # principal point of the left camera [px]; the centre of the first pixel is (0, 0)
    cy: 185.2
    baseline: 0.54     # metres from the left to the right camera
    width: 1241        # optional: the image size that the numbers above are for; images of another size are refused
    height: 376
    fps: 10            # optional: frames a second
    margins:           # optional: fractions of the image that don't show the scene (a bonnet, a black border)
      bottom: 0.1      # top, bottom, left, right; the same for all sequences

Frames are numbered by the last number in their name; only consecutive numbers are taken as neighbours in time. Names
that end in a time stamp (13, 16 or 19 digits: ms, us, ns; or seconds, as in 1311868164.363181) are numbered in order,
and a step of more than one and a half usual steps is a gap. Keys are `<sequence>_<name>`, or `<name>` where ROOT itself
is the sequence. There are no margins unless `calibration.yaml` gives them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from cupola.data.dataset import FrameRecord, ImageSource, Margins, StereoDataset, VideoFrame
from cupola.data.listing import Layout, frame_number, images_by_stem, match_images, safe_name, subdirectories
from cupola.errors import CalibrationError, ConfigError, DataError, ImageError
from cupola.io import image_size
from cupola.io.video import VIDEO_SUFFIXES, VideoReader
from cupola.types import Calibration

CALIBRATION_NAME = "calibration.yaml"
_REQUIRED = {
    "fx": "horizontal focal length [px]",
    "fy": "vertical focal length [px]",
    "cx": "principal point, x [px]",
    "cy": "principal point, y [px]",
    "baseline": "distance of the cameras [m]",
}
_OPTIONAL = ("width", "height", "fps", "margins")
_STAMP_UNITS = {13: 1e-3, 16: 1e-6, 19: 1e-9}
"""Digits of a time stamp since 1970 -> its unit [s]."""
_TRUTH_SUFFIX = "_instanceIds"


@dataclass(frozen=True)
class FolderCalibration:
    """Contents of a calibration.yaml. size: (height, width) [px] that it is for; fps: frames a second."""

    calibration: Calibration
    margins: Margins
    size: tuple[int, int] | None
    fps: float | None


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CalibrationError(f"{path}: {name} must be a number, not {value!r}")
    return float(value)


def _check_keys(path: Path, found: dict[Any, Any], known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise CalibrationError(f"{path}: there is no setting {key!r}; {hint}")


def _margins(path: Path, found: Any) -> Margins:
    if found is None:
        return Margins()
    if not isinstance(found, dict):
        raise CalibrationError(f"{path}: margins must hold top, bottom, left or right, not {found!r}")
    _check_keys(path, found, tuple(field.name for field in fields(Margins)))
    try:
        return Margins(**{str(name): _number(path, f"margins.{name}", value) for name, value in found.items()})
    except ConfigError as error:
        raise CalibrationError(f"{path}: {error}") from error


def read_calibration(path: Path) -> FolderCalibration:
    """Reads a calibration.yaml. Raises `CalibrationError` naming the file and the key."""
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise CalibrationError(
            f"{path} is missing; write fx, fy, cx, cy [px] and baseline [m] of the rectified pair into it"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(
            f"{path} is not readable YAML: {' '.join(str(error).split())}; mend or rewrite it"
        ) from error
    if not isinstance(found, dict):
        raise CalibrationError(f"{path} must hold lines such as `fx: 700`; it holds {found!r}")
    _check_keys(path, found, (*_REQUIRED, *_OPTIONAL))
    for key, meaning in _REQUIRED.items():
        if key not in found:
            raise CalibrationError(f"{path} lacks {key}, the {meaning}; add it")
    values = {key: _number(path, key, found[key]) for key in _REQUIRED}
    try:
        calibration = Calibration(**values)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    if ("width" in found) != ("height" in found):
        raise CalibrationError(f"{path} gives only one of width and height; give both or neither")
    size = None
    if "width" in found:
        size = int(_number(path, "height", found["height"])), int(_number(path, "width", found["width"]))
    fps = _number(path, "fps", found["fps"]) if "fps" in found else None
    if fps is not None and not 0 < fps < float("inf"):
        raise CalibrationError(f"{path}: fps must be positive, not {fps}")
    return FolderCalibration(calibration, _margins(path, found.get("margins")), size, fps)


def _video(folder: Path, side: str) -> Path | None:
    for suffix in VIDEO_SUFFIXES:
        if (folder / f"{side}{suffix}").is_file():
            return folder / f"{side}{suffix}"
    return None


def _is_sequence(folder: Path) -> bool:
    return (folder / "left").is_dir() or _video(folder, "left") is not None


def _sequences(root: Path) -> list[Path]:
    if _is_sequence(root):
        return [root]
    return [folder for folder in subdirectories(root) if _is_sequence(folder)]


def matches(root: Path) -> bool:
    """Whether `root`, or folders in it, hold left/ or a video left.mp4."""
    return bool(_sequences(root))


@dataclass(frozen=True)
class _Entry:
    stem: str
    number: int
    left: ImageSource
    right: ImageSource
    time: float | None


def _video_entries(left: Path, right: Path | None, fps: float | None, notes: list[str]) -> Iterator[_Entry]:
    if right is None:
        raise ImageError(f"{left.with_stem('right')} is missing: {left} has no right video; add it")
    with VideoReader(left) as reader, VideoReader(right) as right_reader:
        counts = reader.count(), right_reader.count()
        rate = fps or reader.rate
    if counts[0] != counts[1]:
        notes.append(f"{left} holds {counts[0]} frames and {right} {counts[1]}; the surplus at the end is left out")
    for i in range(min(counts)):
        yield _Entry(f"{i:06d}", i, VideoFrame(left, i), VideoFrame(right, i), i / rate if rate else None)


def _time_stamp(stem: str) -> float | None:
    """Seconds since 1970 at the end of a name, if there are any."""
    seconds = re.search(r"(?<![0-9])[0-9]{9,10}\.[0-9]+$", stem)
    if seconds:
        return float(seconds[0])
    digits = re.search(r"[0-9]+$", stem)
    unit = _STAMP_UNITS.get(len(digits[0])) if digits else None
    return int(digits[0]) * unit if digits and unit else None


def _image_entries(folder: Path, fps: float | None) -> Iterator[_Entry]:
    images = match_images(folder / "left", folder / "right")
    stamps = {stem: stamp for stem, *_ in images if (stamp := _time_stamp(stem)) is not None}
    if len(stamps) == len(images):
        images.sort(key=lambda image: stamps[image[0]])
        for i, (stem, left, right) in enumerate(images):
            yield _Entry(stem, i, left, right, stamps[stem])
        return
    seen: dict[int, Path] = {}
    for stem, left, right in images:
        number = frame_number(stem, left)
        if number in seen:
            raise DataError(f"{seen[number]} and {left} both have frame number {number}; put them into two sequences")
        seen[number] = left
        yield _Entry(stem, number, left, right, number / fps if fps else None)


def _moving(folder: Path) -> dict[str, frozenset[int]]:
    path = folder / "truth" / "moving.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        return {str(stem): frozenset(int(instance) for instance in instances) for stem, instances in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f'{path} must hold {{"<frame>": [instance ids]}}; mend or remove it') from error


def _check_image_size(path: Path, calibration: FolderCalibration, source: ImageSource) -> None:
    """Compares the first image of a sequence with the size that the calibration is for."""
    if calibration.size is None:
        return
    if isinstance(source, VideoFrame):
        with VideoReader(source.path) as reader:
            size = reader.size
    else:
        size = image_size(source)
    if size != calibration.size:
        raise CalibrationError(
            f"{path} is for images of {calibration.size[1]} x {calibration.size[0]} pixels, but {source} has "
            f"{size[1]} x {size[0]}; scale fx, fy, cx, cy to that size"
        )


def _read_sequence(folder: Path, root: Path, notes: list[str]) -> tuple[list[FrameRecord], Margins]:
    path = folder / CALIBRATION_NAME
    if not path.is_file():
        path = root / CALIBRATION_NAME
    calibration = read_calibration(path)
    video = _video(folder, "left")
    if (folder / "left").is_dir():
        entries = list(_image_entries(folder, calibration.fps))
    else:
        assert video is not None  # _is_sequence
        entries = list(_video_entries(video, _video(folder, "right"), calibration.fps, notes))
    if entries:
        _check_image_size(path, calibration, entries[0].left)
    prefix = "" if folder == root else f"{safe_name(folder.name)}_"
    truths = images_by_stem(folder / "truth") if (folder / "truth").is_dir() else {}
    moving = _moving(folder)
    records = [
        FrameRecord(
            key=prefix + safe_name(entry.stem),
            sequence=folder.resolve().name,
            number=entry.number,
            left=entry.left,
            right=entry.right,
            calibration=calibration.calibration,
            calibration_source=str(path),
            time=entry.time,
            truth=truths.get(entry.stem + _TRUTH_SUFFIX),
            moving=moving.get(entry.stem),
        )
        for entry in entries
    ]
    return records, calibration.margins


def read(root: Path) -> StereoDataset:
    """Lists a folder of stereo sequences. Raises `DataError`, `CalibrationError` or `ImageError` naming the file."""
    records: list[FrameRecord] = []
    notes: list[str] = []
    margins: Margins | None = None
    for folder in _sequences(root):
        found, found_margins = _read_sequence(folder, root, notes)
        if margins is not None and found_margins != margins:
            raise CalibrationError(
                f"{folder / CALIBRATION_NAME} gives other margins than the sequences before it; make them the same, or "
                "run the sequences as separate data sets"
            )
        margins = found_margins
        records += found
    return StereoDataset(LAYOUT.name, root, tuple(records), margins or Margins(), notes=tuple(notes))


LAYOUT = Layout("folder", f"left/ and right/ (or left.mp4 and right.mp4) and {CALIBRATION_NAME}", matches, read)
