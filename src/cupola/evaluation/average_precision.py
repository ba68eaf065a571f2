"""Mask AP of things as COCO defines it (spec-network 5.5), from the tables of segment pairs that PQ is made of.

Predicted objects are ranked by score over all images. Void and crowds in the truth are COCO's crowd regions: an object
that lies in one of them by the share that a match would need is neither right nor wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from cupola.evaluation.contingency import Contingency, thing_classes
from cupola.types import VOID

IOUS = np.linspace(0.5, 0.95, 10)
"""AP is the mean over these least IoUs of a match."""

RECALLS = np.linspace(0, 1, 101)
"""The precision is read off at these recalls."""

MAX_OBJECTS = 100
"""Objects of a class that count in an image, the best ones."""

AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
"""Smallest and largest area [px] of all, small, medium and large objects; those outside are neither right nor wrong."""

STUFF = -2
"""In place of a class: known, but no thing."""


@dataclass(frozen=True)
class AveragePrecision:
    """In [0, 1], means over the classes that have a true object (NaN where none has one). ap: over `IOUS`; ap50, ap75:
    at one IoU; small, medium, large: as `ap`, of objects of these sizes (`AREAS`); per_class: `ap` of each class, one
    entry where classes do not count; objects, predicted: how many there are."""

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    per_class: Float64[np.ndarray, "c"]
    objects: int
    predicted: int


def average_precision(
    images: Sequence[Contingency], is_thing: Bool[np.ndarray, "c"], assignment: Int64[np.ndarray, "p"] | None = None
) -> AveragePrecision:
    """AP of the thing classes. assignment: class of each predicted (pseudo) class, see `match_classes`; None:
    predictions hold true classes.

    An object is a segment of a thing class with an instance id above 0; true pixels of a thing class without one are a
    crowd. Objects of equal score are ranked in the order of the images.
    """
    classes = np.arange(len(is_thing))
    assigned = classes if assignment is None else assignment
    predicted = np.where(thing_classes(assigned, is_thing), assigned, STUFF)
    true = np.where(is_thing, classes, STUFF)
    return _summary([_objects(image, predicted, true) for image in images], len(classes))


def agnostic_average_precision(
    images: Sequence[Contingency], is_thing: Bool[np.ndarray, "c"], pseudo_is_thing: Bool[np.ndarray, "p"]
) -> AveragePrecision:
    """As `average_precision`, of things of whatever class (the paper's table 4), which asks for no matching of classes.
    pseudo_is_thing: of the predicted classes."""
    predicted, true = np.where(pseudo_is_thing, 0, STUFF), np.where(is_thing, 0, STUFF)
    return _summary([_objects(image, predicted, true) for image in images], 1)


@dataclass(frozen=True)
class _Objects:
    """The objects of an image. classes, areas [px], scores: of the predicted ones, best first; true_classes,
    true_areas; hits: IoU of each predicted object with the true one that it is matched to where the true ones of each
    of `AREAS` are asked for; excused: what it has with anything that is not asked for: the largest share of it in a
    crowd or in void, or the IoU with an object out of the range."""

    classes: Int64[np.ndarray, "n"]
    areas: Int64[np.ndarray, "n"]
    scores: Float64[np.ndarray, "n"]
    hits: Float64[np.ndarray, "a n"]
    excused: Float64[np.ndarray, "a n"]
    true_classes: Int64[np.ndarray, "t"]
    true_areas: Int64[np.ndarray, "t"]


def _objects(image: Contingency, of_predicted: Int64[np.ndarray, "p"], of_true: Int64[np.ndarray, "q"]) -> _Objects:
    """of_predicted, of_true: what each class counts as: a class, or not as a thing."""
    guess, first, g = np.unique(image.predicted, axis=0, return_index=True, return_inverse=True)
    true, t = np.unique(image.true, axis=0, return_inverse=True)
    g, t = g.reshape(-1), t.reshape(-1)
    guess_area, true_area = (
        np.bincount(index, image.areas, len(segments)).astype(np.int64) for index, segments in ((g, guess), (t, true))
    )
    guess_class, true_class = _looked_up(guess[:, 0], of_predicted), _looked_up(true[:, 0], of_true)
    crowd = (true_class >= 0) & (true[:, 1] == 0)
    crowd[t[image.crowd]] = True
    is_object = (true_class >= 0) & ~crowd

    chosen = _best((guess_class >= 0) & (guess[:, 1] > 0), guess_class, image.scores[first])
    rank = np.full(len(guess), -1)
    rank[chosen] = np.arange(len(chosen))
    same = (rank[g] >= 0) & (guess_class[g] == true_class[t])
    unasked = np.bincount(g, np.where(true_class[t] == VOID, image.areas, 0), len(guess))
    np.maximum.at(unasked, g, np.where(same & crowd[t], image.areas, 0))
    in_crowd = (unasked / guess_area)[chosen]
    iou = image.areas / (guess_area[g] + true_area[t] - image.areas)
    pairs = np.flatnonzero(same & is_object[t] & (iou >= IOUS[0]))
    place = np.cumsum(is_object) - 1  # of each true segment among the objects
    matched = [
        _matched(rank[g[pairs]], place[t[pairs]], iou[pairs], _outside(true_area[is_object], *area), in_crowd)
        for area in AREAS
    ]
    return _Objects(
        guess_class[chosen],
        guess_area[chosen],
        image.scores[first][chosen],
        np.stack([hits for hits, _ in matched]),
        np.stack([excused for _, excused in matched]),
        true_class[is_object],
        true_area[is_object],
    )


def _looked_up(classes: Int64[np.ndarray, "n"], table: Int64[np.ndarray, "c"]) -> Int64[np.ndarray, "n"]:
    """Entries of the table, `VOID` for classes that it lacks."""
    inside = (classes >= 0) & (classes < len(table))
    return np.asarray(np.append(table, VOID)[np.where(inside, classes, len(table))])


def _outside(areas: Int64[np.ndarray, "n"], least: float, most: float) -> Bool[np.ndarray, "n"]:
    return np.asarray((areas < least) | (areas > most))


def _best(
    candidates: Bool[np.ndarray, "n"], classes: Int64[np.ndarray, "n"], scores: Float64[np.ndarray, "n"]
) -> Int64[np.ndarray, "k"]:
    """Candidates by descending score, of each class at most `MAX_OBJECTS`."""
    order = np.argsort(-scores, kind="stable")
    order = order[candidates[order]]
    kept = np.zeros(len(order), bool)
    for c in np.unique(classes[order]):
        kept[np.flatnonzero(classes[order] == c)[:MAX_OBJECTS]] = True
    return np.asarray(order[kept])


def _matched(
    guess: Int64[np.ndarray, "k"],
    true: Int64[np.ndarray, "k"],
    iou: Float64[np.ndarray, "k"],
    outside: Bool[np.ndarray, "t"],
    in_crowd: Float64[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """`hits` and `excused` of the n predicted objects. guess, true, iou: pairs that could match; outside: true objects
    that are not asked for.

    Neither predictions nor truth overlap, so an IoU above 1/2 pairs two objects whatever others there are, and one
    matching serves every threshold. Only at exactly 1/2 is there a choice: COCO lets the better score choose first, an
    object that is asked for, of the largest IoU, the last of equals.
    """
    hits, excused = np.zeros(len(in_crowd)), in_crowd.copy()
    options: dict[int, list[tuple[bool, float, int]]] = defaultdict(list)
    for g, t, overlap in zip(guess.tolist(), true.tolist(), iou.tolist(), strict=True):
        options[g].append((not outside[t], overlap, t))
    taken: set[int] = set()
    for g in sorted(options):
        free = [option for option in options[g] if option[2] not in taken]
        if free:
            asked, overlap, t = max(free)
            taken.add(t)
            if asked:
                hits[g] = overlap
            else:
                excused[g] = max(excused[g], overlap)
    return hits, excused


def _summary(images: Sequence[_Objects], classes: int) -> AveragePrecision:
    """Of all images. classes: objects are of 0..classes-1."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(image, name) for image in images], -1)

    if not images:
        nothing = float("nan")
        return AveragePrecision(nothing, nothing, nothing, nothing, nothing, nothing, np.full(classes, np.nan), 0, 0)
    order = np.argsort(-joined("scores"), kind="stable")
    of_class, areas = joined("classes")[order], joined("areas")[order]
    hits, excused = joined("hits")[:, order], joined("excused")[:, order]
    true_classes, true_areas = joined("true_classes"), joined("true_areas")
    found = np.full((len(AREAS), classes, len(IOUS)), np.nan)
    for a, area in enumerate(AREAS):
        asked = np.bincount(true_classes[~_outside(true_areas, *area)], minlength=classes)
        for c in np.flatnonzero(asked):
            own = of_class == c
            outside = _outside(areas[own], *area)
            found[a, c] = _precision(hits[a, own], excused[a, own], outside, int(asked[c]))

    def mean(values: np.ndarray) -> float:
        return float("nan") if np.isnan(values).all() else float(np.nanmean(values))

    small, medium, large = (mean(values) for values in found[1:])
    ap, ap50, ap75 = mean(found[0]), mean(found[0, :, 0]), mean(found[0, :, 5])
    return AveragePrecision(ap, ap50, ap75, small, medium, large, found[0].mean(1), len(true_classes), len(order))


def _precision(
    hits: Float64[np.ndarray, "n"], excused: Float64[np.ndarray, "n"], outside: Bool[np.ndarray, "n"], objects: int
) -> Float64[np.ndarray, "i"]:
    """AP at each of `IOUS`: the mean over `RECALLS` of the best precision that is had at that recall or a higher one.
    hits, excused, outside (of the range of areas): of predicted objects, best score first; objects: true ones."""
    right = hits >= IOUS[:, None]
    wrong = ~right & ~outside & (excused < IOUS[:, None])
    true_positives, false_positives = right.cumsum(1), wrong.cumsum(1)
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(IOUS), 1))], 1)  # recalls that are never reached
    recall = true_positives / objects
    return np.array([one[np.searchsorted(at, RECALLS)].mean() for one, at in zip(best, recall, strict=True)])
