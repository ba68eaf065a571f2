"""Which layout a directory is in, and opening it."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from pathlib import Path

from cupola.data import cityscapes, folder, kitti_2015, kitti_odometry, kitti_raw
from cupola.data.dataset import StereoDataset
from cupola.data.listing import Layout
from cupola.errors import ConfigError, DataError

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        kitti_odometry.LAYOUT,
        kitti_raw.LAYOUT,
        kitti_raw.PAPER_LAYOUT,
        kitti_2015.LAYOUT,
        cityscapes.LAYOUT,
        folder.LAYOUT,
    )
}
"""Every layout, in the order in which `auto` tries them (so it never takes kitti_raw_paper)."""


def detect_layout(root: Path) -> str:
    """Name of the first layout that `root` is in. Raises `DataError` saying what each layout looks for."""
    for layout in LAYOUTS.values():
        if layout.matches(root):
            return layout.name
    looked_for = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS.values())
    raise DataError(f"{root} is in no layout that cupola knows ({looked_for}); rearrange it or name another directory")


def open_dataset(root: Path, layout: str = "auto", scale: float = 1.0) -> StereoDataset:
    """Lists the stereo frames of a directory without reading an image.

    Args:
        root: the directory.
        layout: a name in `LAYOUTS`, or `auto` to find out.
        scale: factor for the size of the images as they are read; intrinsics follow.

    Raises `DataError` (and its kinds `CalibrationError`, `ImageError`) for whatever is missing, and `ConfigError` for
    an unknown layout or an impossible scale.
    """
    if layout != "auto" and layout not in LAYOUTS:
        near = get_close_matches(layout, ["auto", *LAYOUTS], n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are auto, {', '.join(LAYOUTS)}"
        raise ConfigError(f"there is no layout {layout!r}; {hint}")
    if not root.exists():
        raise DataError(f"{root} does not exist; name the directory of a data set")
    if not root.is_dir():
        raise DataError(f"{root} is not a directory; name the directory that holds the data set")
    try:
        dataset = _read(root, layout)
    except PermissionError as error:
        raise DataError(f"{error.filename} may not be read by you; change its permissions") from error
    return dataclasses.replace(dataset, scale=scale)


def _read(root: Path, layout: str) -> StereoDataset:
    if not any(root.iterdir()):
        raise DataError(f"{root} is empty; name the directory that holds the data set")
    name = detect_layout(root) if layout == "auto" else layout
    if not LAYOUTS[name].matches(root):
        raise DataError(f"{root} is not in layout {name}, which looks for {LAYOUTS[name].looks_for}")
    dataset = LAYOUTS[name].read(root)
    if not dataset.records:
        raise DataError(f"{root} is in layout {name} but holds no stereo frame; fill it or name another directory")
    return dataset
