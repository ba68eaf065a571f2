"""Building the table of shapes (`columns`) row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from cupola.data.synthetic import columns as c

Vector = tuple[float, float, float]
Color = tuple[float, float, float]
"""Linear red, green, blue in [0, 1]."""


def linear(red: int, green: int, blue: int) -> Color:
    """An sRGB colour of 0..255 as linear reflectances."""
    return (red / 255) ** 2.2, (green / 255) ** 2.2, (blue / 255) ** 2.2


_ZEROS = (0.0,) * 6


@dataclass
class Shapes:
    """Collects primitives. `actor` and `label` hold for all that is added until they are set anew."""

    values: list[float] = field(default_factory=list)
    """The rows one after another: one flat list becomes an array much faster than a list of rows."""
    actor: int = 0
    label: int = 0

    def _add(
        self,
        kind: int,
        geometry: tuple[float, ...],
        material: int,
        shape: int,
        color: Color,
        color2: Color,
        style: tuple[float, ...],
        outline: tuple[float, ...],
        pivot: Vector,
        swing: float,
        spin: float,
        grain: float,
        two_sided: bool,
    ) -> None:
        self.values += (
            *geometry, kind, material, shape, *color, *color2,
            *style, *_ZEROS[len(style) : 6], *outline, *_ZEROS[len(outline) : 4],
            self.label, self.actor, *pivot, swing, spin, grain, two_sided,
        )  # fmt: skip

    def quad(
        self,
        origin: Vector,
        u: Vector,
        v: Vector,
        material: int,
        color: Color,
        *,
        shape: int = c.FULL,
        color2: Color = (0.5, 0.5, 0.5),
        style: tuple[float, ...] = (),
        outline: tuple[float, ...] = (),
        pivot: Vector = (0.0, 0.0, 0.0),
        swing: float = 0.0,
        spin: float = 0.0,
        grain: float = 0.0,
        two_sided: bool = False,
    ) -> None:
        """A rectangle; its front is where u points right and v up."""
        geometry = (*origin, *u, *v, 0.0, 0.0, 0.0)
        self._add(
            c.QUAD, geometry, material, shape, color, color2, style, outline, pivot, swing, spin, grain, two_sided
        )

    def ball(
        self,
        center: Vector,
        radii: Vector,
        material: int,
        color: Color,
        *,
        shape: int = c.FULL,
        color2: Color = (0.5, 0.5, 0.5),
        style: tuple[float, ...] = (),
        outline: tuple[float, ...] = (),
        pivot: Vector = (0.0, 0.0, 0.0),
        swing: float = 0.0,
        tilt: float = 0.0,
        grain: float = 0.0,
    ) -> None:
        """An ellipsoid with the radii along x, y, z, tilted around x by `tilt` [rad] (positive: top forward)."""
        ca, sa = math.cos(tilt), math.sin(tilt)
        geometry = (*center, radii[0], 0.0, 0.0, 0.0, radii[1] * ca, -radii[1] * sa, 0.0, radii[2] * sa, radii[2] * ca)
        self._add(c.BALL, geometry, material, shape, color, color2, style, outline, pivot, swing, 0.0, grain, True)

    def box(
        self,
        low: Vector,
        high: Vector,
        material: int,
        color: Color,
        *,
        bottom: bool = False,
        pivot: Vector = (0.0, 0.0, 0.0),
        swing: float = 0.0,
        grain: float = 0.0,
        color2: Color = (0.5, 0.5, 0.5),
        style: tuple[float, ...] = (),
    ) -> None:
        """An upright box between two corners (y down: low y is its top); four sides and a top."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        up = (0.0, y0 - y1, 0.0)
        faces = [
            ((x0, y1, z0), (x1 - x0, 0.0, 0.0), up),
            ((x1, y1, z1), (x0 - x1, 0.0, 0.0), up),
            ((x0, y1, z1), (0.0, 0.0, z0 - z1), up),
            ((x1, y1, z0), (0.0, 0.0, z1 - z0), up),
            ((x0, y0, z0), (x1 - x0, 0.0, 0.0), (0.0, 0.0, z1 - z0)),
        ]
        if bottom:
            faces.append(((x0, y1, z1), (x1 - x0, 0.0, 0.0), (0.0, 0.0, z0 - z1)))
        for origin, u, v in faces:
            self.quad(origin, u, v, material, color, pivot=pivot, swing=swing, grain=grain, color2=color2, style=style)

    def table(self) -> Float64[np.ndarray, "n 40"]:
        """All rows so far."""
        return np.array(self.values, np.float64).reshape(-1, c.COLUMNS)
