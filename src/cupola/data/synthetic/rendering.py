"""Frames of a rendered street, in memory: images and exact truth."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from cupola.data.synthetic.columns import CAM_BASELINE, CAM_CX, CAM_CY, CAM_FX, CAM_FY, CAM_X, CAM_YAW
from cupola.data.synthetic.raster.kernels import camera_rotation, exact_truth, nearest_depths, place, prepare, rasterize
from cupola.data.synthetic.scene import Scene, make_scene
from cupola.data.synthetic.settings import StreetSettings, StreetTruth
from cupola.data.synthetic.shading.kernels import shade_image
from cupola.data.synthetic.shadow.ground import GroundLight, grid_frame, ground_light
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
    seed: int,
    sequence: int,
    frames: int,
    height: int,
    width: int,
    settings: StreetSettings = StreetSettings(),
    span: range | None = None,
) -> Iterator[tuple[StereoFrame, StreetTruth]]:
    """Renders one sequence, frame by frame.

    Args:
        seed: of the whole data set.
        sequence: number of the sequence; each is another street.
        frames: how many frames.
        height, width: image size [px].
        settings: how the street is filmed and how busy it is.
        span: which frames, all by default; a frame is the same in any span.

    Raises `ConfigError` for an impossible size or length.
    """
    check_size(frames, height, width)
    renderer = Renderer(make_scene(seed, sequence, frames, settings), height, width)
    for t in range(frames) if span is None else span:
        yield renderer.frame(t, seed, sequence)


def street_frame(
    seed: int, sequence: int, t: int, frames: int, height: int, width: int, settings: StreetSettings = StreetSettings()
) -> tuple[StereoFrame, StreetTruth]:
    """Frame t of `street(...)`, alone."""
    check_size(frames, height, width)
    if not 0 <= t < frames:
        raise ConfigError(f"frame {t} is outside the video's 0..{frames - 1}")
    return Renderer(make_scene(seed, sequence, frames, settings), height, width).frame(t, seed, sequence)


def check_size(frames: int, height: int, width: int) -> None:
    """Raises `ConfigError` where a video of this length and size [px] cannot be rendered."""
    if frames < 1:
        raise ConfigError(f"a video needs at least one frame, but frames = {frames}")
    for name, value in (("height", height), ("width", width)):
        if not MIN_SIDE <= value <= MAX_SIDE:
            raise ConfigError(f"the image {name} must be {MIN_SIDE}..{MAX_SIDE} px, but is {value}")


class Renderer:
    """Renders the frames of one scene; it remembers the light on the ground where nothing moves."""

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self.scene = scene
        self.height, self.width = height, width
        self._tiles, self._gamma = noise_tiles(), gamma_table()
        self._identity = scene.identity()
        self._standing: GroundLight | None = None
        self._known_poses: dict[int, np.ndarray] = {}

    def _poses(self, t: int) -> np.ndarray:
        """Pose of every actor at frame t; those of two frames are kept, since each is needed twice."""
        if t not in self._known_poses:
            self._known_poses = {k: poses for k, poses in self._known_poses.items() if abs(k - t) == 1}
            self._known_poses[t] = self.scene.poses(t)
        return self._known_poses[t]

    def ground_light(self, t: int, camera: np.ndarray, poses: np.ndarray) -> GroundLight:
        """Sun and shadow on the ground at frame t."""
        casters, light = self.scene.casters, self.scene.light
        frame = grid_frame(float(camera[CAM_X]), float(camera[CAM_X + 2]), float(camera[CAM_YAW]))
        if self._standing is None or not np.array_equal(self._standing.frame, frame):
            self._standing = ground_light(casters, poses, light, frame, self._tiles)
        return ground_light(casters, poses, light, frame, self._tiles, self._standing.grid)

    def frame(self, t: int, seed: int, sequence: int) -> tuple[StereoFrame, StreetTruth]:
        """Both images and the truth of frame t; seed and sequence make the sensor noise and the key."""
        scene, height, width = self.scene, self.height, self.width
        camera, poses = scene.camera(t, height, width), self._poses(t)
        placed = place(scene.shapes, poses, camera)
        depths = nearest_depths(scene.shapes, placed, FAR, camera, height, width)
        order = np.argsort(depths, kind="stable")
        order = order[: np.searchsorted(depths[order], np.inf)]
        light = self.ground_light(t, camera, poses)
        ground = light.packed()
        images = []
        for eye in (1, 0):
            moved = _eye(camera, eye * camera[CAM_BASELINE])
            geometry = placed.copy()
            geometry[:, 0, 0] -= eye * camera[CAM_BASELINE]
            prepared = prepare(scene.shapes, geometry, order, camera_rotation(camera))
            noise = zlib.crc32(f"{seed} {sequence} {t} {eye}".encode())
            images.append(self._image(geometry, prepared, order, moved, ground, light.frame, noise))
        truth = self._truth(t, placed, prepared, order, camera)
        calibration = scene.settings.calibration(height, width)
        valid = np.ones((height, width), bool)
        key, time = frame_key(sequence, t), t * scene.settings.interval
        return StereoFrame(images[1], images[0], calibration, valid, key, time), truth

    def _image(
        self,
        geometry: np.ndarray,
        prepared: np.ndarray,
        order: np.ndarray,
        camera: np.ndarray,
        ground: np.ndarray,
        ground_frame: np.ndarray,
        noise: int,
    ) -> np.ndarray:
        """One eye's image, from 2 x 2 samples a pixel."""
        fx, fy, cx, cy = camera[[CAM_FX, CAM_FY, CAM_CX, CAM_CY]]
        seen = np.empty((2 * self.height, 2 * self.width), np.int32)
        nearness = np.empty(seen.shape, np.float32)
        fine = (2 * fx, 2 * fy, 2 * cx + 0.5, 2 * cy + 0.5)
        rasterize(self.scene.shapes, geometry, prepared, order, *fine, self._tiles, seen, nearness)
        image = np.empty((self.height, self.width, 3), np.uint8)
        shade_image(
            seen, self.scene.shapes, prepared, camera, camera_rotation(camera), self.scene.light, ground,
            ground_frame, self._tiles, self._gamma, self.scene.settings.noise, noise, image,
        )  # fmt: skip
        return image

    def _truth(
        self, t: int, geometry: np.ndarray, prepared: np.ndarray, order: np.ndarray, camera: np.ndarray
    ) -> StreetTruth:
        """Truth at the pixel centres of the left image."""
        scene = self.scene
        seen = np.empty((self.height, self.width), np.int32)
        nearness = np.empty(seen.shape, np.float32)
        lens = camera[[CAM_FX, CAM_FY, CAM_CX, CAM_CY]]
        rasterize(scene.shapes, geometry, prepared, order, *lens, self._tiles, seen, nearness)
        camera_next = scene.camera(t + 1, self.height, self.width)
        poses, poses_next = self._poses(t), self._poses(t + 1)
        after = place(scene.shapes, poses_next, camera_next)
        turn = camera_rotation(camera_next) @ camera_rotation(camera).T
        depth, disparity, flow, classes, instances, visible = exact_truth(
            scene.shapes, prepared, after, camera, turn, seen, self._identity
        )
        moves = np.linalg.norm(poses_next[:, :3] - poses[:, :3], axis=1) >= scene.settings.moving_shift
        moving = frozenset(self._identity[moves & visible].tolist()) - {0}
        return StreetTruth(disparity, depth, flow, instances, classes, moving)


def _eye(camera: np.ndarray, shift: float) -> np.ndarray:
    """The camera moved `shift` metres to its right."""
    moved = camera.copy()
    moved[CAM_X : CAM_X + 3] += shift * camera_rotation(camera)[0]
    return moved
