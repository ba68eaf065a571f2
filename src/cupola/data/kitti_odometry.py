"""KITTI odometry: `sequences/NN/image_2/FFFFFF.png` (left), `image_3` (right), `calib.txt`, `times.txt`.

Takes the data set, its `sequences` folder, or one sequence. The grey cameras `image_0` and `image_1` are taken where
the colour ones are absent. Line i of `times.txt` is frame i. No margins: the car that carries the cameras is not in the
image. Truth, where there: `labels_image_2/FFFFFF.npz`, lidar points with the labels of SemanticKITTI
(`cupola.data.points`), of the left colour image.
"""

from __future__ import annotations

import os
from pathlib import Path

from cupola.data.dataset import FrameRecord, StereoDataset
from cupola.data.kitti_calibration import read_kitti_calibration
from cupola.data.listing import Layout, frame_number, match_images, safe_name, subdirectories
from cupola.data.points import POINTS_SUFFIX
from cupola.errors import DataError

_CAMERAS = (("image_2", "image_3", "P2", "P3"), ("image_0", "image_1", "P0", "P1"))
"""Left and right folder and their projections in calib.txt: colour first, then grey."""
_LABELS, _LABELLED_CAMERA = "labels_image_2", "image_2"
"""Folder of labelled pixels, and of the images that they are pixels of."""


def _is_sequence(folder: Path) -> bool:
    has_images = any((folder / left).is_dir() for left, *_ in _CAMERAS)
    return has_images and not (folder / "calib_cam_to_cam").is_dir() and not _holds_sequences(folder)


def _holds_sequences(folder: Path) -> bool:
    return any((child / left).is_dir() for child in subdirectories(folder / "sequences") for left, *_ in _CAMERAS)


def _sequences(root: Path) -> list[Path]:
    for parent in (root / "sequences", root / "dataset" / "sequences", root):
        found = [folder for folder in subdirectories(parent) if folder.name.isdigit() and _is_sequence(folder)]
        if found:
            return found
    return [root] if _is_sequence(root) and root.resolve().name not in ("training", "testing") else []


def matches(root: Path) -> bool:
    """Whether `root` holds sequences of KITTI odometry."""
    return bool(_sequences(root))


def _times(path: Path) -> list[float]:
    if not path.is_file():
        return []
    try:
        return [float(line) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path} holds a line that is not a time in seconds; copy it again or remove it") from error


def _truths(folder: Path) -> dict[str, Path]:
    """Files of labelled pixels by frame."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(POINTS_SUFFIX))
    return {name.removesuffix(POINTS_SUFFIX): folder / name for name in names}


def _read_sequence(folder: Path) -> list[FrameRecord]:
    left, right, left_key, right_key = next(cameras for cameras in _CAMERAS if (folder / cameras[0]).is_dir())
    path = folder / "calib.txt"
    name = folder.resolve().name
    calibration = read_kitti_calibration(path, left_key, right_key)
    times = _times(folder / "times.txt")
    truths = _truths(folder / _LABELS) if left == _LABELLED_CAMERA else {}
    records = []
    for stem, left_image, right_image in match_images(folder / left, folder / right):
        number = frame_number(stem, left_image)
        records.append(
            FrameRecord(
                key=f"{safe_name(name)}_{stem}",
                sequence=name,
                number=number,
                left=left_image,
                right=right_image,
                calibration=calibration,
                calibration_source=str(path),
                time=times[number] if number < len(times) else None,
                truth=truths.get(stem),
            )
        )
    return records


def read(root: Path) -> StereoDataset:
    """Lists KITTI odometry. Raises `DataError`, `CalibrationError` or `ImageError` naming what is missing."""
    records = tuple(record for folder in _sequences(root) for record in _read_sequence(folder))
    return StereoDataset(LAYOUT.name, root, records)


LAYOUT = Layout("kitti_odometry", "sequences/NN/image_2, image_3 and calib.txt", matches, read)
