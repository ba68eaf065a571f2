"""Who moves, and who only stands there: cars, cyclists and people made by the same generators."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from cupola.data.synthetic import people, vehicles
from cupola.data.synthetic.camera_path import Curve, EgoPath
from cupola.data.synthetic.settings import StreetSettings
from cupola.data.synthetic.shadow import Caster
from cupola.data.synthetic.shapes import Shapes
from cupola.data.synthetic.surroundings import KERB_HEIGHT

MAX_NUMBER = 1000
"""Instance ids are label id * 1000 + n; n wraps here."""


@dataclass(frozen=True)
class Mover:
    """An actor on the street. Its arc length is s + speed_s (t - since), its lateral place likewise.

    turn: heading against the street [rad]; since: when it starts [s]; follows: s counts from the ego car;
    ease: seconds over which a car that pulls out reaches its lane (lateral_to) and speed; half sizes, height: of its
    shadow [m].
    """

    identity: int
    s: float
    lateral: float
    turn: float
    speed_s: float = 0.0
    speed_lateral: float = 0.0
    since: float = 0.0
    follows: bool = False
    lateral_to: float | None = None
    ease: float = 2.5
    base: float = 0.0
    stride: float = 0.0
    phase: float = 0.0
    half_length: float = 0.3
    half_width: float = 0.3
    height: float = 1.7

    def place(self, t: float, ego_s: float) -> tuple[float, float, float, float]:
        """(arc length, lateral, heading against the street, distance gone) at time t [s]."""
        elapsed = t - self.since
        if self.lateral_to is not None:
            x = min(max(elapsed / self.ease, 0.0), 1.0)
            smooth = x * x * (3 - 2 * x)
            gone = self.speed_s * (0.5 * x * x * self.ease + max(elapsed - self.ease, 0.0))
            lateral = self.lateral + (self.lateral_to - self.lateral) * smooth
            slope = (self.lateral_to - self.lateral) * 6 * x * (1 - x) / self.ease
            forward = abs(self.speed_s) * max(x, 0.15)
            bend = math.atan2(slope, forward) if self.speed_s > 0 else -math.atan2(slope, forward)
            return self.s + gone, lateral, self.turn + bend, abs(gone)
        gone_s, gone_l = self.speed_s * elapsed, self.speed_lateral * elapsed
        start = ego_s if self.follows else 0.0
        distance = start + gone_s if self.follows else math.hypot(gone_s, gone_l)
        return start + self.s + gone_s, self.lateral + gone_l, self.turn, distance

    def caster(self, actor: int) -> Caster:
        """The box that throws its shadow."""
        car = self.half_length > 1
        contact, reach, base = (0.85, 0.3, 0.15) if car else (0.35, 0.2, 0.0)
        return Caster(
            actor, 0.0, 0.0, 0.0, self.half_length, self.half_width, base, self.height * (0.9 if car else 1.0),
            contact, reach,
        )  # fmt: skip

    def pose(self, t: float, curve: Curve, ego: EgoPath, interval: float) -> tuple[float, ...]:
        """Row of the table of poses at time t [s]."""
        index = min(round(t / interval), len(ego.s) - 1)
        s, lateral, turn, distance = self.place(t, float(ego.s[index]))
        x, z, heading = curve.at(s, lateral)
        swing = self.phase if self.stride <= 0 else self.phase + math.pi * distance / self.stride
        return x, -self.base, z, heading + turn, swing, -distance / 0.33


@dataclass
class Traffic:
    """What the generators of traffic need, and what they have made so far."""

    shapes: Shapes
    rng: np.random.Generator
    settings: StreetSettings
    curve: Curve
    ego: EgoPath
    end: float
    gaps: tuple[tuple[float, float], ...]
    lane: float
    parking: tuple[float, float]
    pavement: tuple[float, float]
    movers: list[Mover] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        return (len(self.ego.s) - 1) * self.settings.interval

    def next_identity(self, label: int) -> int:
        number = self.counts.get(label, 0)
        self.counts[label] = number + 1
        return label * MAX_NUMBER + number % MAX_NUMBER

    def ego_at(self, t: float) -> float:
        return float(np.interp(t, self.settings.interval * np.arange(len(self.ego.s)), self.ego.s))

    def car(self, **motion: float | bool | None) -> None:
        identity = self.next_identity(vehicles.CAR)
        model = vehicles.add_car(self.shapes, len(self.movers) + 1, self.rng)
        half_length, half_width, height = vehicles.car_footprint(model)
        self.movers.append(
            Mover(identity, half_length=half_length, half_width=half_width, height=height, **motion)  # type: ignore[arg-type]
        )

    def person(self, **motion: float | bool | None) -> None:
        identity = self.next_identity(people.PERSON)
        height = people.add_person(self.shapes, len(self.movers) + 1, self.rng)
        self.movers.append(Mover(identity, height=height, half_length=0.16, half_width=0.25, **motion))  # type: ignore[arg-type]

    def cyclist(self, rider: bool, **motion: float | bool | None) -> None:
        identity = self.next_identity(people.BICYCLE)
        people.add_bicycle(self.shapes, len(self.movers) + 1, self.rng)
        self.movers.append(Mover(identity, height=1.0, half_length=0.85, half_width=0.1, **motion))  # type: ignore[arg-type]
        if rider:
            identity = self.next_identity(people.RIDER)
            people.add_rider(self.shapes, len(self.movers) + 1, self.rng)
            motion = {**motion, "stride": 2.4}
            self.movers.append(Mover(identity, height=1.75, half_length=0.4, half_width=0.22, **motion))  # type: ignore[arg-type]


def add_traffic(traffic: Traffic) -> list[Mover]:
    """All cars, cyclists and people of a street."""
    _parked_cars(traffic)
    _lanes(traffic)
    _crossing_cars(traffic)
    _people_on_pavements(traffic)
    _people_crossing(traffic)
    _cyclists(traffic)
    return traffic.movers


def _free(traffic: Traffic, s: float) -> bool:
    return not any(a - 3 < s < b + 3 for a, b in traffic.gaps)


def _parked_cars(traffic: Traffic) -> None:
    rng = traffic.rng
    for side in (-1, 1):
        width = traffic.parking[side > 0]
        if width == 0:
            continue
        s = -15.0 + float(rng.uniform(0, 6))
        while s < traffic.end:
            s += float(rng.uniform(5.4, 7.0))
            if rng.random() > traffic.settings.parked or not _free(traffic, s):
                continue
            lateral = side * (traffic.lane + width / 2 + float(rng.normal(0, 0.08)))
            turn = (0.0 if side > 0 else math.pi) + (math.pi if rng.random() < 0.15 else 0.0)
            turn += float(rng.normal(0, 0.015))
            pulls_out = rng.random() < 0.15 * traffic.settings.traffic and side > 0 and s > 9
            if pulls_out:
                since = _when_near(traffic, s, 8.0, 35.0) - float(rng.uniform(0.5, 2.2))
                traffic.car(
                    s=s, lateral=lateral, turn=0.0, speed_s=float(rng.uniform(4, 7)), since=since,
                    lateral_to=traffic.lane / 2, ease=float(rng.uniform(2.2, 3.2)),
                )  # fmt: skip
            else:
                traffic.car(s=s, lateral=lateral, turn=turn)


def _when_near(traffic: Traffic, s: float, low: float, high: float) -> float:
    """A time [s] at which the ego car is `low` to `high` metres before arc length s, or any time of the video."""
    distance = s - traffic.ego.s
    times = np.flatnonzero((distance > low) & (distance < high)) * traffic.settings.interval
    if len(times) == 0:
        return float(traffic.rng.uniform(0, traffic.duration))
    return float(traffic.rng.choice(times))


def _lanes(traffic: Traffic) -> None:
    rng, amount = traffic.rng, traffic.settings.traffic
    half = traffic.lane / 2
    # oncoming: a stream at one speed, so that nobody drives through the car ahead
    speed = float(rng.uniform(3, 12))
    s = float(rng.uniform(6, 30))
    reach = min(traffic.end, 110.0 + float(traffic.ego.s[-1])) + speed * traffic.duration
    while s < reach and amount > 0:
        traffic.car(s=s, lateral=-half + float(rng.normal(0, 0.12)), turn=math.pi, speed_s=-speed)
        s += float(rng.uniform(8, 32)) / amount
    # ahead in the own lane: keeps its distance from the ego car, nearer or farther over the video
    if rng.random() < 0.75 * amount:
        gap = float(rng.uniform(8, 30))
        drift = float(rng.uniform(-0.5, 3.0)) if traffic.duration < 2 else 0.0
        traffic.car(s=gap, lateral=half + float(rng.normal(0, 0.15)), turn=0.0, speed_s=drift, follows=True)


def _crossing_cars(traffic: Traffic) -> None:
    rng = traffic.rng
    for low, high in traffic.gaps:
        if rng.random() > 0.85 * traffic.settings.traffic:
            continue
        s = (low + high) / 2
        side = 1 if rng.random() < 0.5 else -1
        speed = float(rng.uniform(3, 9))
        when = _when_near(traffic, s, 8.0, 40.0)
        lateral = float(rng.uniform(-8, 8))
        traffic.car(
            s=s + side * 1.7, lateral=lateral, turn=side * math.pi / 2, speed_lateral=side * speed,
            since=when,
        )  # fmt: skip


def _people_on_pavements(traffic: Traffic) -> None:
    rng, amount = traffic.rng, traffic.settings.people
    for side in (-1, 1):
        width = traffic.pavement[side > 0]
        inner = traffic.lane + traffic.parking[side > 0]
        s = float(rng.uniform(0, 8))
        while s < min(traffic.end, float(traffic.ego.s[-1]) + 70) and amount > 0:
            stands = rng.random() < 0.6
            lateral = side * (inner + float(rng.uniform(0.35, width - 0.4)))
            if stands:
                turn = float(rng.uniform(0, 2 * math.pi))
                phase = float(rng.normal(0, 0.25))
                for _ in range(1 if rng.random() < 0.65 else 2):
                    base = KERB_HEIGHT if _free(traffic, s) else 0.0
                    traffic.person(s=s, lateral=lateral, turn=turn, base=base, phase=phase)
                    s += float(rng.uniform(0.5, 0.9))
                    turn, phase = turn + math.pi + float(rng.normal(0, 0.5)), float(rng.normal(0, 0.25))
            else:
                direction = 1 if rng.random() < 0.5 else -1
                traffic.person(
                    s=s, lateral=lateral, turn=0.0 if direction > 0 else math.pi,
                    speed_s=direction * float(rng.uniform(1.0, 1.9)), base=KERB_HEIGHT,
                    stride=people.STRIDE, phase=float(rng.uniform(0, 6.28)),
                )  # fmt: skip
            s += float(rng.exponential(6.5)) / amount + 0.8


def _people_crossing(traffic: Traffic) -> None:
    rng = traffic.rng
    rate = (1.5 + traffic.duration / 12.0) * traffic.settings.people
    for _ in range(int(rng.poisson(rate))):
        when = float(rng.uniform(0, traffic.duration))
        side = 1 if rng.random() < 0.5 else -1
        lateral = float(rng.uniform(-traffic.lane, traffic.lane))
        traffic.person(
            s=traffic.ego_at(when) + float(rng.uniform(8, 25)), lateral=lateral, turn=side * math.pi / 2,
            speed_lateral=side * float(rng.uniform(1.1, 1.9)), since=when,
            stride=people.STRIDE, phase=float(rng.uniform(0, 6.28)),
        )  # fmt: skip


def _cyclists(traffic: Traffic) -> None:
    rng, amount = traffic.rng, traffic.settings.traffic
    for direction in (-1, 1):
        s = float(rng.uniform(5, 60))
        while s < min(traffic.end, float(traffic.ego.s[-1]) + 70):
            if rng.random() < 0.6 * amount:
                speed = direction * float(rng.uniform(2.5, 6))
                traffic.cyclist(
                    True, s=s, lateral=direction * (traffic.lane - 0.5), turn=0.0 if direction > 0 else math.pi,
                    speed_s=speed, phase=float(rng.uniform(0, 6.28)),
                )  # fmt: skip
            s += float(rng.uniform(25, 90))
    for side in (-1, 1):  # left standing at a house front
        if rng.random() < 0.4:
            edge = traffic.lane + traffic.parking[side > 0] + traffic.pavement[side > 0]
            traffic.cyclist(
                False, s=float(rng.uniform(5, 35)), lateral=side * (edge - 0.3),
                turn=float(rng.normal(0, 0.1)), base=KERB_HEIGHT,
            )  # fmt: skip
