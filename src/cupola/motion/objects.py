"""From clusters of cells to objects: exact motion, merged parts, dense masks (findings-motion 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from cupola.geometry.ego_motion import DISPARITY_SIGMA
from cupola.motion import kernels
from cupola.motion.cells import Cluster, upright
from cupola.motion.scene import Scene

REFIT_SCALES = (25.0, 9.0, 9.0, 9.0)
"""c^2 of the Geman-McClure weights of the refit steps [chi^2 of three residuals]."""

SAME_VELOCITY, SAME_GAP, SAME_DEPTH = 0.2, 1.2, 3.0
"""Parts of one object: velocities within this share, at most this gap [m] in the image plane, depths within this [m]
(findings-motion 5)."""

DEPTH_MARGIN, DISPARITY_MARGIN = 1.2, 1.0
"""An object reaches at most this far beyond its cells in depth [m], or in disparity [px] if that is more."""

LOWEST, HIGHEST = 0.15, 4.5
"""Heights above the ground an object's pixels have [m] (findings-motion 5)."""

CHI2_CAP = 25.0
"""A pixel's chi^2 is cut here before it is averaged."""

EVIDENCE = 0.3
"""Mean advantage of the object's motion over the static scene that a pixel needs [chi^2] (findings-motion 5)."""

AVERAGE, CLOSE, OPEN = 9, 7, 3
"""Sides of the averaging box and of the closing and opening [px at KITTI size]."""

CLEARLY_BETTER, MIN_LEFT = 0.7, 0.5
"""A weaker object takes a shared pixel where its misfit is below this share of the stronger one's; it is dropped if
less than this share of its mask is left."""

MAX_MOTION = 6.0
"""Nothing on a street moves faster [m a frame]: 60 m/s at ten frames a second."""

MIN_AREA, MIN_MOTION, MIN_KNOWN = 0.4, 0.05, 0.3
"""Smallest object [m^2], slowest [m a frame], and least share of pixels with known flow (findings-motion 5)."""


@dataclass(frozen=True)
class MovingObject:
    """mask; velocity: sideways and forward along the ground [m a frame]; significance of its cluster; disparity: lowest
    and highest of its seeds [px]."""

    mask: Bool[np.ndarray, "h w"]
    velocity: Float64[np.ndarray, "2"]
    significance: float
    disparity: tuple[float, float]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """y0, y1, x0, x1 of the mask, half open."""
        return bounds(self.mask)


@dataclass(frozen=True)
class _Part:
    """Seed pixels of one or more clusters that move together."""

    ys: Int32[np.ndarray, "n"]
    xs: Int32[np.ndarray, "n"]
    velocity: Float64[np.ndarray, "2"]
    significance: float


def bounds(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """y0, y1, x0, x1 of a mask, half open."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def refit(
    scene: Scene, ys: Int32[np.ndarray, "n"], xs: Int32[np.ndarray, "n"], velocity: Float64[np.ndarray, "2"]
) -> Float64[np.ndarray, "2"]:
    """The translation that explains the pixels best, robustly and linearised anew at every step.

    It starts at the cells' solution: linearised once at the ego-motion, 2 m at 16 m comes out 15-20 % wrong, and from
    zero the robust cost locks on static pixels (findings-motion 5).
    """
    for scale in REFIT_SCALES:
        normal, right, _ = kernels.normal_equations(
            ys,
            xs,
            scene.flow,
            scene.moved,
            scene.disparity,
            scene.flow_sigma,
            DISPARITY_SIGMA,
            scene.motion(velocity),
            scene.rig,
            scene.basis,
            scale,
        )
        a = normal[:2, :2]
        if np.linalg.det(a) <= 1e-9 * a[0, 0] * a[1, 1]:
            break
        velocity = velocity + np.linalg.solve(a, right[:2])
    return velocity


def find_objects(scene: Scene, clusters: list[Cluster]) -> list[MovingObject]:
    """Objects from clusters: refit, merge, grow, complete (findings-motion 5). Not yet proven."""
    parts = [_part(scene, cluster) for cluster in clusters]
    objects = [grown for part in _merged(scene, parts) if (grown := _grow(scene, part)) is not None]
    return _without_reflections(scene, _without_overlap(scene, objects))


def _part(scene: Scene, cluster: Cluster) -> _Part:
    ys, xs = cluster.pixels(upright(scene))
    return _Part(ys, xs, refit(scene, ys, xs, cluster.velocity), cluster.significance)


def _merged(scene: Scene, parts: list[_Part]) -> list[_Part]:
    """Parts joined, strongest first, as long as any two belong together."""
    parts = list(parts)
    i = 0
    while i < len(parts):
        for j in range(i + 1, len(parts)):
            if _belong_together(scene, parts[i], parts[j]):
                first, second = parts[i], parts.pop(j)
                ys, xs = np.concatenate([first.ys, second.ys]), np.concatenate([first.xs, second.xs])
                velocity = refit(scene, ys, xs, first.velocity)
                parts[i] = _Part(ys, xs, velocity, max(first.significance, second.significance))
                i = -1
                break
        i += 1
    return parts


def _belong_together(scene: Scene, first: _Part, second: _Part) -> bool:
    difference = np.linalg.norm(first.velocity - second.velocity)
    if difference > SAME_VELOCITY * max(np.linalg.norm(first.velocity), np.linalg.norm(second.velocity)):
        return False
    depths = [float(np.median(scene.depth[part.ys, part.xs])) for part in (first, second)]
    if abs(depths[0] - depths[1]) > SAME_DEPTH:
        return False
    metre = scene.calibration.fx / max(min(depths), 0.1)
    gaps = [max(a.min() - b.max(), b.min() - a.max(), 0) for a, b in ((first.xs, second.xs), (first.ys, second.ys))]
    return float(np.hypot(*gaps)) < SAME_GAP * metre


def _grow(scene: Scene, part: _Part) -> MovingObject | None:
    """The dense mask of a part, or None where too little is left of it."""
    disparities = scene.disparity[part.ys, part.xs]
    low, high = (float(value) for value in np.quantile(disparities, [0.03, 0.97]))
    scale = scene.depth_scale
    low = min(low - DISPARITY_MARGIN, scale / (scale / low + DEPTH_MARGIN))
    near = scale / high - DEPTH_MARGIN
    high = max(high + DISPARITY_MARGIN, scale / near if near > 0.5 else high + 4)
    box = _region(scene, part)
    window = np.s_[box[0] : box[1], box[2] : box[3]]
    disparity, height = scene.disparity[window], scene.height[window]
    static = np.minimum(scene.chi2(None, box), CHI2_CAP)
    moving = np.minimum(scene.chi2(part.velocity, box), CHI2_CAP)
    gain = static - moving
    side = scene.odd(AVERAGE)
    with np.errstate(invalid="ignore"):
        inside = (disparity > low) & (disparity < high)
        candidate = inside & (height > LOWEST) & (height < HIGHEST)
        measured = np.isfinite(gain) & inside
    mean = _box_mean(np.nan_to_num(gain), measured, side)
    mask = opened(closed(candidate & (mean > EVIDENCE), scene.odd(CLOSE)), scene.odd(OPEN, 1))
    seeds = np.zeros(mask.shape, bool)
    seeds[part.ys - box[0], part.xs - box[2]] = True
    mask = filled(touching(mask, seeds))
    if not mask.any():
        return None
    against = (disparity < low) | (disparity > high) | (height < LOWEST) | (measured & (mean < 0))
    mask = hull(mask) & ~against
    mask = largest_parts(mask, scene.odd(OPEN, 1))
    if not mask.any() or not large_enough(scene, mask, window, part.velocity):
        return None
    full = np.zeros(scene.size, bool)
    full[window] = mask
    return MovingObject(full, part.velocity, part.significance, (low, high))


def _region(scene: Scene, part: _Part) -> tuple[int, int, int, int]:
    """Where the object may extend to: its seeds' box and three metres around."""
    margin = int(3.0 * scene.calibration.fx / max(float(np.median(scene.depth[part.ys, part.xs])), 1.0)) + 8
    height, width = scene.size
    return (
        max(0, int(part.ys.min()) - margin),
        min(height, int(part.ys.max()) + margin + 1),
        max(0, int(part.xs.min()) - margin),
        min(width, int(part.xs.max()) + margin + 1),
    )


def _box_mean(values: np.ndarray, where: Bool[np.ndarray, "a b"], side: int) -> Float32[np.ndarray, "a b"]:
    """Mean over the side x side box of the values in `where`; 0 where there are none."""
    size = (side, side)
    total = cv2.boxFilter(np.where(where, values, 0).astype(np.float32), -1, size, normalize=False)
    count = cv2.boxFilter(where.astype(np.float32), -1, size, normalize=False)
    return np.asarray(np.where(count > 0.5, total / np.maximum(count, 1), 0), np.float32)


def closed(mask: Bool[np.ndarray, "a b"], side: int) -> Bool[np.ndarray, "a b"]:
    box = np.ones((side, side), np.uint8)
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, box) > 0)


def opened(mask: Bool[np.ndarray, "a b"], side: int) -> Bool[np.ndarray, "a b"]:
    box = np.ones((side, side), np.uint8)
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, box) > 0)


def touching(mask: Bool[np.ndarray, "a b"], seeds: Bool[np.ndarray, "a b"]) -> Bool[np.ndarray, "a b"]:
    """The parts of a mask (8 neighbours) that hold a seed."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(np.isin(labels, np.unique(labels[seeds & mask])) & mask)


def filled(mask: Bool[np.ndarray, "a b"]) -> Bool[np.ndarray, "a b"]:
    """The mask without holes."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(canvas, contours, -1, 1, cv2.FILLED)
    return np.asarray(canvas > 0)


def hull(mask: Bool[np.ndarray, "a b"]) -> Bool[np.ndarray, "a b"]:
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(points), 1)
    return np.asarray(canvas > 0)


def largest_parts(mask: Bool[np.ndarray, "a b"], side: int) -> Bool[np.ndarray, "a b"]:
    """The mask opened, without crumbs: parts below a tenth of the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened(mask, side).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return np.zeros(mask.shape, bool)
    return np.asarray(np.isin(labels, 1 + np.flatnonzero(areas >= 0.1 * areas.max())))


def large_enough(scene: Scene, mask: np.ndarray, window: tuple[slice, slice], velocity: np.ndarray) -> bool:
    """Whether a mask (given on a window of the image) has the size, the motion and the known pixels of an object."""
    depth = scene.depth_scale / np.maximum(scene.filled[window][mask], 0.3)
    area = float((depth**2).sum()) / (scene.calibration.fx * scene.calibration.fy)
    known = float(scene.known[window][mask].mean())
    return area >= MIN_AREA and MIN_MOTION <= float(np.linalg.norm(velocity)) <= MAX_MOTION and known >= MIN_KNOWN


def _without_overlap(scene: Scene, objects: list[MovingObject]) -> list[MovingObject]:
    """Gives every pixel to one object, strongest first: a weaker one gets a shared pixel only where its motion explains
    the surroundings clearly better, and is dropped where it loses most of its mask."""
    kept: list[MovingObject] = []
    for one in objects:
        y0, y1, x0, x1 = one.box
        window = np.s_[y0:y1, x0:x1]
        mine = _misfit(scene, one.velocity, one.box)
        mask, taken = one.mask.copy(), []
        for other in kept:
            shared = mask[window] & other.mask[window]
            if shared.any():
                lost = shared & ~(mine < CLEARLY_BETTER * _misfit(scene, other.velocity, one.box))
                mask[window][lost] = False
                taken.append((other, shared & ~lost))
        if mask.sum() < MIN_LEFT * one.mask.sum():
            continue
        for other, won in taken:
            other.mask[window][won] = False
        kept.append(replace(one, mask=mask))
    return [one for one in kept if one.mask.any()]


def _misfit(scene: Scene, velocity: np.ndarray, box: tuple[int, int, int, int]) -> Float32[np.ndarray, "a b"]:
    """Averaged chi^2 under a motion."""
    chi2 = np.minimum(scene.chi2(velocity, box), CHI2_CAP)
    return _box_mean(np.nan_to_num(chi2), np.isfinite(chi2), scene.odd(AVERAGE))


def _without_reflections(scene: Scene, objects: list[MovingObject]) -> list[MovingObject]:
    """Drops a small mask inside a larger object's box that is not in front of it: a reflection (findings-motion 5)."""
    kept = []
    for one in objects:
        y0, y1, x0, x1 = one.box
        nearness = np.median(scene.filled[one.mask])
        if not any(
            other is not one
            and other.mask.sum() > 2 * one.mask.sum()
            and other.box[0] <= y0
            and y1 <= other.box[1]
            and other.box[2] <= x0
            and x1 <= other.box[3]
            and nearness < np.median(scene.filled[other.mask]) + DISPARITY_MARGIN
            for other in objects
        ):
            kept.append(one)
    return kept
