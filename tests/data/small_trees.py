"""Tiny data sets in each official layout."""

import json
from pathlib import Path

import numpy as np

from cupola.io import write_ids, write_rgb

HEIGHT, WIDTH = 12, 20
PROJECTIONS = {
    "left": "700 0 9.5 35 0 700 5.5 0 0 0 1 0",  # P[3] = 35: the left colour camera sits 0.05 m off camera 0
    "right": "700 0 9.5 -343 0 700 5.5 0 0 0 1 0",
}
BASELINE = (35 + 343) / 700


def image(path: Path, height: int = HEIGHT, width: int = WIDTH, value: int | None = None) -> Path:
    """An image of noise seeded by its name, or of one value."""
    if value is not None:
        content = np.full((height, width, 3), value, np.uint8)
    else:
        content = np.random.default_rng(list(path.name.encode())).integers(0, 256, (height, width, 3)).astype(np.uint8)
    write_rgb(path, content)
    return path


def ids(path: Path, value: int, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A truth image of one id, with one row of road (7) at the bottom."""
    content = np.full((height, width), value)
    content[-1] = 7
    write_ids(path, content, 16)
    return path


def kitti_odometry(root: Path, frames: dict[str, list[int]], cameras: tuple[str, str] = ("image_2", "image_3")) -> Path:
    keys = {"image_2": "P2", "image_3": "P3", "image_0": "P0", "image_1": "P1"}
    for name, numbers in frames.items():
        folder = root / "sequences" / name
        for number in numbers:
            for camera in cameras:
                image(folder / camera / f"{number:06d}.png")
        lines = [f"{keys[cameras[0]]}: {PROJECTIONS['left']}", f"{keys[cameras[1]]}: {PROJECTIONS['right']}"]
        (folder / "calib.txt").write_text("\n".join(lines) + "\n")
        (folder / "times.txt").write_text("".join(f"{0.1 * i:.6e}\n" for i in range(max(numbers) + 1)))
    return root


def labelled_pixels(path: Path, **arrays) -> Path:
    """Labelled pixels of an image; the first row is road, the second a car (raw SemanticKITTI ids), unless given."""
    row, col = np.divmod(np.arange(2 * WIDTH), WIDTH)
    content = {"row": row, "col": col, "label": np.where(row, 10, 40), "instance": row, "depth": np.full(len(row), 9.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **(content | arrays))
    return path


def kitti_raw(root: Path, frames: dict[str, list[int]]) -> Path:
    for drive, numbers in frames.items():
        day = root / drive[:10]
        for camera in ("image_02", "image_03"):
            for number in numbers:
                image(day / f"{drive}_sync" / camera / "data" / f"{number:010d}.png")
            stamps = [f"2011-09-26 13:02:{i // 10:02d}.{i % 10}64389445" for i in range(max(numbers) + 1)]
            (day / f"{drive}_sync" / camera / "timestamps.txt").write_text("\n".join(stamps) + "\n")
        (day / "calib_cam_to_cam.txt").write_text(
            f"calib_time: 09-Jan-2012 13:57:47\nP_rect_02: {PROJECTIONS['left']}\nP_rect_03: {PROJECTIONS['right']}\n"
        )
    return root


def kitti_2015(root: Path, frames: dict[str, list[int]], split: str = "training") -> Path:
    for clip, numbers in frames.items():
        for number in numbers:
            for camera in ("image_2", "image_3"):
                image(root / split / camera / f"{clip}_{number:02d}.png")
        path = root / split / "calib_cam_to_cam" / f"{clip}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"P_rect_02: {PROJECTIONS['left']}\nP_rect_03: {PROJECTIONS['right']}\n")
    return root


def camera(path: Path, fx: float = 2262.5, baseline: float = 0.209) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    intrinsic = {"fx": fx, "fy": 2265.3, "u0": 1096.9, "v0": 513.1}
    path.write_text(json.dumps({"extrinsic": {"baseline": baseline, "x": 1.7}, "intrinsic": intrinsic}))
    return path


def cityscapes(
    root: Path, frames: dict[str, list[int]], split: str = "train", images: str = "leftImg8bit_sequence"
) -> Path:
    """frames: sequence, for example aachen_000000, -> frame numbers; the camera file is that of frame 19."""
    for sequence, numbers in frames.items():
        city = sequence.split("_")[0]
        for number in numbers:
            name = f"{sequence}_{number:06d}"
            image(root / images / split / city / f"{name}_leftImg8bit.png")
            image(root / images.replace("left", "right") / split / city / f"{name}_rightImg8bit.png")
        camera(root / "camera" / split / city / f"{sequence}_000019_camera.json")
    return root


CALIBRATION = "fx: 700\nfy: 701\ncx: 9.5\ncy: 5.5\nbaseline: 0.54\n"


def folder(root: Path, stems: list[str], calibration: str | None = CALIBRATION) -> Path:
    for stem in stems:
        image(root / "left" / f"{stem}.png")
        image(root / "right" / f"{stem}.png")
    if calibration is not None:
        (root / "calibration.yaml").write_text(calibration)
    return root
