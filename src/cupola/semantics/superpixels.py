"""Superpixels: small regions of like colour and height (findings-features, recipe 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from cupola.semantics import kernels

STEP = 18.0
"""Distance of the seeds [px at the reference height] (recipe 4)."""

SMALLEST_STEP = 4.0
"""Seeds are not closer than this [px]."""

COMPACTNESS = 8.0
"""Feature distance that weighs as much as one step in the image (recipe 4)."""

ITERATIONS = 4
"""Assignments (recipe 4)."""


@dataclass(frozen=True)
class Superpixels:
    """Regions of one image. labels: region of each pixel, 0..count-1; some regions may be empty."""

    labels: Int32[np.ndarray, "h w"]
    count: int

    def neighbours(self) -> Int64[np.ndarray, "m 2"]:
        """Pairs (i < j) of regions that touch, each once, in ascending order."""
        labels = self.labels.astype(np.int64)
        codes = []
        for first, second in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
            differ = first != second
            one, two = first[differ], second[differ]
            codes.append(np.minimum(one, two) * self.count + np.maximum(one, two))
        pairs = np.unique(np.concatenate(codes))
        return np.stack([pairs // self.count, pairs % self.count], 1)

    def means(
        self, channels: Float32[np.ndarray, "c h w"], use: Bool[np.ndarray, "h w"]
    ) -> tuple[Float64[np.ndarray, "n c"], Int64[np.ndarray, "n"]]:
        """Mean of each channel over the pixels of each region with `use` (zero where it has none), and their number."""
        sums, pixels = kernels.segment_sums(channels, self.labels, use, self.count)
        return np.ascontiguousarray((sums / np.maximum(pixels, 1)).T), pixels


def slic(features: Float32[np.ndarray, "4 h w"], scale: float) -> Superpixels:
    """SLIC over four channels, seeds on a grid of 18 px x `scale`, one thread, no random draw.

    A pixel chooses among the seeds of the 3 x 3 grid cells around it, so a region stays near its cell; regions are not
    forced to be connected, which averages over regions do not need.
    """
    height, width = features.shape[1:]
    step = max(STEP * scale, SMALLEST_STEP)
    grid_rows, grid_columns = max(1, round(height / step)), max(1, round(width / step))
    tops = np.arange(grid_rows + 1) * height // grid_rows
    lefts = np.arange(grid_columns + 1) * width // grid_columns
    y, x = (tops[:-1] + tops[1:]) // 2, (lefts[:-1] + lefts[1:]) // 2
    rows, columns = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
    centres = np.column_stack([features[:, rows, columns].T, rows, columns]).astype(np.float32)
    weight = np.float32((COMPACTNESS / step) ** 2)
    labels = np.zeros((height, width), np.int32)
    for iteration in range(ITERATIONS):
        if iteration:
            kernels.move_centres(features, labels, centres)
        kernels.assign_superpixels(features, centres, tops, lefts, weight, labels)
    return Superpixels(labels, grid_rows * grid_columns)
