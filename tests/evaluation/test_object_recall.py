import numpy as np

from cupola.evaluation import Recall, contingency, count_objects
from cupola.types import VOID

IS_THING = np.array([False, True, True])
STUFF, PERSON, CAR = 0, 1, 2


def scene(*objects):
    """20 x 20 px of stuff with (class, instance, first row, last row) bands of the left 10 columns."""
    image = np.zeros((20, 20, 2), np.int32)
    for c, instance, top, bottom in objects:
        image[top:bottom, :10] = (c, instance)
    return image


def count(prediction, target, moving=None, min_area=1, crowds=()):
    return count_objects([(contingency(prediction, target, crowds), moving)], IS_THING, IS_THING, min_area)


def test_an_object_found_as_another_class_is_found():
    counts = count(scene((PERSON, 7, 0, 6)), scene((CAR, 26001, 0, 8)))
    assert counts.things == Recall(1, 1)
    assert counts.false_objects == 0


def test_iou_must_exceed_one_half_and_stuff_and_areas_without_instance_find_nothing():
    target = scene((CAR, 26001, 0, 8))
    assert count(scene((CAR, 1, 0, 4)), target).things == Recall(0, 1)
    assert count(scene((CAR, 1, 0, 5)), target).things == Recall(1, 1)
    assert count(scene((CAR, 0, 0, 8)), target).things == Recall(0, 1)
    assert count(scene((STUFF, 5, 0, 8)), target).things == Recall(0, 1)


def test_moving_and_standing_are_told_apart():
    target = scene((CAR, 26001, 0, 5), (CAR, 26002, 5, 10), (PERSON, 24001, 10, 15))
    prediction = scene((CAR, 1, 0, 5), (CAR, 2, 10, 15))
    counts = count(prediction, target, moving=frozenset({26001, 26002}))
    assert (counts.things, counts.moving, counts.standing) == (Recall(2, 3), Recall(1, 2), Recall(1, 1))
    unknown = count(prediction, target)
    assert (unknown.things, unknown.moving, unknown.standing) == (Recall(2, 3), None, None)


def test_small_standing_things_have_a_recall_of_their_own():
    target = scene((CAR, 26001, 0, 5), (CAR, 26002, 5, 15), (PERSON, 24001, 15, 18), (PERSON, 24002, 18, 20))
    prediction = scene((CAR, 1, 5, 15), (PERSON, 2, 15, 18))
    counts = count(prediction, target, moving=frozenset({26001}), min_area=25)  # areas 50, 100, 30, 20 px
    assert (counts.standing, counts.small) == (Recall(2, 2), Recall(1, 1))


def test_frames_that_do_not_know_who_moves_count_for_all_things_only():
    table = contingency(scene((CAR, 1, 0, 5)), scene((CAR, 26001, 0, 5)))
    counts = count_objects([(table, None), (table, frozenset())], IS_THING, IS_THING, 1)
    assert (counts.things, counts.moving, counts.standing) == (Recall(2, 2), Recall(0, 0), Recall(1, 1))
    assert np.isnan(Recall(0, 0).share)


def test_small_things_are_not_asked_for_but_finding_them_is_not_false():
    counts = count(scene((CAR, 1, 0, 5)), scene((CAR, 26001, 0, 5)), min_area=51)
    assert (counts.things, counts.predicted, counts.false_objects) == (Recall(0, 0), 1, 0)


def test_objects_on_nothing_are_false_unless_there_is_void_or_a_crowd():
    prediction = scene((CAR, 1, 0, 6))
    assert count(prediction, scene()).false_objects == 1
    assert count(prediction, scene((VOID, 0, 0, 4))).false_objects == 0
    assert count(prediction, scene((CAR, 0, 0, 4)), crowds=[(CAR, 0)]).false_objects == 0
    assert count(prediction, scene((VOID, 0, 0, 3))).false_objects == 1


def test_void_is_taken_out_of_the_union_and_crowds_are_no_objects():
    target = scene((CAR, 26001, 0, 4), (VOID, 0, 4, 12), (CAR, 0, 12, 16))
    counts = count(scene((CAR, 1, 0, 12)), target, crowds=[(CAR, 0)])
    assert counts.things == Recall(1, 1)
