import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_align import frames

from cupola.pseudo_labels import ClassStatistics, align, classes_of_masks, count_classes, split_classes
from cupola.pseudo_labels.statistics import PartStatistics, count_parts, movable_parts, summed
from cupola.types import VOID

CLASSES = 6


@st.composite
def counts(draw, num_classes=CLASSES):
    total = np.array(draw(st.lists(st.integers(0, 1000), min_size=num_classes, max_size=num_classes)))
    inside = np.array([draw(st.integers(0, int(value))) for value in total])
    return ClassStatistics(inside, total, np.zeros(num_classes, np.int64))


@given(frames())
def test_counts_like_the_slow_twin(frame):
    semantic, instances = frame
    found = count_classes(semantic, instances, CLASSES)
    for k in range(CLASSES):
        assert found.total[k] == sum(value == k for value in semantic.ravel())
        inside = zip(semantic.ravel(), instances.ravel(), strict=True)
        assert found.inside[k] == sum(value == k and number > 0 for value, number in inside)
        assert found.masks[k] == (classes_of_masks(semantic, instances)[1] == k).sum()


@given(st.lists(frames(), max_size=4))
def test_the_sum_over_frames_is_the_count_of_all(several):
    parts = [count_classes(*frame, CLASSES) for frame in several]
    total = summed(parts, CLASSES)
    assert total.total.sum() == sum((semantic != VOID).sum() for semantic, _ in several)
    assert (total.inside <= total.total).all()


@given(frames())
def test_aligning_keeps_what_lies_inside_masks_but_for_unknown_pixels(frame):
    semantic, instances = frame
    aligned = count_classes(align(semantic, instances), instances, CLASSES)
    assert aligned.inside.sum() >= count_classes(semantic, instances, CLASSES).inside.sum()
    assert (aligned.masks == count_classes(semantic, instances, CLASSES).masks).all()


@given(counts())
def test_shares_sum_to_one_unless_nothing_moves(statistics):
    expected = 1.0 if statistics.inside.any() else 0.0
    assert statistics.share.sum() == pytest.approx(expected)


@given(counts(), st.floats(0, 0.99), st.sampled_from(["share", "ratio"]))
def test_a_split_holds_every_class_once_in_descending_order(statistics, threshold, measure):
    split = split_classes(statistics, threshold, measure)
    assert sorted(split.things + split.stuff) == list(range(CLASSES))
    values = getattr(statistics, measure)[list(split.things + split.stuff)]
    assert (np.diff(values) <= 0).all()
    assert all(getattr(statistics, measure)[k] > threshold for k in split.things)


@given(counts(), st.floats(0, 0.49))
def test_a_higher_threshold_gives_fewer_things(statistics, threshold):
    lower = split_classes(statistics, threshold).things
    assert (
        lower[: len(split_classes(statistics, 2 * threshold).things)] == split_classes(statistics, 2 * threshold).things
    )


@given(counts(), st.permutations(range(CLASSES)))
def test_the_split_does_not_depend_on_the_numbering(statistics, order):
    moved = ClassStatistics(statistics.inside[order], statistics.total[order], statistics.masks[order])
    renamed = {order[k] for k in split_classes(moved, 0.1).things}
    assert renamed == set(split_classes(statistics, 0.1).things)


@given(st.lists(frames(), max_size=4))
def test_parts_are_counted_like_classes_and_add_up(several):
    total = sum((count_parts(*frame) for frame in several), PartStatistics.zero())
    expected = summed((count_classes(*frame, CLASSES) for frame in several), CLASSES)
    np.testing.assert_array_equal(total.total, expected.total[: len(total.total)])
    np.testing.assert_array_equal(total.inside, expected.inside[: len(total.inside)])
    assert not expected.total[len(total.total) :].any()


def test_a_part_that_moves_like_things_do_is_movable_whatever_its_class():
    classes = ClassStatistics(np.array([200, 10]), np.array([1000, 10000]), np.array([5, 0]))
    split = split_classes(classes, 0.08)
    assert split.things == (0,)
    parts = PartStatistics(np.array([190, 10, 10, 0]), np.array([900, 100, 100, 9900]))
    assert movable_parts(parts, classes, split, 0.2) == (0, 1, 2)
    assert movable_parts(parts, classes, split, 0.6) == (0,)
    assert movable_parts(parts, classes, split, 0.0) == ()


def test_no_part_is_movable_where_nothing_is():
    parts = PartStatistics(np.zeros(3, np.int64), np.full(3, 10))
    nothing = ClassStatistics.zero(2)
    assert movable_parts(parts, nothing, split_classes(nothing, 0.08), 0.2) == ()
    assert movable_parts(PartStatistics.zero(), nothing, split_classes(nothing, 0.08), 0.2) == ()


def test_without_masks_there_are_no_things_and_nothing_is_divided_by_zero():
    split = split_classes(ClassStatistics.zero(4), 0.0)
    assert split.things == ()
    assert split.stuff == (0, 1, 2, 3)


def test_share_and_ratio_differ():
    statistics = ClassStatistics(np.array([30, 30]), np.array([100, 100]), np.array([1, 1]))
    assert len(split_classes(statistics, 0.4).things) == 2
    assert len(split_classes(statistics, 0.4, "ratio").things) == 0


def test_a_class_out_of_range_is_refused():
    with pytest.raises(ValueError, match="class 9 is not below the number of classes, 4"):
        count_classes(np.full((2, 2), 9, np.int16), np.zeros((2, 2), np.int32), 4)
