"""Which true class each pseudo class stands for (spec-network 5.2)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, Integer
from scipy.optimize import linear_sum_assignment

from cupola.types import VOID


def match_classes(
    confusion: Integer[np.ndarray, "p c"],
    pseudo_is_thing: Bool[np.ndarray, "p"] | None = None,
    true_is_thing: Bool[np.ndarray, "c"] | None = None,
    *,
    one_to_one: bool = False,
    drop_absent: bool = False,
    minimum_iou: float = 0.0,
) -> Int64[np.ndarray, "p"]:
    """The class of each pseudo class: Hungarian for the largest overlap, then every pseudo class that is left takes the
    class it overlaps most (ties: the lowest).

    confusion: pixels by pseudo class and true class, both known. With `pseudo_is_thing` and `true_is_thing` things and
    stuff are matched apart, as for PQ; without, all together, as for mIoU. The options:

    one_to_one: pseudo classes left over by the Hungarian step get `VOID`.
    drop_absent: true classes without a pixel take no part. The published matching lets them take a pseudo class each,
        whose pixels then are all wrong (defect N33).
    minimum_iou: a Hungarian pair counts only if the two classes overlap with a larger IoU. The Hungarian step gives
        every class a partner, however bad: a large pseudo class of building can end as "pole" (the "matching trap" of
        findings-demo).

    A pseudo class of a kind (thing or stuff) of which there is no true class gets `VOID`. With the defaults a pseudo
    class that never occurs gets some class, which means nothing; with `drop_absent` it gets `VOID`.
    """
    confusion = confusion.astype(np.int64)
    if (pseudo_is_thing is None) != (true_is_thing is None):
        raise ValueError("give both pseudo_is_thing and true_is_thing, or neither")
    accepted = _iou(confusion) > minimum_iou if minimum_iou > 0 else np.ones(confusion.shape, bool)
    present = confusion.any(0) if drop_absent else np.ones(confusion.shape[1], bool)
    assignment = np.full(len(confusion), VOID, np.int64)
    if pseudo_is_thing is None or true_is_thing is None:
        kinds = [(np.ones(len(confusion), bool), present)]
    else:
        kinds = [(pseudo_is_thing, present & true_is_thing), (~pseudo_is_thing, present & ~true_is_thing)]
    for pseudo, true in kinds:
        rows, columns = np.flatnonzero(pseudo), np.flatnonzero(true)
        if len(rows) and len(columns):
            part = np.ix_(rows, columns)
            matched = _match(confusion[part], accepted[part], one_to_one)
            assignment[rows] = np.where(matched == VOID, VOID, columns[matched])
    if drop_absent:
        assignment[~confusion.any(1)] = VOID
    return assignment


def _match(
    confusion: Int64[np.ndarray, "p c"], accepted: Bool[np.ndarray, "p c"], one_to_one: bool
) -> Int64[np.ndarray, "p"]:
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    kept = accepted[rows, columns]
    matched = np.full(len(confusion), VOID, np.int64) if one_to_one else confusion.argmax(1).astype(np.int64)
    matched[rows[kept]] = columns[kept]
    return matched


def _iou(confusion: Int64[np.ndarray, "p c"]) -> np.ndarray:
    """Overlap of each pseudo class and class as a share of the pixels of either."""
    union = confusion.sum(1, keepdims=True) + confusion.sum(0, keepdims=True) - confusion
    return np.asarray(confusion / np.maximum(union, 1))
