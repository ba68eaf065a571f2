"""The centre line of a street and the way of the ego car along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

STEP = 0.5
"""Spacing of the samples of a centre line [m]."""


@dataclass(frozen=True)
class Curve:
    """A centre line sampled every `STEP` metres from arc length `start`: position and heading (0 = +z, clockwise)."""

    start: float
    x: Float64[np.ndarray, "n"]
    z: Float64[np.ndarray, "n"]
    heading: Float64[np.ndarray, "n"]

    def at(self, s: float, lateral: float = 0.0) -> tuple[float, float, float]:
        """(x, z, heading) at arc length s and `lateral` metres right of the centre line."""
        place = min(max((s - self.start) / STEP, 0.0), len(self.x) - 1.001)
        i = int(place)
        a = place - i
        heading = float(self.heading[i] * (1 - a) + self.heading[i + 1] * a)
        x = float(self.x[i] * (1 - a) + self.x[i + 1] * a)
        z = float(self.z[i] * (1 - a) + self.z[i + 1] * a)
        return x + lateral * float(np.cos(heading)), z - lateral * float(np.sin(heading)), heading


def make_curve(rng: np.random.Generator, start: float, end: float) -> Curve:
    """A street that is straight or bends gently, one bend about every 60 m, so that the heading stays bounded."""
    n = int((end - start) / STEP) + 2
    s = start + STEP * np.arange(n)
    heading = np.zeros(n)
    if rng.random() < 0.6:
        for _ in range(2 + n // 240):
            at = rng.uniform(start, end)
            turn = rng.normal(0, 0.25)
            half = abs(turn) * rng.uniform(25, 60) + 8
            heading += turn * 0.5 * (1 + np.tanh((s - at) / half * 1.5))
    heading = heading - np.interp(0.0, s, heading)
    wide = np.abs(heading).max()
    if wide > 0.9:
        heading = heading * (0.9 / wide)
    x, z = np.cumsum(np.sin(heading)) * STEP, np.cumsum(np.cos(heading)) * STEP
    origin = (np.interp(0.0, s, x), np.interp(0.0, s, z))
    return Curve(start, x - origin[0], z - origin[1], heading)


@dataclass(frozen=True)
class EgoPath:
    """State of the ego car at every frame: arc length, lateral offset [m], yaw against the street, pitch, roll [rad],
    height wobble [m]."""

    s: Float64[np.ndarray, "n"]
    lateral: Float64[np.ndarray, "n"]
    yaw: Float64[np.ndarray, "n"]
    pitch: Float64[np.ndarray, "n"]
    roll: Float64[np.ndarray, "n"]
    bob: Float64[np.ndarray, "n"]


def make_ego_path(rng: np.random.Generator, frames: int, interval: float, lane: float) -> EgoPath:
    """Speeds from standing to 13 m/s, changing every few seconds; sway in the lane, lane changes, rocking.

    lane: lateral of the ego's lane [m]; the path holds frames + 1 states, so that the last frame has a next one.
    """
    n = frames + 1
    t = interval * np.arange(n)
    knots = np.arange(0.0, t[-1] + 8.0, 4.0)
    kinds = rng.choice(3, size=len(knots), p=(0.15, 0.25, 0.6))
    speeds = np.where(
        kinds == 0, 0.0, np.where(kinds == 1, rng.uniform(0.8, 4, len(knots)), rng.uniform(4, 12, len(knots)))
    )
    if rng.random() < 0.7:
        speeds[1:] = np.clip(speeds[0] + np.cumsum(rng.normal(0, 2.0, len(knots) - 1)), 0, 13)
    speed = np.interp(t, knots, speeds)
    s = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]) * interval)])
    sway, wave = rng.uniform(0.05, 0.35), rng.uniform(25, 70)
    phase = rng.uniform(0, 2 * np.pi)
    lateral = lane + sway * np.sin(2 * np.pi * s / wave + phase)
    yaw = np.arctan(sway * 2 * np.pi / wave * np.cos(2 * np.pi * s / wave + phase))
    if rng.random() < 0.3:  # the car is turned while it drives on: pulling out, swerving around something
        yaw = yaw + rng.normal(0, 0.07) * np.sin(2 * np.pi * s / 30.0 + rng.uniform(0, 6.28))
    shake = np.minimum(speed / 6.0, 1.0)
    walk = rng.normal(0, 1, (3, n))
    for k in range(1, n):
        walk[:, k] = 0.6 * walk[:, k - 1] + 0.8 * walk[:, k]
    pitch = np.radians(1.0) + rng.normal(0, 0.006) + 0.0018 * walk[0] * shake
    roll = rng.normal(0, 0.004) + 0.0012 * walk[1] * shake
    return EgoPath(s, lateral, yaw, pitch, np.asarray(roll), 0.008 * walk[2] * shake)
