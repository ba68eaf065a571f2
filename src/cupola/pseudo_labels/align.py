"""One class per mask (spec-stage1 6.1): motion says where an object ends, semantics what it is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int16, Int32, Int64

from cupola.types import VOID


def classes_of_masks(
    semantic: Int16[np.ndarray, "h w"], instances: Int32[np.ndarray, "h w"]
) -> tuple[Int32[np.ndarray, "n"], Int16[np.ndarray, "n"]]:
    """Ids of the masks, ascending, and the most frequent class inside each; ties go to the smallest class.

    semantic: class of each pixel; `VOID` pixels have no vote, and a mask of such pixels alone is `VOID`.
    instances: 0 = none, else the id of a mask; ids may have gaps.
    """
    ids, votes = count_votes(semantic, instances)
    return ids, winners(votes)


def winners(votes: Int64[np.ndarray, "n k"]) -> Int16[np.ndarray, "n"]:
    """The class with most votes, the smallest of equals; `VOID` without any vote."""
    first = votes.argmax(1) if votes.shape[1] else np.zeros(len(votes), np.int64)
    return np.where(votes.sum(1) > 0, first, VOID).astype(np.int16)


def count_votes(
    semantic: Int16[np.ndarray, "h w"], instances: Int32[np.ndarray, "h w"]
) -> tuple[Int32[np.ndarray, "n"], Int64[np.ndarray, "n k"]]:
    """Ids of the masks and how many pixels of each class lie in each mask."""
    inside = instances > 0
    ids, index = np.unique(instances[inside], return_inverse=True)
    classes = semantic[inside].astype(np.int64)
    count = int(classes.max(initial=VOID)) + 1
    known = classes != VOID
    flat = index[known] * count + classes[known]
    return ids, np.bincount(flat, minlength=len(ids) * count).reshape(len(ids), count)


def align(semantic: Int16[np.ndarray, "h w"], instances: Int32[np.ndarray, "h w"]) -> Int16[np.ndarray, "h w"]:
    """All pixels of a mask get the mask's class; the others keep theirs. Class 0 is a class like any other."""
    ids, classes = classes_of_masks(semantic, instances)
    return spread(semantic, instances, ids, classes)


def spread(
    background: Int16[np.ndarray, "h w"],
    instances: Int32[np.ndarray, "h w"],
    ids: Int32[np.ndarray, "n"],
    values: Int16[np.ndarray, "n"],
) -> Int16[np.ndarray, "h w"]:
    """`values` of the masks on their pixels, `background` elsewhere. ids: ascending, all that occur."""
    if not len(ids):
        return background.copy()
    table = np.zeros(int(ids[-1]) + 1, np.int16)
    table[ids] = values
    return np.where(instances > 0, table[np.maximum(instances, 0)], background)
