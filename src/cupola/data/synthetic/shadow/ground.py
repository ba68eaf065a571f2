"""The grid of light around the camera: what stands is drawn once for a stretch of street, what moves every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from cupola.data.synthetic.columns import POSE_X, POSE_YAW, POSE_Z, SUN
from cupola.data.synthetic.shadow.kernels import cast_box, cast_crown

CELL = 0.3
"""Side of a cell [m]."""
CELLS = 320
"""The grid covers CELLS x CELLS cells."""
SNAP = 20.0
"""The grid moves with the camera in steps of this [m], so that shadows stay still on the ground."""
LOOK_AHEAD = 35.0
"""The grid's middle is this far ahead of the camera [m]."""


@dataclass(frozen=True)
class Caster:
    """A body that throws a shadow: a box (house, car, person) or a round crown.

    actor: 0 = stands in the world; x, z, heading: its place in its actor's frame; base, top: lower and upper end above
    the ground [m]; contact: how dark the ground is beneath and beside it, fading over `reach` [m].
    """

    actor: int
    x: float
    z: float
    heading: float
    half_length: float
    half_width: float
    base: float
    top: float
    contact: float = 0.4
    reach: float = 0.8
    crown: bool = False

    def placed(self, x: float, z: float, heading: float) -> Float64[np.ndarray, "7"]:
        """The box in the world, given its actor's pose."""
        k, s = math.cos(heading), math.sin(heading)
        at = (x + k * self.x + s * self.z, z - s * self.x + k * self.z, heading + self.heading)
        return np.array([*at, self.half_length, self.half_width, self.base, self.top])


@dataclass(frozen=True)
class GroundLight:
    """grid: layers as in `shadow.kernels`, 1 = lit; frame: world x, z of cell (0, 0) [m], side of a cell [m]."""

    grid: Float32[np.ndarray, "3 rows columns"]
    frame: Float64[np.ndarray, "3"]

    def packed(self) -> UInt8[np.ndarray, "rows columns 3"]:
        """0..255 with the layers last: what shading looks up stays in the processor's cache."""
        return np.ascontiguousarray(np.moveaxis(255 * self.grid, 0, -1).astype(np.uint8))


def grid_frame(x: float, z: float, heading: float) -> Float64[np.ndarray, "3"]:
    """The grid for a camera at (x, z) that looks along `heading`."""
    ahead = (x + LOOK_AHEAD * math.sin(heading), z + LOOK_AHEAD * math.cos(heading))
    half = CELL * CELLS / 2
    return np.array([SNAP * round(ahead[0] / SNAP) - half, SNAP * round(ahead[1] / SNAP) - half, CELL])


def ground_light(
    casters: tuple[Caster, ...],
    poses: Float64[np.ndarray, "m 6"],
    light: Float64[np.ndarray, "23"],
    frame: Float64[np.ndarray, "3"],
    tiles: UInt8[np.ndarray, "3 texels"],
    under: Float32[np.ndarray, "3 rows columns"] | None = None,
) -> GroundLight:
    """Draws the casters on a grid that is lit, or on a copy of `under`.

    With `under` = None only what stands (actor 0) is drawn, else only what may move.
    """
    grid = np.ones((3, CELLS, CELLS), np.float32) if under is None else under.copy()
    throw_x, throw_z = (float(-light[SUN + axis] / max(-light[SUN + 1], 0.15)) for axis in (0, 2))
    size = CELL * CELLS
    for caster in casters:
        if (caster.actor == 0) != (under is None):
            continue
        pose = poses[caster.actor]
        box = caster.placed(float(pose[POSE_X]), float(pose[POSE_Z]), float(pose[POSE_YAW]))
        reach = 40.0
        if not (-reach < box[0] - frame[0] < size + reach and -reach < box[1] - frame[1] < size + reach):
            continue
        if caster.crown:
            cast_crown(grid, frame, box, throw_x, throw_z, tiles)
        else:
            body = caster.actor == 0
            cast_box(grid, frame, box, throw_x, throw_z, 1.0, caster.contact, caster.reach, body)
    return GroundLight(grid, frame)
