"""A street: what stands along it, who moves on it, in what light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from cupola.data.synthetic import columns as c
from cupola.data.synthetic import surroundings
from cupola.data.synthetic.camera_path import Curve, EgoPath, make_curve, make_ego_path
from cupola.data.synthetic.settings import StreetSettings
from cupola.data.synthetic.shadow import Caster
from cupola.data.synthetic.shapes import Color, Shapes, Vector, linear
from cupola.data.synthetic.surroundings import KERB_HEIGHT, Frame
from cupola.data.synthetic.traffic import Mover, Traffic, add_traffic

BEHIND, AHEAD = 15.0, 125.0
"""The street reaches this far behind the first and beyond the last camera [m]."""
SIDE_STREET = 50.0
"""Ground and side streets reach this far to each side of the centre line [m]."""


@dataclass(frozen=True)
class Layout:
    """Cross-section of the street [m], the same along all of it. sides are -1 (left) and +1 (right)."""

    lane: float
    parking: tuple[float, float]
    """Width of the parking strip on the left and on the right; 0 = none."""
    pavement: tuple[float, float]
    garden: tuple[float, float]

    def road_edge(self, side: int) -> float:
        """Lateral distance of the kerb from the centre line."""
        return self.lane + self.parking[side > 0]

    def pavement_edge(self, side: int) -> float:
        return self.road_edge(side) + self.pavement[side > 0]

    def house_line(self, side: int) -> float:
        return self.pavement_edge(side) + self.garden[side > 0]


@dataclass(frozen=True)
class Scene:
    """Everything that does not change from frame to frame. identity: instance id of each actor."""

    settings: StreetSettings
    curve: Curve
    ego: EgoPath
    shapes: Float64[np.ndarray, "n 40"]
    movers: tuple[Mover, ...]
    casters: tuple[Caster, ...]
    light: Float64[np.ndarray, "23"]

    @property
    def frames(self) -> int:
        return len(self.ego.s) - 1

    def camera(self, t: int, height: int, width: int) -> Float64[np.ndarray, "11"]:
        """The camera of frame t as the kernels take it."""
        rig = self.settings.calibration(height, width)
        x, z, heading = self.curve.at(float(self.ego.s[t]), float(self.ego.lateral[t]))
        up = self.settings.camera_height + float(self.ego.bob[t])
        pose = [x, -up, z, heading + self.ego.yaw[t], self.ego.pitch[t], self.ego.roll[t]]
        return np.array([*pose, rig.fx, rig.fy, rig.cx, rig.cy, rig.baseline], np.float64)

    def poses(self, t: int) -> Float64[np.ndarray, "m 6"]:
        """Pose of every actor at frame t; row 0 is the world."""
        rows = [(0.0,) * c.POSES]
        rows += [
            mover.pose(t * self.settings.interval, self.curve, self.ego, self.settings.interval)
            for mover in self.movers
        ]
        return np.array(rows, np.float64)

    def identity(self) -> np.ndarray:
        return np.array([0] + [mover.identity for mover in self.movers], np.int32)


def make_scene(seed: int, sequence: int, frames: int, settings: StreetSettings) -> Scene:
    """A street for a video of `frames` frames; the same for the same arguments on any machine."""
    rng = np.random.default_rng([seed, sequence])
    lane = float(rng.uniform(3.1, 3.6))
    ego = make_ego_path(rng, frames, settings.interval, lane / 2)
    end = float(ego.s[-1]) + AHEAD
    curve = make_curve(rng, -BEHIND - 20, end + 60)
    layout = _make_layout(rng, lane)
    shapes = Shapes()
    casters: list[Caster] = []
    gaps = _side_streets(rng, end)
    _add_ground(shapes, curve, layout, end, gaps, rng)
    _add_fronts(shapes, casters, curve, layout, end, gaps, rng)
    _add_furniture(shapes, casters, curve, layout, end, gaps, rng)
    _add_backdrop(shapes, curve, layout, end, rng)
    traffic = Traffic(shapes, rng, settings, curve, ego, end, gaps, layout.lane, layout.parking, layout.pavement)
    movers = add_traffic(traffic)
    casters += [mover.caster(row + 1) for row, mover in enumerate(movers)]
    return Scene(settings, curve, ego, shapes.table(), tuple(movers), tuple(casters), make_light(rng))


def _make_layout(rng: np.random.Generator, lane: float) -> Layout:
    parking = [2.2 if rng.random() < 0.75 else 0.0 for _ in range(2)]
    pavement = [float(rng.uniform(2.2, 4.0)) for _ in range(2)]
    garden = [float(rng.uniform(1.5, 4.5)) if rng.random() < 0.45 else 0.0 for _ in range(2)]
    return Layout(lane, (parking[0], parking[1]), (pavement[0], pavement[1]), (garden[0], garden[1]))


def _frame(curve: Curve, s: float, lateral: float, turn: float = 0.0, base: float = 0.0) -> Frame:
    x, z, heading = curve.at(s, lateral)
    return Frame(x, z, heading + turn, base)


@dataclass(frozen=True)
class _Ground:
    """What the ground of one street is made of: colours, and styles as the materials read them."""

    asphalt: Color
    slab: Color
    slabs: tuple[float, float]
    edge: float
    dash: float
    zebra: float


def _make_ground(rng: np.random.Generator, layout: Layout, end: float) -> _Ground:
    tone, pale = float(rng.uniform(0.7, 1.2)), float(rng.uniform(0.8, 1.2))
    return _Ground(
        asphalt=(0.085 * tone, 0.086 * tone, 0.09 * tone),
        slab=(0.24 * pale, 0.23 * pale, 0.21 * pale),
        slabs=(float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.4, 0.8))),
        edge=layout.lane if rng.random() < 0.6 else 0.0,
        dash=float(rng.choice([0.0, 6.0, 9.0, 12.0], p=[0.15, 0.35, 0.3, 0.2])),
        zebra=float(rng.uniform(5, end)) if rng.random() < 0.3 else -1e6,
    )


def _add_ground(
    shapes: Shapes,
    curve: Curve,
    layout: Layout,
    end: float,
    gaps: tuple[tuple[float, float], ...],
    rng: np.random.Generator,
) -> None:
    """Pieces of road, kerb, pavement and grass: long ones where the street is straight; side streets in the gaps."""
    ground = _make_ground(rng, layout, end)
    straight = float(np.ptp(curve.heading)) < 0.02
    length, overlap = (12.0, 0.0) if straight else (3.0, 0.4)
    edges = sorted({edge for gap in gaps for edge in gap})
    s = -BEHIND
    while s < end:
        reach = min([length, *(edge - s for edge in edges if edge > s)])
        crossing = any(low <= s < high for low, high in gaps)
        frame = _frame(curve, s, 0.0)
        _add_road(shapes, frame, layout, ground, s, reach + overlap)
        for side in (-1, 1):
            if crossing:
                kerb, far = side * layout.road_edge(side), side * SIDE_STREET
                style = (40.0, 0.0, 0.0, 0.0, -1e6, s)
                surroundings.add_ground_strip(
                    shapes,
                    frame,
                    min(kerb, far),
                    max(kerb, far),
                    reach,
                    c.ROAD,
                    surroundings.ROAD,
                    ground.asphalt,
                    style,
                )
            else:
                _add_pavement(shapes, frame, layout, ground, side, s, reach, overlap)
        s += reach


def _add_road(shapes: Shapes, frame: Frame, layout: Layout, ground: _Ground, s: float, reach: float) -> None:
    # drawn symmetric around the centre line; kerb and pavement lie above what is too wide
    half = max(layout.road_edge(-1), layout.road_edge(1))
    style = (half, ground.edge, ground.dash, 0.0, ground.zebra, s)
    surroundings.add_ground_strip(shapes, frame, -half, half, reach, c.ROAD, surroundings.ROAD, ground.asphalt, style)


def _add_pavement(
    shapes: Shapes, frame: Frame, layout: Layout, ground: _Ground, side: int, s: float, reach: float, overlap: float
) -> None:
    """Kerb, pavement and the grass behind it on one side."""
    kerb, outer = side * layout.road_edge(side), side * layout.pavement_edge(side)
    surroundings.add_ground_strip(
        shapes, frame, min(kerb, outer), max(kerb, outer), reach + overlap, c.PAVEMENT, surroundings.SIDEWALK,
        ground.slab, (*ground.slabs, 0.0, 0.0, 0.0, s), height=KERB_HEIGHT,
    )  # fmt: skip
    shapes.quad(
        frame.at(kerb, 0.0, 0.0 if side < 0 else reach + overlap),
        frame.along(0.0, 0.0, -side * (reach + overlap)),
        frame.along(0.0, KERB_HEIGHT, 0.0),
        c.KERB,
        (0.3, 0.3, 0.29),
        two_sided=True,
    )
    far = side * SIDE_STREET
    surroundings.add_ground_strip(
        shapes, frame, min(outer, far), max(outer, far), reach + overlap, c.GRASS, surroundings.TERRAIN,
        linear(84, 108, 52), (0.0, 0.0, 0.0, 0.0, 0.0, s), linear(128, 128, 70), KERB_HEIGHT - 0.01,
    )  # fmt: skip


def _side_streets(rng: np.random.Generator, end: float) -> tuple[tuple[float, float], ...]:
    """Arc lengths (from, to) where no house stands."""
    gaps = []
    at = float(rng.uniform(14, 50))
    while at < end:
        gaps.append((at - 5.0, at + 5.0))
        at += float(rng.uniform(60, 140))
    return tuple(gaps)


def _in_gap(gaps: tuple[tuple[float, float], ...], low: float, high: float) -> bool:
    return any(low < b and high > a for a, b in gaps)


def _add_fronts(
    shapes: Shapes,
    casters: list[Caster],
    curve: Curve,
    layout: Layout,
    end: float,
    gaps: tuple[tuple[float, float], ...],
    rng: np.random.Generator,
) -> None:
    tall = int(rng.integers(2, 5))
    for side in (-1, 1):
        s = -BEHIND
        while s < end:
            wide = float(rng.uniform(8, 17))
            if _in_gap(gaps, s, s + wide):
                s += 3.0
                continue
            frame = _frame(curve, s + wide / 2, side * layout.house_line(side), side * math.pi / 2, KERB_HEIGHT)
            floors = max(1, tall + int(rng.integers(-1, 2)))
            deep = float(rng.uniform(8, 12))
            if rng.random() < 0.88:
                high = surroundings.add_house(shapes, frame, wide, deep, floors, rng)
                x, _, z = frame.at(0.0, 0.0, deep / 2.0)
                casters.append(Caster(0, x, z, frame.heading, deep / 2, wide / 2, 0.0, high))
            if layout.garden[side > 0] > 0:
                edge = _frame(curve, s, side * (layout.pavement_edge(side) + 0.3), 0.0, KERB_HEIGHT)
                if rng.random() < 0.6:
                    surroundings.add_hedge(shapes, edge, wide - 1.5, rng)
                elif rng.random() < 0.7:
                    surroundings.add_fence(shapes, edge, wide - 1.5, rng)
                if rng.random() < 0.5:
                    spot = _frame(
                        curve, s + float(rng.uniform(1, wide)), side * (layout.house_line(side) - 0.8), 0.0, KERB_HEIGHT
                    )
                    surroundings.add_bush(shapes, spot, rng)
            s += wide + (0.0 if rng.random() < 0.6 else float(rng.uniform(1, 6)))


def _add_furniture(
    shapes: Shapes,
    casters: list[Caster],
    curve: Curve,
    layout: Layout,
    end: float,
    gaps: tuple[tuple[float, float], ...],
    rng: np.random.Generator,
) -> None:
    for side in (-1, 1):
        trees = rng.random() < 0.7
        s = -BEHIND + float(rng.uniform(0, 10))
        while s < end:
            lateral = side * (layout.road_edge(side) + 0.45)
            frame = _frame(curve, s, lateral, 0.0, KERB_HEIGHT)
            draw = rng.random()
            if _in_gap(gaps, s - 1.5, s + 1.5):
                draw = 1.0
            if trees and draw < 0.6:
                middle, radius = surroundings.add_tree(shapes, frame, rng)
                casters.append(
                    Caster(0, frame.x, frame.z, 0.0, radius, radius, middle - radius, middle + radius, crown=True)
                )
            elif draw < 0.72:
                surroundings.add_lamp(shapes, frame, -side)
            elif draw < 0.87:
                surroundings.add_sign(shapes, frame, rng)
            s += float(rng.uniform(6, 12))


def _add_backdrop(shapes: Shapes, curve: Curve, layout: Layout, end: float, rng: np.random.Generator) -> None:
    """Woods that close the view at the end of the street and behind the houses."""
    shapes.actor, shapes.label = 0, surroundings.VEGETATION
    for k in range(3):
        frame = _frame(curve, end + 8 * k, float(rng.uniform(-10, 10)))
        _add_wood(shapes, frame.at(-90.0, -1.0, 0.0), frame.along(180.0, 0.0, 0.0), 8.0 + 4.0 * k, rng)
    s, step = -BEHIND, 28.0
    while s < end:
        for side in (-1, 1):
            frame = _frame(curve, s + step / 2, side * SIDE_STREET)
            low, reach = frame.at(0.0, -0.5, -0.7 * step), frame.along(0.0, 0.0, 1.4 * step)
            _add_wood(shapes, low, reach, float(rng.uniform(6, 10)), rng)
        s += step


def _add_wood(shapes: Shapes, origin: Vector, along: Vector, high: float, rng: np.random.Generator) -> None:
    shapes.quad(
        origin, along, (0.0, -high, 0.0), c.HILLS, linear(70, 88, 58),
        shape=c.RAGGED_TOP, outline=(3.0, 0.35), grain=float(rng.random()) * 250, two_sided=True,
    )  # fmt: skip


def make_light(rng: np.random.Generator) -> Float64[np.ndarray, "23"]:
    """Sun, sky, haze and exposure: from overcast to a clear afternoon."""
    light = np.zeros(c.LIGHTS)
    clear = float(rng.random()) ** 0.5
    azimuth, elevation = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.45, 1.1))
    light[c.SUN : c.SUN + 3] = (
        math.sin(azimuth) * math.cos(elevation),
        -math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    warm = float(rng.uniform(0, 1)) * (1.2 - elevation)
    sun = np.array([1.0, 0.93 - 0.1 * warm, 0.82 - 0.25 * warm])
    light[c.SUN_COLOR : c.SUN_COLOR + 3] = 1.75 * clear * sun
    sky = np.array([0.75, 0.88, 1.08]) * clear + np.array([0.98, 1.0, 1.03]) * (1 - clear)
    light[c.SKY_COLOR : c.SKY_COLOR + 3] = sky * (0.75 + 0.45 * (1 - clear))
    light[c.BOUNCE : c.BOUNCE + 3] = np.array([0.30, 0.28, 0.26]) * (0.8 + 0.6 * clear)
    light[c.HAZE_COLOR : c.HAZE_COLOR + 3] = np.array([0.74, 0.80, 0.86]) * clear + np.array([0.72, 0.74, 0.76]) * (
        1 - clear
    )
    light[c.ZENITH : c.ZENITH + 3] = np.array([0.16, 0.33, 0.66]) * clear + np.array([0.52, 0.56, 0.62]) * (1 - clear)
    light[c.HAZE] = float(rng.uniform(0.001, 0.004))
    light[c.CLOUDS] = float(rng.uniform(0.2, 0.65))
    light[c.EXPOSURE] = float(rng.uniform(0.74, 0.92))
    light[c.CLOUD_AT : c.CLOUD_AT + 2] = rng.uniform(0, 250, 2)
    return light
