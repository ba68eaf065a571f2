import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.evaluation import ConfusionMatrix, contingency
from cupola.types import VOID

class_maps = arrays(np.int32, (5, 6), elements=st.sampled_from([VOID, 0, 1, 2, 255]))


def slow_scores(prediction, target, classes, published):
    """The slow obvious twin, from sets of pixels."""
    valid = (target >= 0) & (target < classes)
    if published:
        valid &= (prediction >= 0) & (prediction < classes)
    ious = []
    for c in range(classes):
        predicted, true = (prediction == c) & valid, (target == c) & valid
        ious.append((predicted & true).sum() / (predicted | true).sum() if (predicted | true).any() else np.nan)
    accuracy = (prediction == target)[valid].mean() if valid.any() else np.nan
    return ious, accuracy


@given(class_maps, class_maps, st.booleans())
@settings(deadline=None)
def test_equals_sets_of_pixels(prediction, target, published):
    confusion = ConfusionMatrix(3)
    confusion.update(prediction, target)
    scores = confusion.compute(protocol="published" if published else "standard")
    ious, accuracy = slow_scores(prediction, target, 3, published)
    np.testing.assert_allclose(scores.iou, ious)
    np.testing.assert_allclose(scores.accuracy, accuracy)
    np.testing.assert_allclose(scores.miou, np.mean([iou for iou in ious if not np.isnan(iou)] or [np.nan]))


@given(class_maps, class_maps, st.permutations(range(3)))
@settings(deadline=None)
def test_an_assignment_is_the_same_as_mapping_the_prediction(prediction, target, order):
    assignment = np.array(order, np.int64)
    later, before = ConfusionMatrix(3), ConfusionMatrix(3)
    later.update(prediction, target)
    inside = (prediction >= 0) & (prediction < 3)
    before.update(np.where(inside, assignment[np.where(inside, prediction, 0)], VOID), target)
    np.testing.assert_array_equal(later.compute(assignment).iou, before.compute().iou)


@given(class_maps, class_maps)
@settings(deadline=None)
def test_instances_do_not_matter_and_tables_count_the_same(prediction, target):
    plain, stacked, tables = (ConfusionMatrix(3, 2) for _ in range(3))
    plain.update(prediction, target)
    maps = [np.stack([image, np.arange(30, dtype=np.int32).reshape(5, 6)], -1) for image in (prediction, target)]
    stacked.update(*maps)
    tables.add(contingency(*maps))
    for other in (stacked, tables):
        np.testing.assert_array_equal(other.counts, plain.counts)
        np.testing.assert_array_equal(other.predicted_void, plain.predicted_void)


def test_many_pseudo_classes_may_stand_for_one_class_and_some_for_none():
    confusion = ConfusionMatrix(3, 2)
    confusion.update(np.array([[0, 1, 2, 2]]), np.array([[0, 0, 1, 0]]))
    scores = confusion.compute(np.array([0, 0, VOID]))
    np.testing.assert_allclose(scores.iou, [2 / 3, 0])
    assert scores.accuracy == 0.5
