"""The last steps: holes, overlaps, and objects too small to be one (spec-stage1 4.16)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.spatial import Delaunay, QhullError

from cupola.motion.sf2se3.labelling import components
from cupola.motion.sf2se3.settings import Sf2se3Settings

MAX_DEPTH_STEP = 0.1
"""Corners of a patch of surface differ by at most this share of their depth: no surface across a depth jump (S32)."""


EVERYWHERE = (slice(None), slice(None))


def fill_holes(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask and all it encloses: parts of the rest (4 neighbours) that do not reach the image border."""
    padded = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts = cv2.connectedComponents(padded, connectivity=4)
    return np.asarray(parts[1:-1, 1:-1] != parts[0, 0])


def fill_all_but_largest(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """As published: everything but the largest of the mask and the parts of the rest (8 neighbours). That also fills
    what a mask cuts off at the border, and inverts a mask larger than every part of the rest (defect S30)."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=8)
    return np.asarray(parts != np.argmax(stats[:, cv2.CC_STAT_AREA]))


def surface_area(mask: Bool[np.ndarray, "h w"], points: Float32[np.ndarray, "3 h w"]) -> float:
    """Area of the surface seen through a mask [m^2]: two triangles for every 2 x 2 pixels inside it, without those
    that span a depth jump or an unknown point."""
    corners = points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, :-1], points[:, 1:, 1:]
    inside = mask[:-1, :-1] & mask[:-1, 1:] & mask[1:, :-1] & mask[1:, 1:]
    a, b, c, d = (corner[:, inside].astype(np.float64) for corner in corners)
    depths = np.stack([a[2], b[2], c[2], d[2]])
    with np.errstate(invalid="ignore"):
        smooth = np.ptp(depths, axis=0) <= MAX_DEPTH_STEP * depths.min(0)
    areas = _triangles(a, b, c) + _triangles(b, c, d)
    return float(areas[smooth].sum())


def hull_area(mask: Bool[np.ndarray, "h w"], points: Float32[np.ndarray, "3 h w"]) -> float:
    """As published: the area over a Delaunay triangulation of the mask's pixels, which covers their convex hull and
    steps across depth jumps (defect S32) [m^2]. 0 for pixels on one line."""
    pixels = np.argwhere(mask)
    try:
        corners = Delaunay(pixels).simplices
    except QhullError:
        return 0.0
    at = points[:, mask].astype(np.float64)
    return float(np.nansum(_triangles(*(at[:, corners[:, i]] for i in range(3)))))


def _triangles(
    a: Float64[np.ndarray, "3 n"], b: Float64[np.ndarray, "3 n"], c: Float64[np.ndarray, "3 n"]
) -> Float64[np.ndarray, "n"]:
    """Areas of the triangles a b c."""
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a, axis=0), axis=0) / 2)


def finish(
    masks: list[Bool[np.ndarray, "h w"]],
    scores: Float32[np.ndarray, "n"],
    points: Float32[np.ndarray, "3 h w"],
    settings: Sf2se3Settings,
) -> list[tuple[int, Bool[np.ndarray, "h w"]]]:
    """The final masks, which do not overlap, each with the index of the mask it comes from.

    Holes are filled; where masks overlap the better score wins (of equals the smaller mask), and what falls apart by
    that becomes separate objects. As published: the mask larger before filling wins (defect S31), and parts stay one.
    """
    fill = fill_all_but_largest if settings.published else fill_holes
    filled = [fill(mask) for mask in masks]
    sizes = np.array([mask.sum() for mask in masks])
    ids = np.zeros(points.shape[1:], np.int32)
    order = np.argsort(sizes, kind="stable") if settings.published else np.lexsort((-sizes, scores))
    for index in order:
        ids[filled[index]] = index + 1
    pieces = []
    for index in range(len(masks)):
        mask = ids == index + 1
        parts = [(EVERYWHERE, mask)] if settings.published else components(mask, settings.min_pixels)
        for window, part in parts:
            if large_enough(part, points[:, *window], settings):
                piece = np.zeros_like(mask)
                piece[window] = part
                pieces.append((index, piece))
    return pieces


def large_enough(mask: Bool[np.ndarray, "h w"], points: Float32[np.ndarray, "3 h w"], settings: Sf2se3Settings) -> bool:
    """Whether a mask has the pixels and the area [m^2] of an object."""
    if mask.sum() < settings.min_pixels:
        return False
    # Patches inside the mask are part of any triangulation, so they may settle it before the slow one.
    if surface_area(mask, points) >= settings.min_area:
        return True
    return settings.published and hull_area(mask, points) >= settings.min_area
