"""From the objects of a run to masks at full resolution (spec-stage1 4.11 to 4.13)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from cupola.geometry import se3
from cupola.motion.sf2se3 import kernels
from cupola.motion.sf2se3.consensus import Objects, evidence, place_distances
from cupola.motion.sf2se3.observation import Observation
from cupola.motion.sf2se3.settings import Sf2se3Settings


@dataclass(frozen=True)
class RunMasks:
    """Masks of one run, which do not overlap. ids: 0 none, i + 1 = mask i; scores in [0, 1]; motions [m]."""

    ids: Int32[np.ndarray, "h w"]
    scores: Float32[np.ndarray, "n"]
    motions: Float64[np.ndarray, "n 4 4"]


def label_pixels(
    seen: Observation, objects: Objects, settings: Sf2se3Settings
) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """(object, its share of the joint likelihoods) of every pixel, 0 where it is not reliable or nothing explains it.

    Everything that some object explains at all takes the likeliest one, however far out.
    """
    labels, shares = np.zeros(seen.full.size, np.uint8), np.zeros(seen.full.size, np.float32)
    if len(objects):
        kernels.label_pixels(
            *evidence(seen, seen.full),
            objects.motions,
            seen.rig,
            seen.sigma,
            settings.published,
            place_distances(seen, seen.full, objects.assigned, settings),
            seen.low.y,
            seen.full.row_cell,
            settings.spatial_sigma * seen.calibration.fy,
            settings.window,
            labels,
            shares,
        )
    return labels, shares


def moving_objects(
    seen: Observation, objects: Objects, labels: UInt8[np.ndarray, "h w"], settings: Sf2se3Settings
) -> list[int]:
    """The labels that are taken for moving objects: neither background (0), nor implausible, nor static.

    Implausible: turns too fast against the background. Static: moves its pixels no further from where the background's
    motion would than the noise. The published code has only the first test (defect S21).
    """
    if not len(objects):
        return []
    angles = turns(objects.motions)
    labels_left = [k for k in range(1, len(objects)) if angles[k] < settings.max_rotation]
    if settings.published:
        return labels_left
    difference = np.empty(labels.shape, np.float32)
    kernels.motion_difference(seen.full.points, labels, objects.motions, seen.rig, seen.sigma, difference)
    medians = {k: np.median(mine) for k in labels_left if len(mine := difference[labels == k])}
    return [k for k, median in medians.items() if median >= settings.static_sigma]


def turns(motions: Float64[np.ndarray, "n 4 4"]) -> Float64[np.ndarray, "n"]:
    """Angle by which each motion turns against the first [rad]."""
    return se3.rotation_angle(np.broadcast_to(motions[:1], motions.shape), motions)


def separate(
    labels: UInt8[np.ndarray, "h w"],
    shares: Float32[np.ndarray, "h w"],
    motions: Float64[np.ndarray, "k 4 4"],
    kept: list[int],
    smallest: int,
) -> RunMasks:
    """The connected parts (8 neighbours) of the kept labels with at least `smallest` pixels; the score of a part is
    the mean share of its pixels."""
    ids = np.zeros(labels.shape, np.int32)
    owners, scores = [], []
    for label in kept:
        for window, part in components(labels == label, smallest):
            owners.append(label)
            scores.append(shares[window][part].mean(dtype=np.float64))
            ids[window][part] = len(owners)
    return RunMasks(ids, np.array(scores, np.float32), motions[owners].reshape(-1, 4, 4))


Window = tuple[slice, slice]
"""Rows and columns of a part of the image."""


def components(mask: Bool[np.ndarray, "h w"], smallest: int) -> list[tuple[Window, Bool[np.ndarray, "a b"]]]:
    """The connected parts (8 neighbours) of a mask with at least `smallest` pixels, each in its bounding box."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    found = []
    for part in 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= smallest):
        x, y, width, height = (int(value) for value in stats[part, : cv2.CC_STAT_AREA])
        window = slice(y, y + height), slice(x, x + width)
        found.append((window, np.asarray(parts[window] == part)))
    return found
