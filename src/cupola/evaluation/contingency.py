"""What one image leaves behind of its prediction and its truth: how many pixels each pair of segments shares.

Every score and every matching of classes is computed from these small tables (spec-network 5.1); the maps themselves
are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from cupola.types import VOID


@dataclass(frozen=True)
class Contingency:
    """Pairs of segments of one image that share pixels.

    predicted, true: (class, instance) of the k pairs, negative classes as (`VOID`, 0); areas: pixels of each pair;
    crowd: pairs whose true segment is a crowd, a region of several objects; scores: of the predicted segment of each
    pair, 1 where none was given.
    """

    predicted: Int64[np.ndarray, "k 2"]
    true: Int64[np.ndarray, "k 2"]
    areas: Int64[np.ndarray, "k"]
    crowd: Bool[np.ndarray, "k"]
    scores: Float64[np.ndarray, "k"]


def contingency(
    prediction: Integer[np.ndarray, "h w 2"],
    target: Integer[np.ndarray, "h w 2"],
    crowds: Iterable[tuple[int, int]] = (),
    scores: Mapping[int, float] | None = None,
) -> Contingency:
    """Counts an image. prediction, target: (class, instance) of each pixel, instances not negative; a negative class is
    void. crowds: (class, instance) of true segments that stand for several objects; scores: of predicted instances.

    Maps consist of runs of equal pixels along a row, so only the runs are sorted: a few milliseconds for 1024 x 2048.
    """
    packed_prediction, packed_target = _pack(prediction), _pack(target)
    if packed_prediction.size == 0:
        empty = np.zeros((0, 2), np.int64)
        return Contingency(empty, empty, np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0))
    changes = (packed_prediction[1:] != packed_prediction[:-1]) | (packed_target[1:] != packed_target[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=packed_prediction.size)
    predicted, predicted_index = np.unique(packed_prediction[starts], return_inverse=True)
    true, true_index = np.unique(packed_target[starts], return_inverse=True)
    pairs, pair_index = np.unique(predicted_index * len(true) + true_index, return_inverse=True)
    areas = np.bincount(pair_index, lengths, len(pairs)).astype(np.int64)
    true_pairs = _unpack(true[pairs % len(true)])
    crowd = np.zeros(len(pairs), bool)
    for segment in crowds:
        crowd |= (true_pairs == segment).all(1)
    guessed = _unpack(predicted[pairs // len(true)])
    known = scores or {}
    score = np.array([known.get(instance, 1.0) for instance in guessed[:, 1].tolist()], np.float64)
    return Contingency(guessed, true_pairs, areas, crowd, score)


def _pack(segments: Integer[np.ndarray, "h w 2"]) -> Int64[np.ndarray, "n"]:
    classes, instances = segments[..., 0].ravel().astype(np.int64), segments[..., 1].ravel().astype(np.int64)
    void = classes < 0
    return np.where(void, np.int64(VOID) << 32, classes << 32 | np.where(void, 0, instances))


def _unpack(packed: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n 2"]:
    return np.stack([packed >> 32, packed & 0xFFFFFFFF], -1)


def without_small_things(table: Contingency, is_thing: Bool[np.ndarray, "c"], min_area: int) -> Contingency:
    """True things of fewer than `min_area` pixels become void: too small to ask for."""
    if min_area <= 1 or not len(table.areas):
        return table
    segments, index = np.unique(table.true, axis=0, return_inverse=True)
    index = index.reshape(-1)
    area = np.bincount(index, table.areas, len(segments))
    small = (area < min_area) & (segments[:, 1] > 0) & thing_classes(segments[:, 0], is_thing)
    true = np.where(small[index][:, None], np.array([VOID, 0]), table.true)
    return replace(table, true=true, crowd=table.crowd & ~small[index])


def thing_classes(classes: Int64[np.ndarray, "n"], is_thing: Bool[np.ndarray, "c"]) -> Bool[np.ndarray, "n"]:
    """Whether each class is a thing; classes outside 0..c-1 are not."""
    inside = (classes >= 0) & (classes < len(is_thing))
    return np.asarray(inside & np.append(is_thing, False)[np.where(inside, classes, len(is_thing))])


def segments_of(
    segments: Int64[np.ndarray, "k 2"], is_thing: Bool[np.ndarray, "c"], assignment: Int64[np.ndarray, "p"] | None
) -> Int64[np.ndarray, "k 2"]:
    """(class, instance) as they are scored: classes through `assignment` (None: as they are), classes outside 0..c-1
    void, and one segment a stuff class."""
    classes = segments[:, 0]
    if assignment is not None:
        inside = (classes >= 0) & (classes < len(assignment))
        classes = np.append(assignment, VOID)[np.where(inside, classes, len(assignment))]
    known = (classes >= 0) & (classes < len(is_thing))
    instances = np.where(thing_classes(classes, is_thing), segments[:, 1], 0)
    return np.stack([np.where(known, classes, VOID), instances], -1)
