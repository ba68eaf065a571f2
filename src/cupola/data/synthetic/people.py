"""People and cyclists in their own frame: x right, y down (0 = ground), z forward."""

from __future__ import annotations

import math

import numpy as np

from cupola.data.synthetic import columns as c
from cupola.data.synthetic.shapes import Color, Shapes, linear

PERSON, RIDER, BICYCLE = 24, 25, 33
"""Cityscapes label ids."""

SKINS = (linear(232, 190, 165), linear(205, 155, 120), linear(150, 105, 75), linear(95, 65, 48))
HAIRS = (linear(40, 30, 25), linear(85, 55, 35), linear(150, 115, 70), linear(120, 118, 115), linear(25, 22, 22))
TOPS = (
    linear(45, 60, 95),
    linear(160, 40, 45),
    linear(225, 222, 215),
    linear(40, 42, 46),
    linear(85, 110, 80),
    linear(200, 160, 60),
    linear(120, 80, 130),
    linear(130, 135, 140),
    linear(60, 120, 150),
    linear(170, 110, 75),
    linear(210, 90, 50),
)
LEGS = (linear(40, 50, 75), linear(35, 35, 40), linear(95, 85, 70), linear(70, 85, 115), linear(120, 110, 95))
SHOES: Color = (0.02, 0.02, 0.02)
STRIDE = 0.75
"""Length of a step [m]."""


def _pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def add_person(shapes: Shapes, actor: int, rng: np.random.Generator) -> float:
    """A standing or walking person (the pose's swing angle makes the step). Returns the height [m]."""
    shapes.actor, shapes.label = actor, PERSON
    size = float(rng.uniform(0.92, 1.08))
    broad = float(rng.uniform(0.9, 1.18)) * size
    top, legs, skin, hair = _pick(rng, TOPS), _pick(rng, LEGS), _pick(rng, SKINS), _pick(rng, HAIRS)
    grain = float(rng.random()) * 200
    hip, shoulder = -0.88 * size, -1.42 * size
    stride = 0.42
    coat = rng.random() < 0.35
    for side in (-1.0, 1.0):
        x, swing = side * 0.1 * broad, side * stride
        pivot = (x, hip, 0.0)
        shapes.ball(
            (x, -0.66 * size, 0.0), (0.098 * broad, 0.29 * size, 0.11 * broad), c.CLOTH, legs,
            pivot=pivot, swing=swing, grain=grain,
        )  # fmt: skip
        shapes.ball(
            (x, -0.29 * size, -0.01), (0.07 * broad, 0.28 * size, 0.08 * broad), c.CLOTH, legs,
            pivot=pivot, swing=swing, grain=grain,
        )  # fmt: skip
        shapes.ball((x, -0.045, 0.06), (0.055, 0.05, 0.14), c.PLAIN, SHOES, pivot=pivot, swing=swing)
        arm = side * 0.25 * broad
        pivot = (arm, shoulder, 0.0)
        shapes.ball(
            (arm, -1.2 * size, 0.0), (0.065 * broad, 0.26 * size, 0.075 * broad), c.CLOTH, top,
            pivot=pivot, swing=-swing * 0.8, grain=grain,
        )  # fmt: skip
        shapes.ball(
            (arm, -0.94 * size, 0.03), (0.05, 0.18 * size, 0.055), c.CLOTH, top,
            pivot=pivot, swing=-swing * 0.8, grain=grain,
        )  # fmt: skip
        shapes.ball((arm, -0.78 * size, 0.05), (0.04, 0.065, 0.045), c.PLAIN, skin, pivot=pivot, swing=-swing * 0.8)
    shapes.ball((0.0, -1.2 * size, 0.0), (0.21 * broad, 0.3 * size, 0.135 * broad), c.CLOTH, top, grain=grain)
    shapes.ball((0.0, shoulder + 0.03, 0.0), (0.24 * broad, 0.1, 0.1 * broad), c.CLOTH, top, grain=grain)
    lower = top if coat else legs
    shapes.ball(
        (0.0, -0.9 * size, 0.0), (0.185 * broad, (0.3 if coat else 0.17) * size, 0.135 * broad), c.CLOTH, lower,
        grain=grain,
    )  # fmt: skip
    shapes.ball((0.0, -1.5 * size, 0.0), (0.055, 0.08, 0.055), c.PLAIN, skin)
    shapes.ball((0.0, -1.64 * size, 0.01), (0.085, 0.12, 0.1), c.HEAD, skin, color2=hair)
    if rng.random() < 0.3:  # a bag
        side = 0.3 * broad
        shapes.box((side - 0.05, -0.95 * size, -0.12), (side + 0.05, -0.62 * size, 0.14), c.PLAIN, _pick(rng, TOPS))
    return 1.75 * size


def _bar(shapes: Shapes, start: tuple[float, float], end: tuple[float, float], color: Color, thick: float) -> None:
    """A tube in the plane x = 0 from (z, height) to (z, height)."""
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    tilt = math.atan2(end[0] - start[0], end[1] - start[1])
    center = (0.0, -(start[1] + end[1]) / 2, (start[0] + end[0]) / 2)
    shapes.ball(center, (thick, length / 2 + thick, thick), c.PLAIN, color, tilt=-tilt)


def add_bicycle(shapes: Shapes, actor: int, rng: np.random.Generator) -> None:
    """A bicycle; its wheels turn with the pose's roll angle."""
    shapes.actor, shapes.label = actor, BICYCLE
    color = _pick(rng, TOPS)
    r = 0.34
    for z in (-0.52, 0.52):
        for x in (-0.012, 0.012):
            shapes.quad(
                (x, 0.0, z + r), (0.0, 0.0, -2 * r), (0.0, -2 * r, 0.0), c.PLAIN, SHOES,
                shape=c.RING, pivot=(x, -r, z), spin=1.0, two_sided=True,
            )  # fmt: skip
        shapes.quad((-0.022, 0.0, z), (0.044, 0.0, 0.0), (0.0, -2 * r, 0.0), c.PLAIN, SHOES, two_sided=True)
    thick = 0.022
    _bar(shapes, (-0.08, 0.3), (0.4, 0.82), color, thick)
    _bar(shapes, (-0.2, 0.8), (0.4, 0.82), color, thick)
    _bar(shapes, (-0.08, 0.3), (-0.22, 0.92), color, thick)
    _bar(shapes, (-0.52, 0.34), (-0.2, 0.8), color, thick * 0.7)
    _bar(shapes, (-0.52, 0.34), (-0.08, 0.3), color, thick * 0.7)
    _bar(shapes, (0.52, 0.34), (0.38, 1.0), color, thick)
    shapes.ball((0.0, -1.02, 0.4), (0.26, 0.02, 0.025), c.PLAIN, SHOES)
    shapes.ball((0.0, -0.95, -0.24), (0.07, 0.035, 0.13), c.PLAIN, SHOES)
    shapes.ball((0.0, -0.42, -0.62), (0.03, 0.03, 0.02), c.PLAIN, (0.5, 0.02, 0.02))


def add_rider(shapes: Shapes, actor: int, rng: np.random.Generator) -> None:
    """A person on a bicycle of the same pose; the legs go round with the pose's swing angle."""
    shapes.actor, shapes.label = actor, RIDER
    top, legs, skin, hair = _pick(rng, TOPS), _pick(rng, LEGS), _pick(rng, SKINS), _pick(rng, HAIRS)
    grain = float(rng.random()) * 200
    for side in (-1.0, 1.0):
        x = side * 0.11
        pivot, swing = (x, -0.98, -0.2), side * 0.35
        shapes.ball((x, -0.83, 0.0), (0.085, 0.27, 0.1), c.CLOTH, legs, pivot=pivot, swing=swing, tilt=0.9, grain=grain)
        shapes.ball(
            (x, -0.5, 0.12), (0.065, 0.27, 0.075), c.CLOTH, legs, pivot=pivot, swing=swing, tilt=-0.2, grain=grain
        )
        shapes.ball((x, -0.25, 0.14), (0.05, 0.045, 0.13), c.PLAIN, SHOES, pivot=pivot, swing=swing)
        shapes.ball((side * 0.22, -1.24, 0.2), (0.055, 0.3, 0.06), c.CLOTH, top, tilt=0.85, grain=grain)
        shapes.ball((side * 0.22, -1.05, 0.39), (0.04, 0.04, 0.06), c.PLAIN, skin)
    shapes.ball((0.0, -1.25, -0.06), (0.19, 0.34, 0.13), c.CLOTH, top, tilt=-0.42, grain=grain)
    shapes.ball((0.0, -1.0, -0.2), (0.17, 0.15, 0.17), c.CLOTH, legs, grain=grain)
    shapes.ball((0.0, -1.57, 0.1), (0.055, 0.08, 0.055), c.PLAIN, skin)
    helmet = rng.random() < 0.5
    shapes.ball((0.0, -1.7, 0.13), (0.09, 0.12, 0.105), c.HEAD, skin, color2=_pick(rng, TOPS) if helmet else hair)
