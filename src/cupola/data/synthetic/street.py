"""Frames of a rendered street, in memory: images and exact truth."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from cupola.data.synthetic.columns import CAM_BASELINE, CAM_CX, CAM_CY, CAM_FX, CAM_FY
from cupola.data.synthetic.raster.kernels import camera_rotation, exact_truth, nearest_depths, place, rasterize
from cupola.data.synthetic.scene import Scene, make_scene
from cupola.data.synthetic.settings import StreetSettings, StreetTruth
from cupola.data.synthetic.shading.kernels import shade_image
from cupola.data.synthetic.textures import gamma_table, noise_tiles
from cupola.errors import ConfigError
from cupola.types import StereoFrame

FAR = 280.0
"""Nothing farther is drawn [m]."""
MIN_SIDE, MAX_SIDE = 16, 8192
"""Image sizes that are accepted [px]."""


def frame_key(sequence: int, t: int) -> str:
    """The key that the `folder` layout gives this frame."""
    return f"{sequence:04d}_{t:06d}"


def street(
    seed: int, sequence: int, frames: int, height: int, width: int, settings: StreetSettings = StreetSettings()
) -> Iterator[tuple[StereoFrame, StreetTruth]]:
    """Renders one sequence, frame by frame.

    Args:
        seed: of the whole data set.
        sequence: number of the sequence; each is another street.
        frames: how many frames.
        height, width: image size [px].
        settings: how the street is filmed and how busy it is.

    Raises `ConfigError` for an impossible size or length.
    """
    check_size(frames, height, width)
    scene = make_scene(seed, sequence, frames, settings)
    for t in range(frames):
        yield render_frame(scene, t, height, width, seed, sequence)


def street_frame(
    seed: int, sequence: int, t: int, frames: int, height: int, width: int, settings: StreetSettings = StreetSettings()
) -> tuple[StereoFrame, StreetTruth]:
    """Frame t of `street(...)`, alone."""
    check_size(frames, height, width)
    if not 0 <= t < frames:
        raise ConfigError(f"frame {t} is outside the video's 0..{frames - 1}")
    return render_frame(make_scene(seed, sequence, frames, settings), t, height, width, seed, sequence)


def check_size(frames: int, height: int, width: int) -> None:
    """Raises `ConfigError` where a video of this length and size [px] cannot be rendered."""
    if frames < 1:
        raise ConfigError(f"a video needs at least one frame, but frames = {frames}")
    for name, value in (("height", height), ("width", width)):
        if not MIN_SIDE <= value <= MAX_SIDE:
            raise ConfigError(f"the image {name} must be {MIN_SIDE}..{MAX_SIDE} px, but is {value}")


def render_frame(
    scene: Scene, t: int, height: int, width: int, seed: int, sequence: int
) -> tuple[StereoFrame, StreetTruth]:
    """Both images and the truth of frame t."""
    tiles, gamma = noise_tiles(), gamma_table()
    camera, camera_next = scene.camera(t, height, width), scene.camera(t + 1, height, width)
    before = place(scene.shapes, scene.poses(t), camera)
    depths = nearest_depths(scene.shapes, before, FAR)
    order = np.argsort(depths, kind="stable")
    order = order[: np.searchsorted(depths[order], np.inf)]
    rotation = camera_rotation(camera)
    shadow, shadow_frame = _shadow(scene, t)
    fx, fy, cx, cy = camera[CAM_FX], camera[CAM_FY], camera[CAM_CX], camera[CAM_CY]
    fine = (2 * fx, 2 * fy, 2 * cx + 0.5, 2 * cy + 0.5)  # the grid of 2 x 2 samples a pixel
    seen = np.empty((2 * height, 2 * width), np.int32)
    nearness = np.empty((2 * height, 2 * width), np.float32)
    images = []
    for eye in (0, 1):
        shift = eye * camera[CAM_BASELINE]
        rasterize(scene.shapes, before, order, shift, *fine, tiles, seen, nearness)
        geometry = before.copy()
        geometry[:, 0, 0] -= shift
        key = zlib.crc32(f"{seed} {sequence} {t} {eye}".encode())
        images.append(
            shade_image(
                seen,
                scene.shapes,
                geometry,
                _eye(camera, rotation, shift),
                rotation,
                scene.light,
                shadow,
                shadow_frame,
                tiles,
                gamma,
                scene.settings.noise,
                key,
            )
        )
    after = place(scene.shapes, scene.poses(t + 1), camera_next)
    seen, nearness = np.empty((height, width), np.int32), np.empty((height, width), np.float32)
    rasterize(scene.shapes, before, order, 0.0, fx, fy, cx, cy, tiles, seen, nearness)
    turn = camera_rotation(camera_next) @ rotation.T
    depth, disparity, flow, classes, instances = exact_truth(
        scene.shapes, before, after, camera, turn, seen, scene.identity()
    )
    truth = StreetTruth(disparity, depth, flow, instances, classes, _moving(scene, t, instances))
    calibration = scene.settings.calibration(height, width)
    valid = np.ones((height, width), bool)
    frame = StereoFrame(images[0], images[1], calibration, valid, frame_key(sequence, t), t * scene.settings.interval)
    return frame, truth


def _eye(camera: np.ndarray, rotation: np.ndarray, shift: float) -> np.ndarray:
    """The camera moved `shift` metres to its right."""
    moved = camera.copy()
    moved[:3] += shift * rotation[0]
    return moved


def _shadow(scene: Scene, t: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((3, 4, 4), np.float32), np.array([0.0, 0.0, 1.0])


def _moving(scene: Scene, t: int, instances: np.ndarray) -> frozenset[int]:
    """Visible instances whose place shifts by `moving_shift` or more from frame t to t + 1."""
    now, then = scene.poses(t)[:, :3], scene.poses(t + 1)[:, :3]
    moves = np.linalg.norm(then - now, axis=1) >= scene.settings.moving_shift
    visible = set(np.unique(instances).tolist())
    identity = scene.identity()
    return frozenset(int(identity[i]) for i in np.flatnonzero(moves) if int(identity[i]) in visible)
