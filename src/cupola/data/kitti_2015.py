"""KITTI 2015 stereo and scene flow: `training|testing/image_2/NNNNNN_FF.png` (left), `image_3` (right).

FF is 10 and 11 in the benchmark and 00..20 in its multi-view extension; calibration is one file a clip,
`calib_cam_to_cam/NNNNNN.txt` (P_rect_02, P_rect_03). Truth of frame 10, where there: `instance/` (label id * 256 + n),
else `semantic/` (label ids alone). Where `training` and `testing` are both there, their clips share numbers, so the
keys start with the split. No margins: the car that carries the cameras is not in the image.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from cupola.data.dataset import FrameRecord, StereoDataset
from cupola.data.kitti_calibration import read_kitti_calibration
from cupola.data.listing import Layout, images_by_stem, match_images
from cupola.errors import DataError

_NAME = re.compile(r"([0-9]+)_([0-9]+)")
_TRUTH_BASE = 256
"""Truth packs label id * 256 + instance (KITTI semantic instance benchmark)."""
_FRAME_SECONDS = 0.1
"""Time from one frame to the next [s]: the cameras ran at 10 Hz (Geiger et al., 2013)."""


def _splits(root: Path) -> list[Path]:
    found = [root / split for split in ("testing", "training") if (root / split / "image_2").is_dir()]
    if not found and (root / "image_2").is_dir():
        is_split = root.resolve().name in ("testing", "training") or (root / "calib_cam_to_cam").is_dir()
        return [root] if is_split else []
    return found


def matches(root: Path) -> bool:
    """Whether `root` holds a split of KITTI 2015, or is one."""
    return bool(_splits(root))


def _truths(split: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (split / "semantic", split / "instance"):
        if folder.is_dir():
            found.update(images_by_stem(folder))
    return found


def _read_split(split: Path, prefix: str) -> list[FrameRecord]:
    calibration_of = cache(lambda path: read_kitti_calibration(path, "P_rect_02", "P_rect_03"))
    truths = _truths(split)
    records = []
    for stem, left, right in match_images(split / "image_2", split / "image_3"):
        name = _NAME.fullmatch(stem)
        if name is None:
            raise DataError(f"{left} is not named CLIP_FRAME as KITTI 2015 does, for example 000000_10.png; rename it")
        clip, number = name[1], int(name[2])
        path = split / "calib_cam_to_cam" / f"{clip}.txt"
        records.append(
            FrameRecord(
                key=prefix + stem,
                sequence=prefix + clip,
                number=number,
                left=left,
                right=right,
                calibration=calibration_of(path),
                calibration_source=str(path),
                time=number * _FRAME_SECONDS,
                truth=truths.get(stem),
            )
        )
    return records


def read(root: Path) -> StereoDataset:
    """Lists KITTI 2015. Raises `DataError`, `CalibrationError` or `ImageError` naming what is missing."""
    splits = _splits(root)
    records = [record for split in splits for record in _read_split(split, f"{split.name}_" if len(splits) > 1 else "")]
    return StereoDataset(LAYOUT.name, root, tuple(records), truth_base=_TRUTH_BASE)


LAYOUT = Layout(
    "kitti_2015", "training/image_2 or testing/image_2, image_3 and calib_cam_to_cam/NNNNNN.txt", matches, read
)
