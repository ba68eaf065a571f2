"""Motions drawn at random: small clusters of cells that seem to move as one body (spec-stage1 4.5)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from cupola.geometry import se3
from cupola.motion.sf2se3 import kernels
from cupola.motion.sf2se3.observation import Level
from cupola.motion.sf2se3.settings import Sf2se3Settings

MIN_CLUSTER, MIN_CLUSTER_PUBLISHED = 3, 2
"""Fewest cells of a cluster; the published two leave a rotation open (defect S19)."""


def propose(
    low: Level, explained: Bool[np.ndarray, "h w"], settings: Sf2se3Settings, rng: np.random.Generator
) -> Float64[np.ndarray, "n 4 4"]:
    """Motions of clusters drawn from the reliable cells that no accepted object explains; maybe none."""
    points, points_next = (
        np.ascontiguousarray(field.reshape(3, -1).T, dtype=np.float64) for field in (low.points, low.points_next)
    )
    free = (low.reliable & ~explained).ravel()
    members = draw_clusters(points, points_next, free, settings, rng)
    weights = (members >= 0).astype(np.float64)
    before, after = points[members], points_next[members]
    if settings.published:
        usable = weights.sum(1) >= MIN_CLUSTER_PUBLISHED
    else:
        usable = (weights.sum(1) >= MIN_CLUSTER) & se3.determines_rotation(before, weights)
    return se3.fit_motions(before[usable], after[usable], weights[usable])


def draw_clusters(
    points: Float64[np.ndarray, "c 3"],
    points_next: Float64[np.ndarray, "c 3"],
    free: Bool[np.ndarray, "c"],
    settings: Sf2se3Settings,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "n k"]:
    """Cells of each cluster, -1 = none: a seed, then cells that may join, each drawn evenly.

    Seeds have enough free cells to grow with. The published code blocks only the cells that join, so that a seed may be
    unreliable or explained already (defect S17), and exchanges how far and how rigid (S18).
    """
    least = MIN_CLUSTER_PUBLISHED if settings.published else MIN_CLUSTER
    candidates = np.isfinite(points).all(1) if settings.published else free
    reach, tolerance = settings.neighbourhood, settings.rigidity
    seeds = np.flatnonzero(kernels.can_seed(points, points_next, candidates, free, least, reach, tolerance))
    members = np.full((settings.clusters if len(seeds) else 0, settings.cluster_size), -1)
    chosen = seeds[rng.integers(len(seeds), size=len(members))] if len(seeds) else seeds
    uniforms = rng.random((len(members), settings.cluster_size - 1))
    kernels.grow_clusters(points, points_next, free, chosen, uniforms, reach, tolerance, settings.published, members)
    return members
