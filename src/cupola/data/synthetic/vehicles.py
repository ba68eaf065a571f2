"""Cars and vans in their own frame: x right, y down (0 = ground), z forward, origin in the middle of the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cupola.data.synthetic import columns as c
from cupola.data.synthetic.shapes import Color, Shapes, Vector, linear

CAR = 26
"""Cityscapes label id."""


@dataclass(frozen=True)
class CarModel:
    """Side view, all in metres. From the front (z = length / 2): bonnet, windscreen, roof, rear window, boot."""

    length: float
    width: float
    height: float
    belt: float
    """Height of the lower edge of the windows."""
    bonnet: float
    """Length of the bonnet to the foot of the windscreen."""
    front: float
    """Height of the bonnet's front edge."""
    screen: float
    """Horizontal length of the windscreen."""
    back: float
    """Horizontal length of the rear window."""
    boot: float
    """Length of the boot lid behind the rear window."""
    rear: float
    """Height of the rear edge of the boot."""
    wheel: float = 0.32
    """Radius."""
    closed: bool = False
    """No side windows behind the front doors (van)."""


MODELS = (
    CarModel(4.0, 1.75, 1.48, 0.95, 0.95, 0.78, 0.75, 0.45, 0.05, 0.93),
    CarModel(4.6, 1.80, 1.45, 0.93, 1.15, 0.75, 0.80, 0.65, 0.55, 0.95),
    CarModel(4.6, 1.80, 1.50, 0.94, 1.10, 0.76, 0.78, 0.40, 0.08, 0.93),
    CarModel(4.5, 1.88, 1.70, 1.08, 1.05, 0.92, 0.65, 0.40, 0.06, 1.06, 0.36),
    CarModel(3.6, 1.65, 1.50, 0.95, 0.70, 0.80, 0.65, 0.35, 0.04, 0.93, 0.29),
    CarModel(5.0, 1.95, 2.00, 1.15, 0.70, 0.98, 0.70, 0.12, 0.03, 1.15, 0.34, True),
    CarModel(4.9, 1.92, 1.95, 1.10, 0.75, 0.95, 0.75, 0.15, 0.03, 1.10, 0.34),
)
MODEL_SHARES = (0.24, 0.2, 0.15, 0.14, 0.12, 0.09, 0.06)

PAINTS = (
    linear(228, 228, 225),
    linear(182, 186, 190),
    linear(120, 124, 130),
    linear(62, 65, 70),
    linear(30, 31, 34),
    linear(150, 24, 26),
    linear(34, 62, 128),
    linear(60, 100, 150),
    linear(28, 70, 58),
    linear(196, 160, 50),
    linear(120, 70, 44),
    linear(200, 190, 165),
)
PAINT_SHARES = (0.2, 0.15, 0.13, 0.11, 0.12, 0.08, 0.07, 0.04, 0.03, 0.02, 0.02, 0.03)
DARK: Color = (0.012, 0.012, 0.013)


def add_car(shapes: Shapes, actor: int, rng: np.random.Generator, braking: float = 0.0) -> CarModel:
    """A car of a random model and paint. braking: brightness of the rear lights."""
    model = MODELS[rng.choice(len(MODELS), p=MODEL_SHARES)]
    paint = PAINTS[rng.choice(len(PAINTS), p=PAINT_SHARES)]
    if model.closed and rng.random() < 0.5:
        paint = PAINTS[0]
    shapes.actor, shapes.label = actor, CAR
    _body(shapes, model, paint, float(rng.random()) * 200, braking)
    _cabin(shapes, model, paint, rng)
    _wheels(shapes, model)
    return model


def _body(shapes: Shapes, m: CarModel, paint: Color, grain: float, braking: float) -> None:
    half, nose, tail, floor = m.width / 2, m.length / 2, -m.length / 2, 0.22
    tall = m.belt - floor
    axle = 0.62 * m.wheel + 0.55
    style = (
        m.bonnet / m.length,
        (m.front - floor) / tall,
        1 - (m.boot + 0.02) / m.length,
        (m.rear - floor) / tall,
    )
    door = (m.bonnet + m.screen * 0.6 + 0.95) / m.length
    # u runs from the front backwards on both sides, so that one outline serves both
    for side in (-1.0, 1.0):
        shapes.quad(
            (side * half, -floor, nose),
            (0.0, 0.0, -m.length),
            (0.0, -tall, 0.0),
            c.CAR_BODY,
            paint,
            shape=c.CAR_SIDE,
            style=style,
            outline=(axle / m.length, 1 - axle / m.length, m.wheel + 0.05, door),
            grain=grain,
            two_sided=True,
        )
        inner = side * (half - 0.22)
        shapes.quad(
            (inner, -0.2, nose - 0.1), (0.0, 0.0, 0.2 - m.length), (0.0, -0.6, 0.0), c.PLAIN, DARK, two_sided=True
        )
    _strip(shapes, half, 0.98 * half, (nose, floor), (nose - 0.03, m.front), c.CAR_FRONT, paint, grain)
    _strip(shapes, 0.98 * half, half, (nose - 0.03, m.front), (nose - m.bonnet, m.belt), c.PAINT, paint, grain)
    _strip(shapes, half, half, (tail + m.boot, m.belt), (tail + 0.03, m.rear), c.PAINT, paint, grain)
    _strip(shapes, half, half, (tail + 0.02, m.rear), (tail, floor), c.CAR_REAR, paint, grain, (braking,), flip=True)
    shapes.quad((-half, -0.2, tail), (m.width, 0.0, 0.0), (0.0, 0.0, m.length), c.PLAIN, DARK, two_sided=True)


def _strip(
    shapes: Shapes,
    half0: float,
    half1: float,
    start: tuple[float, float],
    end: tuple[float, float],
    material: int,
    color: Color,
    grain: float,
    style: tuple[float, ...] = (),
    flip: bool = False,
) -> None:
    """A trapezoid across the car from (z, height) `start` to `end`, `half0` and `half1` wide on each side.

    Seen from outside going from the front over the roof to the back; flip: its v runs from end to start (the back).
    """
    if flip:
        (start, end), (half0, half1) = (end, start), (half1, half0)
    side = -1.0 if flip else 1.0
    half = max(half0, half1)
    out0, out1 = 0.5 - 0.5 * half0 / half, 0.5 - 0.5 * half1 / half
    shapes.quad(
        (side * half, -start[1], start[0]),
        (-2 * side * half, 0.0, 0.0),
        (0.0, start[1] - end[1], end[0] - start[0]),
        material,
        color,
        shape=c.FULL if half0 == half1 else c.TRAPEZOID,
        style=style,
        outline=(out0, 1 - out0, out1, 1 - out1),
        grain=grain,
        two_sided=True,
    )


def _cabin(shapes: Shapes, m: CarModel, paint: Color, rng: np.random.Generator) -> None:
    half, nose, tail = m.width / 2 - 0.02, m.length / 2, -m.length / 2
    inset = 0.17 if m.height < 1.8 else 0.1
    top = half - inset
    front_foot, rear_foot = nose - m.bonnet, tail + m.boot
    front_top, rear_top = front_foot - m.screen, rear_foot + m.back
    _strip(shapes, half, top, (front_foot, m.belt), (front_top, m.height), c.WINDSCREEN, paint, 0.0)
    _strip(shapes, top, top, (front_top, m.height), (rear_top, m.height - 0.03), c.PAINT, paint, 0.0)
    back = c.PAINT if m.closed else c.WINDSCREEN
    _strip(shapes, top, half, (rear_top, m.height - 0.03), (rear_foot, m.belt), back, paint, 0.0, flip=True)
    long = front_foot - rear_foot
    outline = (0.0, 1.0, m.screen / long, 1 - m.back / long)
    pillar = (m.screen * 0.6 + 0.95) / long
    for side in (-1.0, 1.0):
        style = (pillar, min(pillar + 0.95 / long, 0.99) if long > 2.6 else 0.0)
        origin: Vector = (side * half, -m.belt, front_foot)
        across: Vector = (0.0, 0.0, -long)
        up: Vector = (-side * inset, m.belt - m.height + 0.015, 0.0)
        shapes.quad(
            origin, across, up, c.CAR_CABIN, paint, shape=c.TRAPEZOID, style=style, outline=outline, two_sided=True
        )
        if m.closed:
            share = 1 - pillar
            shapes.quad(
                (side * (half + 0.012), -m.belt, front_foot - pillar * long),
                (0.0, 0.0, -share * long),
                up,
                c.VAN_SIDE,
                paint,
                shape=c.TRAPEZOID,
                color2=PAINTS[int(rng.integers(len(PAINTS)))],
                style=(0.35, 0.25),
                outline=(0.0, 1.0, 0.0, 1 - m.back / (share * long)),
                two_sided=True,
            )
        mirror = side * (half + 0.02)
        low, high = sorted((mirror, mirror + side * 0.2))
        z = front_foot - 0.35
        shapes.box((low, -m.belt - 0.16, z - 0.05), (high, -m.belt - 0.01, z + 0.05), c.PLAIN, DARK)


def _wheels(shapes: Shapes, m: CarModel) -> None:
    r = m.wheel
    axle = 0.62 * m.wheel + 0.55
    for side in (-1.0, 1.0):
        for z in (m.length / 2 - axle, axle - m.length / 2):
            x = side * (m.width / 2 - 0.01)
            inner = x - side * 0.22
            shapes.quad(
                (x, 0.0, z + r),
                (0.0, 0.0, -2 * r),
                (0.0, -2 * r, 0.0),
                c.WHEEL,
                DARK,
                shape=c.DISC,
                pivot=(x, -r, z),
                spin=1.0,
                two_sided=True,
            )
            for at in (z - 0.86 * r, z + 0.86 * r):  # the tyre as seen from ahead and behind
                left = min(x, inner)
                shapes.quad((left, 0.0, at), (0.22, 0.0, 0.0), (0.0, -r, 0.0), c.PLAIN, DARK, two_sided=True)


def car_footprint(model: CarModel) -> tuple[float, float, float]:
    """(half length, half width, height) [m]."""
    return model.length / 2, model.width / 2, model.height


def wheel_turn(distance: float) -> float:
    """Angle by which a wheel turns over a distance [m], in radians, for a common radius."""
    return math.fmod(distance / 0.32, 2 * math.pi)
