"""Mask AP: what the definition promises, and the figures of COCO's own implementation on random maps."""

import contextlib
import io
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.evaluation import agnostic_average_precision, average_precision, contingency
from cupola.evaluation.average_precision import MAX_OBJECTS
from cupola.types import VOID

IS_THING = np.array([False, True, True, False])
STUFF, PERSON, CAR = 0, 1, 2
CROWDS = [(PERSON, 0), (CAR, 0)]
BLOCK = 32
"""Side of the squares that random maps are made of [px]: 1 is small and of medium size, 9 are of medium size and large,
as COCO's limits belong to both."""

seeds = st.integers(0, 2**32 - 1)


def random_map(rng):
    """5 x 6 squares of few segments, so that many overlap by half, among them exactly."""
    segments = np.array([(c, i) for c in range(VOID, 4) for i in range(3)], np.int32)
    segments[:, 1] = np.where(np.isin(segments[:, 0], (PERSON, CAR)) & (segments[:, 1] > 0), range(100, 115), 0)
    chosen = segments[rng.choice(len(segments), (5, 6), p=rng.dirichlet(np.ones(len(segments))))]
    for _ in range(rng.integers(4)):
        top, left = rng.integers(0, 5), rng.integers(0, 6)
        chosen[top : top + 3, left : left + 3] = segments[rng.integers(len(segments))]
    return np.repeat(np.repeat(chosen, BLOCK, 0), BLOCK, 1)


def random_frame(seed):
    """Prediction, target and scores; the prediction is right in places, and scores are sometimes equal."""
    rng = np.random.default_rng(seed)
    target, other = random_map(rng), random_map(rng)
    keep = np.repeat(np.repeat(rng.random((5, 6)) < rng.uniform(0, 1), BLOCK, 0), BLOCK, 1)
    prediction = np.where(keep[..., None], target, other)
    scores = {int(i): float(rng.integers(1, 5) / 4) for i in np.unique(prediction[..., 1])}
    return prediction, target, scores


def tables(frames):
    return [contingency(prediction, target, CROWDS, scores) for prediction, target, scores in frames]


def reference(frames, agnostic):
    """The figures of pycocotools; void is a crowd of every class."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools, an extra for tests, is not installed")
    from pycocotools import mask
    from pycocotools.cocoeval import COCOeval

    categories = [1] if agnostic else [PERSON, CAR]

    def encoded(chosen):
        return mask.encode(np.asfortranarray(chosen.astype(np.uint8)))

    def objects(image):
        for c, i in np.unique(image.reshape(-1, 2), axis=0).tolist():
            if c in (PERSON, CAR):
                yield (1 if agnostic else c), i, encoded((image == (c, i)).all(-1))

    truth, found = [], []
    for number, (prediction, target, scores) in enumerate(frames, 1):
        for c, i, rle in objects(target):
            truth.append({"image_id": number, "category_id": c, "segmentation": rle, "iscrowd": int(i == 0)})
        void = target[..., 0] == VOID
        if void.any():
            for c in categories:
                truth.append({"image_id": number, "category_id": c, "segmentation": encoded(void), "iscrowd": 1})
        for c, i, rle in objects(prediction):
            if i:
                found.append({"image_id": number, "category_id": c, "segmentation": rle, "score": scores[i]})
    for number, entry in enumerate(truth, 1):
        entry |= {"id": number, "area": float(mask.area(entry["segmentation"])), "bbox": [0, 0, 1, 1]}
    if not found or not any(not entry["iscrowd"] for entry in truth):
        return None
    content = {
        "info": {},
        "images": [{"id": number, "height": 5 * BLOCK, "width": 6 * BLOCK} for number in range(1, len(frames) + 1)],
        "annotations": truth,
        "categories": [{"id": c} for c in categories],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = coco.COCO()
        annotated.dataset = content
        annotated.createIndex()
        evaluator = COCOeval(annotated, annotated.loadRes(found), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.where(evaluator.stats[:6] < 0, np.nan, evaluator.stats[:6])


@given(st.lists(seeds, min_size=1, max_size=3), st.booleans())
@settings(deadline=None, max_examples=100)
def test_agrees_with_pycocotools(chosen, agnostic):
    frames = [random_frame(seed) for seed in chosen]
    expected = reference(frames, agnostic)
    if expected is None:
        return
    if agnostic:
        ours = agnostic_average_precision(tables(frames), IS_THING, IS_THING)
    else:
        ours = average_precision(tables(frames), IS_THING)
    np.testing.assert_allclose(astuple(ours)[:6], expected, atol=1e-12)


@given(st.lists(seeds, min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_the_truth_itself_is_perfect(chosen):
    targets = [random_map(np.random.default_rng(seed)) for seed in chosen]
    images = [contingency(target, target, CROWDS) for target in targets]
    for scores in (average_precision(images, IS_THING), agnostic_average_precision(images, IS_THING, IS_THING)):
        expected = 1 if scores.objects else np.nan
        np.testing.assert_equal(scores.ap, expected)
        np.testing.assert_equal(scores.ap75, expected)
        assert scores.objects == scores.predicted == sum(len(np.unique(t[t[..., 1] > 0], axis=0)) for t in targets)


@given(seeds)
@settings(deadline=None, max_examples=50)
def test_mapped_pseudo_classes_score_as_the_classes_they_stand_for(seed):
    frames = [random_frame(seed)]
    renamed = [(np.stack([3 - p[..., 0], p[..., 1]], -1), t, s) for p, t, s in frames]
    renamed[0][0][..., 0][frames[0][0][..., 0] == VOID] = VOID
    ours = average_precision(tables(renamed), IS_THING, np.array([3, CAR, PERSON, STUFF]))
    theirs = average_precision(tables(frames), IS_THING)
    # Equal scores are ranked by pseudo class within an image, which may go the other way; without them:
    if len({score for i, score in frames[0][2].items() if i}) == len([i for i in frames[0][2] if i]):
        np.testing.assert_equal(astuple(ours), astuple(theirs))


@given(seeds, st.floats(0.01, 0.24))
@settings(deadline=None, max_examples=50)
def test_a_false_object_costs_the_more_the_surer_it_is_and_nothing_below_all_others(seed, low):
    prediction, target, scores = random_frame(seed)
    added = prediction.copy()
    added[:BLOCK, :BLOCK] = (STUFF, 0)
    target = target.copy()
    target[:BLOCK, :BLOCK] = (STUFF, 0)
    before = average_precision(tables([(added.copy(), target, scores)]), IS_THING).ap
    added[:BLOCK, :BLOCK] = (CAR, 999)
    after = [
        average_precision(tables([(added, target, scores | {999: score})]), IS_THING).ap for score in (low, 0.6, 1.1)
    ]
    np.testing.assert_equal(after[0], before)
    assert np.isnan(before) or before >= after[1] >= after[2]


def bands(*segments):
    """20 x 20 px of stuff with (class, instance, first row, last row) bands."""
    image = np.zeros((20, 20, 2), np.int32)
    for c, instance, top, bottom in segments:
        image[top:bottom] = (c, instance)
    return image


def agnostic_ap50(prediction, target, scores=None):
    return agnostic_average_precision([contingency(prediction, target, CROWDS, scores)], IS_THING, IS_THING).ap50


def test_the_class_counts_only_where_it_is_asked_for():
    image = contingency(bands((CAR, 1, 0, 5)), bands((PERSON, 7, 0, 5)), CROWDS)
    assert average_precision([image], IS_THING).ap == 0
    assert np.isnan(average_precision([image], IS_THING).per_class[CAR])
    assert average_precision([image], IS_THING, np.array([STUFF, VOID, PERSON])).ap == 1
    assert agnostic_average_precision([image], IS_THING, IS_THING).ap == 1


def test_areas_without_instance_are_no_objects_and_those_in_void_or_crowds_are_not_false():
    target = bands((CAR, 7, 0, 5), (VOID, 0, 10, 12), (CAR, 0, 12, 20))
    first = (CAR, 1, 0, 5)
    assert np.isnan(agnostic_ap50(bands(first), bands((CAR, 0, 0, 5))))
    assert agnostic_ap50(bands((CAR, 0, 0, 5)), target) == 0
    sure = {1: 0.5, 2: 0.9}
    assert agnostic_ap50(bands(first, (CAR, 2, 6, 8)), target, sure) == 0.5
    for excused in ((CAR, 2, 9, 11), (CAR, 2, 11, 13), (PERSON, 2, 14, 16)):
        assert agnostic_ap50(bands(first, excused), target, sure) == 1


def test_scores_that_are_not_given_are_one_and_nothing_at_all_has_no_figure():
    target = bands((CAR, 7, 0, 5))
    prediction = bands((CAR, 1, 0, 5), (CAR, 2, 10, 15))
    assert agnostic_ap50(prediction, target, {2: 0.9}) == 1
    assert agnostic_ap50(prediction, target, {1: 0.9}) == 0.5
    nothing = average_precision([], IS_THING)
    assert np.isnan(astuple(nothing)[:6]).all()
    empty = np.zeros((0, 4, 2), np.int32)
    assert average_precision([contingency(empty, empty)], IS_THING).objects == 0


def test_an_image_has_a_hundred_objects_a_class_at_most():
    target = np.arange(1, 401, dtype=np.int32).reshape(20, 20)
    target = np.stack([np.full_like(target, CAR), target], -1)
    scores = average_precision([contingency(target, target, CROWDS)], IS_THING)
    assert (scores.predicted, scores.objects) == (MAX_OBJECTS, 400)
    assert scores.ap == pytest.approx(26 / 101)  # recalls 0 .. 0.25
