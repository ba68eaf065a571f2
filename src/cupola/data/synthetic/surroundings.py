"""What stands still along the street: ground, houses, trees, hedges, poles, signs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from cupola.data.synthetic import columns as c
from cupola.data.synthetic.shapes import Color, Shapes, Vector, linear

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN = 7, 8, 11, 12, 13, 17, 19, 20, 21, 22
"""Cityscapes label ids."""

KERB_HEIGHT = 0.12
"""Pavement above the road [m]."""

WALLS = (
    (linear(205, 190, 165), 0.0),
    (linear(190, 175, 150), 0.0),
    (linear(170, 165, 158), 0.0),
    (linear(215, 205, 190), 0.0),
    (linear(200, 165, 120), 0.0),
    (linear(180, 130, 105), 0.0),
    (linear(150, 160, 165), 0.0),
    (linear(205, 180, 130), 0.0),
    (linear(150, 85, 65), 1.0),
    (linear(130, 75, 60), 1.0),
    (linear(165, 110, 85), 1.0),
)
TRIMS = (linear(230, 225, 215), linear(205, 200, 190), linear(160, 150, 140), linear(120, 110, 100))
ROOFS = (linear(135, 70, 55), linear(95, 60, 52), linear(75, 75, 80), linear(105, 90, 80))
LEAVES = (
    (linear(58, 84, 38), linear(104, 130, 56)),
    (linear(48, 78, 42), linear(84, 120, 60)),
    (linear(70, 92, 40), linear(128, 146, 62)),
    (linear(44, 66, 40), linear(72, 100, 58)),
)
TRUNK: Color = linear(92, 78, 64)
METAL: Color = linear(120, 124, 126)


@dataclass(frozen=True)
class Frame:
    """A place on the ground: origin and heading in the world; `at` maps (right, up, forward) to world coordinates."""

    x: float
    z: float
    heading: float
    base: float = 0.0
    """Height of the ground there [m]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_turn", (math.sin(self.heading), math.cos(self.heading)))

    _turn: tuple[float, float] = field(init=False, repr=False, compare=False)

    def at(self, right: float, up: float, forward: float) -> Vector:
        s, k = self._turn
        return self.x + k * right + s * forward, -self.base - up, self.z - s * right + k * forward

    def along(self, right: float, up: float, forward: float) -> Vector:
        s, k = self._turn
        return k * right + s * forward, -up, -s * right + k * forward


def add_ground_strip(
    shapes: Shapes,
    frame: Frame,
    left: float,
    right: float,
    length: float,
    material: int,
    label: int,
    color: Color,
    style: tuple[float, ...],
    color2: Color = (0.5, 0.5, 0.5),
    height: float = 0.0,
) -> None:
    """A flat piece of ground from lateral `left` to `right` [m], `length` metres forward of the frame."""
    shapes.actor, shapes.label = 0, label
    shapes.quad(
        frame.at(left, height, 0.0),
        frame.along(right - left, 0.0, 0.0),
        frame.along(0.0, 0.0, length),
        material,
        color,
        style=style,
        color2=color2,
        two_sided=True,
    )


def add_house(shapes: Shapes, frame: Frame, wide: float, deep: float, floors: int, rng: np.random.Generator) -> float:
    """A house whose front faces the frame's backward direction (-forward); returns its height [m]."""
    shapes.actor, shapes.label = 0, BUILDING
    color, brick = WALLS[int(rng.integers(len(WALLS)))]
    tone = float(rng.uniform(0.75, 1.1))
    wall = (color[0] * tone, color[1] * tone, color[2] * tone)
    trim = TRIMS[int(rng.integers(len(TRIMS)))]
    floor_height = float(rng.uniform(2.9, 3.4))
    high = floors * floor_height + 0.8
    spacing = float(rng.uniform(2.2, 3.2))
    style = (
        floor_height,
        spacing,
        float(rng.uniform(0.9, 1.3)),
        float(rng.uniform(1.3, 1.75)),
        brick,
        float(rng.random()),
    )
    plain = (*style[:5], 0.0)
    grain = float(rng.random()) * 250
    up = frame.along(0.0, high, 0.0)
    half = wide / 2

    def face(origin: Vector, u: Vector, looks: tuple[float, ...]) -> None:
        shapes.quad(origin, u, up, c.FACADE, wall, color2=trim, style=looks, grain=grain)

    face(frame.at(-half, 0.0, 0.0), frame.along(wide, 0.0, 0.0), style)
    face(frame.at(half, 0.0, 0.0), frame.along(0.0, 0.0, deep), plain)
    face(frame.at(-half, 0.0, deep), frame.along(0.0, 0.0, -deep), plain)
    face(frame.at(half, 0.0, deep), frame.along(-wide, 0.0, 0.0), plain)
    roof = ROOFS[int(rng.integers(len(ROOFS)))]
    if rng.random() < 0.65:
        rise = float(rng.uniform(1.8, 3.2))
        eave = 0.35
        for front in (True, False):
            z = -eave if front else deep + eave
            sign = 1.0 if front else -1.0
            shapes.quad(
                frame.at(-sign * half, high - 0.15, z),
                frame.along(sign * wide, 0.0, 0.0),
                frame.along(0.0, rise, sign * (deep / 2.0 + eave)),
                c.ROOF,
                roof,
                grain=grain,
            )
        for side in (-1.0, 1.0):
            shapes.quad(
                frame.at(side * half, high - 0.15, 0.0 if side > 0.0 else deep),
                frame.along(0.0, 0.0, side * deep),
                frame.along(0.0, rise, 0.0),
                c.PLAIN,
                wall,
                shape=c.TRAPEZOID,
                outline=(0.0, 1.0, 0.5, 0.5),
                grain=grain,
            )
        if rng.random() < 0.7:
            x = float(rng.uniform(-0.35, 0.35)) * wide
            corner = frame.at(x, high + rise * 0.5, deep * 0.35)
            _pillar(
                shapes, frame, x, high + rise * 0.4, deep * 0.4, 0.4, 0.5, rise * 0.6 + 0.8, wall, grain + corner[0]
            )
        high += rise
    return high


def _pillar(
    shapes: Shapes,
    frame: Frame,
    right: float,
    up: float,
    forward: float,
    half_wide: float,
    half_deep: float,
    tall: float,
    color: Color,
    grain: float,
    material: int = c.PLAIN,
) -> None:
    """An upright box in a frame: four sides and the top."""
    x, z, a, b = right, forward, half_wide, half_deep
    v = frame.along(0.0, tall, 0.0)
    shapes.quad(frame.at(x - a, up, z - b), frame.along(2.0 * a, 0.0, 0.0), v, material, color, grain=grain)
    shapes.quad(frame.at(x + a, up, z + b), frame.along(-2.0 * a, 0.0, 0.0), v, material, color, grain=grain)
    shapes.quad(frame.at(x + a, up, z - b), frame.along(0.0, 0.0, 2.0 * b), v, material, color, grain=grain)
    shapes.quad(frame.at(x - a, up, z + b), frame.along(0.0, 0.0, -2.0 * b), v, material, color, grain=grain)
    shapes.quad(
        frame.at(x - a, up + tall, z - b),
        frame.along(2.0 * a, 0.0, 0.0),
        frame.along(0.0, 0.0, 2.0 * b),
        material,
        color,
        grain=grain,
    )


def add_tree(shapes: Shapes, frame: Frame, rng: np.random.Generator) -> tuple[float, float]:
    """A tree with trunk, leafy balls and loose leaves around them; returns (height of the crown's middle, radius)."""
    shapes.actor, shapes.label = 0, VEGETATION
    dark, light = LEAVES[int(rng.integers(len(LEAVES)))]
    tall = float(rng.uniform(4.5, 8.5))
    radius = float(rng.uniform(1.5, 2.4)) * (tall / 6.5) ** 0.5
    middle = tall - radius
    thick = 0.07 + 0.02 * tall
    bottom = middle - 0.7 * radius
    for turn in (0.0, math.pi / 3, 2 * math.pi / 3):
        x, z = math.cos(turn) * thick, math.sin(turn) * thick
        shapes.quad(
            frame.at(-x, 0.0, -z), frame.along(2.0 * x, 0.0, 2.0 * z), frame.along(0.0, middle, 0.0), c.BARK, TRUNK,
            shape=c.TRAPEZOID, outline=(0.0, 1.0, 0.25, 0.75), grain=float(rng.random()) * 250, two_sided=True,
        )  # fmt: skip
    for k in range(7):
        angle = 2 * math.pi * (k / 6) + float(rng.uniform(-0.3, 0.3))
        out = 0.0 if k == 6 else radius * float(rng.uniform(0.45, 0.6))
        up = middle + (radius * 0.45 if k == 6 else radius * float(rng.uniform(-0.35, 0.3)))
        size = radius * float(rng.uniform(0.5, 0.68))
        center = frame.at(out * math.cos(angle), up, out * math.sin(angle))
        shapes.ball(
            center, (size, size * 0.85, size), c.FOLIAGE, dark,
            color2=light, shape=c.LEAFY_BALL, outline=(size, 0.3), grain=float(rng.random()) * 250,
        )  # fmt: skip
    for _ in range(9):
        angle = float(rng.uniform(0, 2 * math.pi))
        out = radius * float(rng.uniform(0.5, 0.95))
        up = middle + radius * float(rng.uniform(-0.6, 0.85))
        _leaf_card(shapes, frame, out * math.cos(angle), up, out * math.sin(angle), radius * 0.9, dark, light, rng)
    return max(bottom, middle), radius


def _leaf_card(
    shapes: Shapes,
    frame: Frame,
    right: float,
    up: float,
    forward: float,
    size: float,
    dark: Color,
    light: Color,
    rng: np.random.Generator,
) -> None:
    """A rectangle of loose leaves, upright, turned at random about the vertical within 50 degrees of the street."""
    turn = float(rng.uniform(-0.9, 0.9))
    s, k = math.sin(turn - frame.heading) * size / 2, math.cos(turn - frame.heading) * size / 2
    x, y, z = frame.at(right, up, forward)
    shapes.quad(
        (x - k, y + size / 2, z - s),
        (2 * k, 0.0, 2 * s),
        (0.0, -size, 0.0),
        c.FOLIAGE,
        dark,
        color2=light,
        shape=c.LEAVES,
        grain=float(rng.random()) * 250,
        two_sided=True,
    )


def add_bush(shapes: Shapes, frame: Frame, rng: np.random.Generator) -> None:
    """A low bush."""
    shapes.actor, shapes.label = 0, VEGETATION
    dark, light = LEAVES[int(rng.integers(len(LEAVES)))]
    for _ in range(3):
        size = float(rng.uniform(0.35, 0.7))
        center = frame.at(float(rng.uniform(-0.5, 0.5)), size * 0.7, float(rng.uniform(-0.5, 0.5)))
        shapes.ball(
            center, (size, size, size), c.FOLIAGE, dark,
            color2=light, shape=c.LEAFY_BALL, outline=(size, 0.15), grain=float(rng.random()) * 250,
        )  # fmt: skip


def add_hedge(shapes: Shapes, frame: Frame, length: float, rng: np.random.Generator) -> None:
    """A clipped hedge along the frame's forward direction."""
    shapes.actor, shapes.label = 0, VEGETATION
    dark, light = LEAVES[int(rng.integers(len(LEAVES)))]
    tall, half = float(rng.uniform(0.9, 1.7)), 0.4
    grain = float(rng.random()) * 250
    v = frame.along(0.0, tall, 0.0)
    faces = (
        (frame.at(-half, 0.0, length), frame.along(0.0, 0.0, -length), v),
        (frame.at(half, 0.0, 0.0), frame.along(0.0, 0.0, length), v),
        (frame.at(-half, 0.0, 0.0), frame.along(2.0 * half, 0.0, 0.0), v),
    )
    for origin, u, w in faces:
        shapes.quad(
            origin, u, w, c.FOLIAGE, dark,
            color2=light, shape=c.RAGGED_TOP, outline=(40.0, 0.1), grain=grain, two_sided=True,
        )  # fmt: skip
    top = frame.at(-half, tall * 0.95, 0.0)
    shapes.quad(
        top, frame.along(2.0 * half, 0.0, 0.0), frame.along(0.0, 0.0, length), c.FOLIAGE, light,
        color2=light, grain=grain, two_sided=True,
    )  # fmt: skip


def add_fence(shapes: Shapes, frame: Frame, length: float, rng: np.random.Generator) -> None:
    """A railing (fence) or a low wall along the frame's forward direction."""
    shapes.actor = 0
    if rng.random() < 0.5:
        shapes.label = FENCE
        color = linear(60, 62, 60) if rng.random() < 0.5 else linear(150, 130, 100)
        shapes.quad(
            frame.at(0.0, 0.0, length), frame.along(0.0, 0.0, -length), frame.along(0.0, 1.1, 0.0), c.BARK, color,
            shape=c.RAILING, two_sided=True,
        )  # fmt: skip
    else:
        shapes.label = WALL
        color, _ = WALLS[int(rng.integers(len(WALLS)))]
        tone = 0.8
        low = (color[0] * tone, color[1] * tone, color[2] * tone)
        _pillar(shapes, frame, 0.0, 0.0, length / 2, 0.15, length / 2, 1.0, low, float(rng.random()) * 250)


def add_lamp(shapes: Shapes, frame: Frame, side: int) -> None:
    """A street lamp whose arm reaches over the road (side: -1 = road to the left)."""
    shapes.actor, shapes.label = 0, POLE
    _pillar(shapes, frame, 0.0, 0.0, 0.0, 0.07, 0.07, 6.2, METAL, 3.0)
    reach = side * 1.4
    low, high = min(0.0, reach), max(0.0, reach)
    _pillar(shapes, frame, (low + high) / 2, 6.15, 0.0, (high - low) / 2, 0.05, 0.1, METAL, 3.0)
    _pillar(shapes, frame, reach, 6.05, 0.0, 0.3, 0.12, 0.14, METAL, 3.0)


def add_sign(shapes: Shapes, frame: Frame, rng: np.random.Generator) -> None:
    """A pole with one or two traffic signs that face the frame's backward direction, or a traffic light."""
    shapes.actor, shapes.label = 0, POLE
    tall = float(rng.uniform(2.3, 2.9))
    _pillar(shapes, frame, 0.0, 0.0, 0.0, 0.04, 0.04, tall, METAL, 5.0)
    if rng.random() < 0.2:
        shapes.label = LIGHT
        _pillar(shapes, frame, 0.0, tall, 0.0, 0.16, 0.12, 0.95, linear(40, 42, 40), 0.0)
        shapes.quad(
            frame.at(-0.15, tall + 0.03, -0.13), frame.along(0.3, 0.0, 0.0), frame.along(0.0, 0.9, 0.0), c.SIGN,
            linear(35, 36, 35), style=(4.0, float(rng.choice([0.0, 2.0]))),
        )  # fmt: skip
        return
    shapes.label = SIGN
    style = int(rng.integers(4))
    color = (linear(190, 25, 30), linear(25, 70, 160), linear(190, 25, 30), linear(215, 190, 60))[style]
    wide, high = (0.7, 0.7) if style != 3 else (1.1, 0.4)
    shapes.quad(
        frame.at(-wide / 2.0, tall - high, -0.05),
        frame.along(wide, 0.0, 0.0),
        frame.along(0.0, high, 0.0),
        c.SIGN,
        color,
        shape=c.DISC if style in (0, 2) else c.FULL,
        style=(float(style),),
        grain=float(rng.random()) * 250,
    )
    shapes.quad(
        frame.at(wide / 2.0, tall - high, -0.045),
        frame.along(-wide, 0.0, 0.0),
        frame.along(0.0, high, 0.0),
        c.PLAIN,
        METAL,
        shape=c.DISC if style in (0, 2) else c.FULL,
    )
