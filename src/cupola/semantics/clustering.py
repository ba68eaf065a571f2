"""From feature vectors to pseudo classes: many small clusters, merged (findings-features, recipe 6 and 7)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from scipy.cluster.hierarchy import linkage

from cupola.semantics import kernels

ROUNDS = 15
"""Rounds of k-means (recipe 6)."""

BLOCK = 2048
"""Points whose distances to all centres are held at once: as much as a core's cache holds."""


def nearest_centre(points: Float64[np.ndarray, "n c"], centres: Float64[np.ndarray, "k c"]) -> Int64[np.ndarray, "n"]:
    """Number of the centre nearest to each point, the first of equals."""
    nearest = np.empty(len(points), np.int64)
    half_norm = 0.5 * (centres**2).sum(1)
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        nearest[block] = (half_norm - points[block] @ centres.T).argmin(1)
    return nearest


def _seeds(
    points: Float64[np.ndarray, "n c"], weights: Float64[np.ndarray, "n"], count: int, rng: np.random.Generator
) -> Float64[np.ndarray, "k c"]:
    """k-means++: each next centre drawn by weight x squared distance to the nearest so far."""
    chosen = [int(rng.choice(len(points), p=weights / weights.sum()))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        kernels.lower_to_distance(points, points[chosen[-1]], distance)
        mass = np.cumsum(weights * distance)
        if mass[-1] <= 0:
            break
        at = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
        chosen.append(min(at, len(points) - 1))
    return points[chosen].copy()


def weighted_kmeans(
    points: Float64[np.ndarray, "n c"], weights: Float64[np.ndarray, "n"], count: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "k c"], Float64[np.ndarray, "k"]]:
    """k-means with weighted points.

    Returns the centres, at most `count` (fewer where there are fewer distinct points), and the weight of each.
    """
    centres = _seeds(points, weights, count, rng)
    for _ in range(ROUNDS):
        nearest = nearest_centre(points, centres)
        mass = np.bincount(nearest, weights, len(centres))
        sums = np.stack([np.bincount(nearest, weights * column, len(centres)) for column in points.T], 1)
        centres = np.where(mass[:, None] > 0, sums / np.maximum(mass, 1e-12)[:, None], centres)
    nearest = nearest_centre(points, centres)
    mass = np.bincount(nearest, weights, len(centres))
    return centres[mass > 0], mass[mass > 0]


def _branches(tree: np.ndarray, leaves: int, count: int) -> Int64[np.ndarray, "k"]:
    """Branch 0..count-1 of every leaf when the tree is cut into `count` branches."""
    members = {leaf: [leaf] for leaf in range(leaves)}
    for step in range(leaves - count):
        one, two = int(tree[step, 0]), int(tree[step, 1])
        members[leaves + step] = members.pop(one) + members.pop(two)
    branches = np.empty(leaves, np.int64)
    for number, leaf_ids in enumerate(members.values()):
        branches[leaf_ids] = number
    return branches


def _cut(tree: np.ndarray, mass: np.ndarray, classes: int, share: float) -> int:
    """Number of branches of the first cut from the top at which `classes` branches hold `share` of the mass each; if
    there is none, of the first cut with most such branches."""
    leaves = len(mass)
    size = np.concatenate([mass, np.zeros(leaves - 1)])
    least = share * mass.sum()
    for step in range(leaves - 1):
        size[leaves + step] = size[int(tree[step, 0])] + size[int(tree[step, 1])]
    large, most, best = 1, 1, 1
    for step in range(leaves - 2, -1, -1):
        if most >= classes:
            break
        one, two = size[int(tree[step, 0])], size[int(tree[step, 1])]
        large += int(one >= least) + int(two >= least) - int(one + two >= least)
        if large > most:
            most, best = large, leaves - step
    return best


def merge_clusters(
    centres: Float64[np.ndarray, "k c"], mass: Float64[np.ndarray, "k"], wanted: int, share: float
) -> Int64[np.ndarray, "k"]:
    """Class of every small cluster: average linkage, cut where `wanted` branches hold `share` of the mass each.

    Smaller branches join the kept branch with the nearest centre. Classes are numbered by falling mass; there may be
    fewer than asked for.
    """
    if len(centres) < 2:
        return np.zeros(len(centres), np.int64)
    tree = linkage(centres, "average")
    count = _cut(tree, mass, wanted, share)
    branch = _branches(tree, len(centres), count)
    branch_mass = np.bincount(branch, mass, count)
    means = np.stack([np.bincount(branch, mass * column, count) for column in centres.T], 1) / branch_mass[:, None]
    kept = np.nonzero(branch_mass >= share * mass.sum())[0]
    if not len(kept):
        kept = np.array([int(branch_mass.argmax())])
    home = kept[nearest_centre(means, means[kept])]
    home[kept] = kept
    final_mass = np.bincount(home[branch], mass, count)
    order = np.argsort(-final_mass, kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    classes: Int64[np.ndarray, "k"] = rank[home[branch]]
    return classes
