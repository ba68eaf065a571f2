"""A small exact world: road, far wall and upright textured boxes, seen by a stereo rig that drives."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

RIG = Calibration(230.0, 230.0, 159.5, 79.5, 0.5)
SHAPE = (160, 320)
CAMERA_HEIGHT = 1.6
WALL = 45.0


@dataclass(frozen=True)
class Box:
    """An upright rectangle facing the camera: left edge, width, height, depth at t [m]; motion (x, z) [m a frame]."""

    left: float
    width: float
    height: float
    depth: float
    motion: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class World:
    clip: StereoClip
    correspondence: Correspondence
    masks: np.ndarray  # one a box
    boxes: tuple[Box, ...]


def _texture(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((256, 256), np.float32)
    for sigma in (1.2, 3.0, 8.0):
        noise = rng.normal(0, 1, image.shape).astype(np.float32)
        layer = cv2.GaussianBlur(np.tile(noise, (3, 3)), None, sigma)[256:512, 256:512]  # wraps around
        image += layer / layer.std()
    return np.clip(128 + 28 * image, 0, 255).astype(np.float32)


def _view(boxes, camera_x, camera_z, time):
    """Depth, surface number (0 road, 1 wall, 2.. boxes) and grey image of one camera."""
    x, y = np.meshgrid((np.arange(SHAPE[1]) - RIG.cx) / RIG.fx, (np.arange(SHAPE[0]) - RIG.cy) / RIG.fy)
    depth = np.full(SHAPE, WALL - camera_z)
    surface = np.ones(SHAPE, int)
    with np.errstate(divide="ignore"):
        road = np.where(y > 0, CAMERA_HEIGHT / np.maximum(y, 1e-9), np.inf)
    surface[road < depth] = 0
    depth = np.minimum(depth, road)
    for number, box in enumerate(boxes):
        z = box.depth + time * box.motion[1] - camera_z
        left = box.left + time * box.motion[0] - camera_x
        hit = (x * z >= left) & (x * z <= left + box.width) & (y * z <= CAMERA_HEIGHT)
        hit &= (y * z >= CAMERA_HEIGHT - box.height) & (z < depth)
        depth[hit], surface[hit] = z, number + 2
    image = np.zeros(SHAPE, np.float32)
    for number in range(len(boxes) + 2):
        shift = time * np.array(boxes[number - 2].motion) if number >= 2 else (0.0, 0.0)
        u = x * depth + camera_x - shift[0]
        v = depth + camera_z if number == 0 else y * depth
        scale = {0: 14.0, 1: 6.0}.get(number, 18.0)
        here = cv2.remap(
            _texture(number),
            np.mod(u * scale, 256).astype(np.float32),
            np.mod(v * scale, 256).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        image[surface == number] = here[surface == number]
    return depth, surface, image


def make_world(boxes, forward=0.8, noise=0.2, seed=0):
    """A clip of two frames between which the camera drives `forward` [m], with its exact correspondence plus noise
    [px]. Pixels that are hidden in the other frame are unknown."""
    rng = np.random.default_rng(seed)
    views = {(side, t): _view(boxes, side * RIG.baseline, t * forward, t) for side in (0, 1) for t in (0, 1)}
    frames = []
    for t in (0, 1):
        pair = [
            np.repeat(np.clip(views[side, t][2] + rng.normal(0, 1.0, SHAPE), 0, 255).astype(np.uint8)[..., None], 3, -1)
            for side in (0, 1)
        ]
        frames.append(StereoFrame(pair[0], pair[1], RIG, np.ones(SHAPE, bool), f"world{seed}_{t}"))
    flows = [_flow(boxes, views[0, t], views[0, 1 - t], forward, t, rng, noise) for t in (0, 1)]
    disparities = [
        (RIG.fx * RIG.baseline / views[0, t][0] + rng.normal(0, noise, SHAPE)).clip(0.5).astype(np.float32)
        for t in (0, 1)
    ]
    everywhere = np.ones(SHAPE, bool)
    correspondence = Correspondence(
        flows[0], flows[1], *disparities, np.isfinite(flows[0][0]), everywhere, everywhere.copy()
    )
    masks = np.stack([views[0, 0][1] == number + 2 for number in range(len(boxes))]) if boxes else np.zeros((0, *SHAPE))
    return World(StereoClip(*frames), correspondence, masks, tuple(boxes))


def _flow(boxes, view, other, forward, t, rng, noise):
    depth, surface, _ = view
    direction = 1 - 2 * t
    move_x, move_z = np.zeros(SHAPE), np.full(SHAPE, -direction * forward)
    for number, box in enumerate(boxes):
        move_x[surface == number + 2] += direction * box.motion[0]
        move_z[surface == number + 2] += direction * box.motion[1]
    rows, columns = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    z = np.maximum(depth + move_z, 0.1)
    x = RIG.fx * ((columns - RIG.cx) / RIG.fx * depth + move_x) / z + RIG.cx
    y = RIG.fy * ((rows - RIG.cy) / RIG.fy * depth) / z + RIG.cy
    flow = np.stack([x - columns, y - rows]) + rng.normal(0, noise, (2, *SHAPE))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < SHAPE[1]) & (row < SHAPE[0])
    seen = np.zeros(SHAPE, bool)
    seen[inside] = other[1][row[inside], column[inside]] == surface[inside]
    flow[:, ~seen] = np.nan
    return flow.astype(np.float32)


@pytest.fixture(scope="session")
def world():
    """make_world, for tests."""
    return make_world


@pytest.fixture(scope="session")
def box():
    """Box, for tests."""
    return Box
