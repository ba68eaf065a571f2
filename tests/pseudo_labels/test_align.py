from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cupola.pseudo_labels import align, classes_of_masks
from cupola.types import VOID


@st.composite
def frames(draw, max_class=5, max_id=4):
    """A small class map with unknown pixels and an id map with gaps."""
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    semantic = rng.integers(VOID, max_class + 1, (height, width)).astype(np.int16)
    ids = np.array([0, 2, 3, 7, 300])[: max_id + 1]
    return semantic, rng.choice(ids, (height, width)).astype(np.int32)


def slow_align(semantic, instances):
    """Obvious twin: count every mask's classes one by one."""
    aligned = semantic.copy()
    for number in set(instances[instances > 0].tolist()):
        mask = instances == number
        votes = Counter(value for value in semantic[mask].tolist() if value != VOID)
        best = max(votes.values(), default=0)
        aligned[mask] = min((value for value, count in votes.items() if count == best), default=VOID)
    return aligned


@given(frames())
def test_like_the_slow_twin(frame):
    np.testing.assert_array_equal(align(*frame), slow_align(*frame))


@given(frames())
def test_aligning_twice_changes_nothing_and_leaves_the_input_alone(frame):
    semantic, instances = frame
    before = semantic.copy()
    once = align(semantic, instances)
    np.testing.assert_array_equal(align(once, instances), once)
    np.testing.assert_array_equal(semantic, before)


@given(frames())
def test_ids_are_names_only(frame):
    semantic, instances = frame
    np.testing.assert_array_equal(align(semantic, np.where(instances > 0, 1000 - instances, 0)), align(*frame))


def test_class_zero_wins_where_it_is_the_majority_and_in_a_tie():
    semantic = np.array([[0, 0, 0, 7], [0, 7, 7, 0]], np.int16)
    instances = np.array([[1, 1, 1, 1], [2, 2, 2, 2]], np.int32)
    ids, classes = classes_of_masks(semantic, instances)
    assert ids.tolist() == [1, 2]
    assert classes.tolist() == [0, 0]


def test_a_mask_that_covers_the_image_keeps_its_class():
    semantic = np.array([[3, 3, 5]], np.int16)
    assert align(semantic, np.ones((1, 3), np.int32)).tolist() == [[3, 3, 3]]


def test_unknown_pixels_have_no_vote():
    semantic = np.array([[VOID, VOID, 4, VOID]], np.int16)
    assert align(semantic, np.array([[1, 1, 1, 2]], np.int32)).tolist() == [[4, 4, 4, VOID]]


def test_no_mask():
    ids, classes = classes_of_masks(np.zeros((2, 2), np.int16), np.zeros((2, 2), np.int32))
    assert len(ids) == 0
    assert len(classes) == 0
