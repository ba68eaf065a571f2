"""Normalised cuts of a graph of cells: which cells of a grid of features are an object (CutLER, section 3.2)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

WEAK = 1e-5
"""Weight of an edge between cells that are not alike (CutLER, section 3.2); between alike ones it is 1."""

SMALLEST = 0.01
"""A further object of this share of the cells, or a smaller one, ends the search (CutLER's code)."""

MOST_CORNERS = 2
"""What holds more of the image's four corners is no object, but what is around it (CutLER, section 3.2: where one side
holds less than two of them, it is the object)."""

FEW = 64
"""Up to so many cells all eigenvectors are computed, which Lanczos' method is not made for."""


def find_objects(
    features: Float32[np.ndarray, "c rows columns"], tau: float, count: int
) -> list[Bool[np.ndarray, "rows columns"]]:
    """At most `count` objects, none overlapping another: the most conspicuous first, each looked for among the cells
    that those before it have left.

    tau: cells are alike where the cosine of their features is above this. Scaling a cell's features, or giving
    all channels another order, changes nothing. Where all cells are alike there is no object.
    """
    rows, columns = features.shape[1:]
    alike = similar(features.reshape(len(features), -1).T, tau)
    free = np.ones(rows * columns, bool)
    found: list[Bool[np.ndarray, "rows columns"]] = []
    while len(found) < count and free.any():
        graph = alike[np.ix_(free, free)]
        if graph.all():
            break
        values = np.zeros(rows * columns)
        values[free] = second_vector(graph)
        mask = foreground(values.reshape(rows, columns), free.reshape(rows, columns))
        if found and mask.mean() <= SMALLEST:
            break
        found.append(mask)
        free &= ~mask.ravel()
    return found


def similar(features: Float32[np.ndarray, "n c"], tau: float) -> Bool[np.ndarray, "n n"]:
    """Where the cosine of two cells' features is above `tau`; a cell without features is like no other."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, length, out=np.zeros_like(features), where=length > 0)
    alike: Bool[np.ndarray, "n n"] = unit @ unit.T > tau
    np.fill_diagonal(alike, True)
    return alike


def second_vector(alike: Bool[np.ndarray, "n n"]) -> Float64[np.ndarray, "n"]:
    """x of (D - W) x = l D x for the second smallest l, its largest value positive; W is 1 where alike, else `WEAK`.

    With z = sqrt(D) x it is an eigenvector of D^-1/2 W D^-1/2, whose largest is known: sqrt(D) itself. That one is
    turned into the smallest, and Lanczos' method finds the largest of the others in a few dozen products with W, which
    is sparse but for a constant.
    """
    count = len(alike)
    graph = csr_array(alike, dtype=np.float64)
    root: Float64[np.ndarray, "n"] = np.sqrt(WEAK * count + (1 - WEAK) * np.asarray(graph.sum(axis=1)))
    first = root / np.linalg.norm(root)

    def product(z: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        x = z / root
        weighted: Float64[np.ndarray, "n"] = (WEAK * x.sum() + (1 - WEAK) * (graph @ x)) / root
        turned: Float64[np.ndarray, "n"] = weighted - 2 * first * (first @ z)
        return turned

    if count <= FEW:
        z = np.linalg.eigh(np.stack([product(column) for column in np.eye(count)]))[1][:, -1]
    else:
        start = np.random.default_rng(0).standard_normal(count)  # the same each time; any will do
        operator = LinearOperator((count, count), matvec=product, dtype=np.float64)
        z = eigsh(operator, k=1, which="LA", v0=start)[1][:, 0]
    x = z / root
    positive: Float64[np.ndarray, "n"] = x * np.sign(x[np.abs(x).argmax()])
    return positive


def foreground(
    values: Float64[np.ndarray, "rows columns"], free: Bool[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """The object in an eigenvector: of the two sides of its mean the one with the largest absolute value, unless it
    holds more than `MOST_CORNERS`; of that side the connected part around the most extreme value.

    values: the largest absolute one is positive; read where `free`.
    """
    side = (values > values[free].mean()) & free
    if side[[0, 0, -1, -1], [0, -1, 0, -1]].sum() > MOST_CORNERS:
        side = free & ~side
        values = -values
    seed = int(np.where(side, values, -np.inf).argmax())
    parts = cv2.connectedComponents(side.astype(np.uint8), connectivity=4)[1]
    mask: Bool[np.ndarray, "rows columns"] = parts == parts.ravel()[seed]
    return mask
