"""Which images are looked at together: positives by likeness, negatives by chance, and the order of a run."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

BLOCK = 2048
"""Descriptors that are compared with all others at once: bounds the memory to 2048 x views x 4 bytes."""


def nearest_views(
    descriptors: Float32[np.ndarray, "n c"], source: Int64[np.ndarray, "n"], count: int
) -> Int64[np.ndarray, "n k"]:
    """The `count` views most like each view, best first, of equals the first; none from the view's own source.

    descriptors: of the views, compared by cosine; source: number of what a view was cut from. Views of one photo
    overlap, so the published neighbours are largely the photo itself (spec-stage1 5.5, defect S54). Raises `ValueError`
    where a view has fewer than `count` views of other sources.
    """
    _, own = np.unique(source, return_inverse=True)
    others = len(source) - np.bincount(own).max(initial=0)
    if others < count:
        raise ValueError(f"some view has only {others} views of other sources, but {count} are asked for")
    unit = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), np.float32(1e-12))
    found = np.empty((len(unit), count), np.int64)
    for start in range(0, len(unit), BLOCK):
        rows = slice(start, start + BLOCK)
        cosine = unit[rows] @ unit.T
        cosine[own[rows, None] == own[None, :]] = -np.inf
        found[rows] = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    return found


def derangement(size: int, rng: np.random.Generator) -> Int64[np.ndarray, "n"]:
    """A permutation that leaves nothing in its place, each of them equally likely. Raises `ValueError` for size 1.

    (The published code moves fixed points by one, which gives some numbers twice; spec-stage1 5.5.)
    """
    if size < 2:
        raise ValueError(f"no permutation of {size} elements moves them all")
    while True:  # one in e permutations is a derangement, whatever the size
        order = rng.permutation(size)
        if (order != np.arange(size)).all():
            return order


def views_of_step(views: int, size: int, step: int, seed: int) -> Int64[np.ndarray, "n"]:
    """Numbers of the `size` views of a step: one random order of all `views` after the other."""
    numbers = np.empty(size, np.int64)
    order, drawn = np.empty(0, np.int64), -1
    for index in range(size):
        epoch, place = divmod(step * size + index, views)
        if epoch != drawn:
            order, drawn = np.random.default_rng([seed, epoch]).permutation(views), epoch
        numbers[index] = order[place]
    return numbers
