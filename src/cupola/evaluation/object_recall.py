"""Which true objects were found at all, whatever the class (findings-demo): the question that PQ does not answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from cupola.evaluation.contingency import Contingency, thing_classes
from cupola.evaluation.panoptic_quality import MAX_VOID_SHARE

FOUND_IOU = 0.5
"""A true object is found when a predicted one covers it with a larger IoU."""

SMALL = 2
"""An object is small up to this many times the least area that is asked for (findings-demo: 100 to 200 px)."""


@dataclass(frozen=True)
class Recall:
    """found of `total` true objects."""

    found: int
    total: int

    @property
    def share(self) -> float:
        """found / total, NaN where there is nothing to find."""
        return self.found / self.total if self.total else float("nan")


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of thing classes over all images, class aside. things: all true ones of at least the asked area; moving,
    standing: those that the truth calls so, None where it does not say; small: the standing ones of less than `SMALL`
    times the asked area; predicted: how many objects were predicted, false_objects: how many of them are no true object
    (of any size)."""

    things: Recall
    moving: Recall | None
    standing: Recall | None
    small: Recall | None
    predicted: int
    false_objects: int


def count_objects(
    images: Iterable[tuple[Contingency, frozenset[int] | None]],
    is_thing: Bool[np.ndarray, "c"],
    pseudo_is_thing: Bool[np.ndarray, "p"],
    min_area: int,
) -> ObjectCounts:
    """Counts found and false objects. images: the table of each and the true instances that move (None: unknown);
    is_thing: of true, pseudo_is_thing: of predicted classes; min_area: smaller true objects are not asked for [px].

    An object is a segment of a thing class with an instance id above 0; true crowds are none. Pixels of no true class
    are void: they are taken out of the union of an IoU. As for PQ, a predicted object that is void or crowd to more
    than `MAX_VOID_SHARE` is not called false.
    """
    totals = np.zeros((4, 2), np.int64)
    predicted = false = 0
    known = False
    for image, moving in images:
        true, ious, extra = _objects(image, is_thing, pseudo_is_thing)
        predicted += extra.size
        false += int(extra.sum())
        large = true[:, 2] >= min_area
        found = large & (ious > FOUND_IOU)
        moves = np.isin(true[:, 1], list(moving or ()))
        chosen = [np.ones(len(true), bool), moves, ~moves, ~moves & (true[:, 2] < SMALL * min_area)]
        for kind in range(1 if moving is None else 4):
            totals[kind] += (found & chosen[kind]).sum(), (large & chosen[kind]).sum()
        known |= moving is not None
    things, moving_ones, standing, small = (Recall(int(found), int(total)) for found, total in totals)
    if not known:
        return ObjectCounts(things, None, None, None, predicted, false)
    return ObjectCounts(things, moving_ones, standing, small, predicted, false)


def _objects(
    image: Contingency, is_thing: Bool[np.ndarray, "c"], pseudo_is_thing: Bool[np.ndarray, "p"]
) -> tuple[Int64[np.ndarray, "t 3"], np.ndarray, Bool[np.ndarray, "n"]]:
    """True objects (class, instance, area) with the best IoU of any predicted one, and whether each predicted object is
    false."""
    areas = image.areas
    true, true_index = np.unique(image.true, axis=0, return_inverse=True)
    guess, guess_index = np.unique(image.predicted, axis=0, return_inverse=True)
    true_index, guess_index = true_index.reshape(-1), guess_index.reshape(-1)
    void = ~((image.true[:, 0] >= 0) & (image.true[:, 0] < len(is_thing)))
    true_area = np.bincount(true_index, areas, len(true))
    guess_area = np.bincount(guess_index, areas, len(guess))
    guess_void = np.bincount(guess_index, np.where(void, areas, 0), len(guess))
    guess_excused = np.bincount(guess_index, np.where(void | image.crowd, areas, 0), len(guess))
    crowd = np.zeros(len(true), bool)
    crowd[true_index[image.crowd]] = True

    true_object = thing_classes(true[:, 0], is_thing) & (true[:, 1] > 0) & ~crowd
    guess_object = thing_classes(guess[:, 0], pseudo_is_thing) & (guess[:, 1] > 0)
    union = guess_area[guess_index] + true_area[true_index] - areas - guess_void[guess_index]
    iou = np.where(true_object[true_index] & guess_object[guess_index], areas / np.maximum(union, 1), 0)
    best_of_true, best_of_guess = np.zeros(len(true)), np.zeros(len(guess))
    np.maximum.at(best_of_true, true_index, iou)
    np.maximum.at(best_of_guess, guess_index, iou)
    false = (best_of_guess <= FOUND_IOU) & (guess_excused <= MAX_VOID_SHARE * guess_area)
    described = np.concatenate([true, true_area.astype(np.int64)[:, None]], 1)
    return described[true_object], best_of_true[true_object], false[guess_object]
