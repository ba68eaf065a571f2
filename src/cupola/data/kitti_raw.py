"""KITTI raw: `<day>/<drive>_sync/image_02/data/FFFFFFFFFF.png` (left colour), `image_03` (right), rectified and
synchronised; `<day>/calib_cam_to_cam.txt`; `image_02/timestamps.txt` (spec-stage1 1.3).

Takes the data set, one day, or one drive. The five calibration drives show a checkerboard and are left out. The layout
`kitti_raw_paper`, which is never found but must be named, is what the paper trains on: it also leaves out the drives of
the category Person and all that is near the KITTI panoptic validation set (`kitti_validation`).

Margins as published: top 5 % and bottom 20 % are unknown. No part of the ego car is in these images, so for near cars
`dataclasses.replace(dataset, margins=Margins())` keeps more.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cupola.data.dataset import FrameRecord, Margins, StereoDataset
from cupola.data.kitti_calibration import read_kitti_calibration
from cupola.data.kitti_validation import VALIDATION_WINDOW, is_near_validation, is_person_drive
from cupola.data.listing import Layout, frame_number, match_images, subdirectories
from cupola.errors import DataError
from cupola.progress import progress

CALIBRATION_DRIVES = frozenset(
    {
        "2011_09_26_drive_0119",
        "2011_09_28_drive_0225",
        "2011_09_29_drive_0108",
        "2011_09_30_drive_0072",
        "2011_10_03_drive_0058",
    }
)
"""Drives that show a checkerboard in a hall (spec-stage1 1.3)."""

PAPER_MARGINS = Margins(top=0.05, bottom=0.20)
"""Spec-stage1 1.3, row `valid`."""

_DAY = re.compile(r"[0-9]{4}_[0-9]{2}_[0-9]{2}")
_DRIVE = re.compile(r"([0-9]{4}_[0-9]{2}_[0-9]{2}_drive_[0-9]{4})_sync")


def _drives_of(day: Path) -> list[Path]:
    return [folder for folder in subdirectories(day) if _is_drive(folder)]


def _is_drive(folder: Path) -> bool:
    return _DRIVE.fullmatch(folder.resolve().name) is not None and (folder / "image_02" / "data").is_dir()


def _drives(root: Path) -> list[Path]:
    if _is_drive(root):
        return [root]
    days = [folder for folder in subdirectories(root) if _DAY.fullmatch(folder.name)]
    return _drives_of(root) or [drive for day in days for drive in _drives_of(day)]


def matches(root: Path) -> bool:
    """Whether `root` holds drives of KITTI raw, or is one."""
    return bool(_drives(root))


def _times(path: Path) -> list[float]:
    """Seconds since 1970 of each line `YYYY-MM-DD hh:mm:ss.fraction`; none where the file is missing."""
    if not path.is_file():
        return []
    try:
        stamps = [datetime.fromisoformat(line.strip()) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path} holds a line that is not a date and time; copy it again or remove it") from error
    return [stamp.replace(tzinfo=UTC).timestamp() for stamp in stamps]


def _read_drive(drive: Path) -> list[FrameRecord]:
    name = drive.resolve().name
    path = drive.resolve().parent / "calib_cam_to_cam.txt"
    calibration = read_kitti_calibration(path, "P_rect_02", "P_rect_03")
    times = _times(drive / "image_02" / "timestamps.txt")
    records = []
    for stem, left, right in match_images(drive / "image_02" / "data", drive / "image_03" / "data"):
        number = frame_number(stem, left)
        records.append(
            FrameRecord(
                key=f"{name}_{stem}",
                sequence=name,
                number=number,
                left=left,
                right=right,
                calibration=calibration,
                calibration_source=str(path),
                time=times[number] if number < len(times) else None,
            )
        )
    return records


def read(root: Path) -> StereoDataset:
    """Lists KITTI raw. Raises `DataError`, `CalibrationError` or `ImageError` naming what is missing."""
    records: list[FrameRecord] = []
    notes: list[str] = []
    for drive in progress(_drives(root), "listing"):
        name = drive.resolve().name
        if name.removesuffix("_sync") in CALIBRATION_DRIVES:
            notes.append(f"{name} shows only a checkerboard and is left out")
        else:
            records += _read_drive(drive)
    return StereoDataset(LAYOUT.name, root, tuple(records), PAPER_MARGINS, notes=tuple(notes))


def read_as_in_the_paper(root: Path) -> StereoDataset:
    """As `read`, without the frames that the paper leaves out."""
    dataset = read(root)
    drives = {name: name.removesuffix("_sync") for name in dataset.sequences}
    people = [name for name, drive in drives.items() if is_person_drive(drive)]
    outside = [record for record in dataset.records if record.sequence not in people]
    kept = [record for record in outside if not is_near_validation(drives[record.sequence], record.number)]
    validation = len(outside) - len(kept)
    note = (
        f"left out as in the paper: {len(people)} of the drives of people, and {validation} frames of the KITTI "
        f"panoptic validation set or within {VALIDATION_WINDOW} frames of it"
    )
    return replace(dataset, layout=PAPER_LAYOUT.name, records=tuple(kept), notes=(*dataset.notes, note))


LAYOUT = Layout("kitti_raw", "DAY/DRIVE_sync/image_02/data, image_03/data and DAY/calib_cam_to_cam.txt", matches, read)

PAPER_LAYOUT = Layout(
    "kitti_raw_paper", "what kitti_raw does, and leaves out what the paper does", matches, read_as_in_the_paper
)
