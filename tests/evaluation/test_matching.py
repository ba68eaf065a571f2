from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.evaluation import match_classes
from cupola.types import VOID


@st.composite
def problems(draw, most=6):
    pseudo, true = draw(st.integers(1, most)), draw(st.integers(1, most))
    confusion = draw(arrays(np.int64, (pseudo, true), elements=st.integers(0, 9)))
    return confusion, draw(arrays(bool, pseudo)), draw(arrays(bool, true))


def overlap(confusion, assignment):
    return sum(int(confusion[p, c]) for p, c in enumerate(assignment) if c != VOID)


def best_one_to_one(confusion):
    """The slow obvious twin: the best of all ways to pair rows and columns."""
    wide = confusion if confusion.shape[0] <= confusion.shape[1] else confusion.T
    rows = range(wide.shape[0])
    return max(
        sum(int(wide[r, c]) for r, c in zip(rows, chosen, strict=True))
        for chosen in permutations(range(wide.shape[1]), wide.shape[0])
    )


@given(problems(most=4))
@settings(deadline=None)
def test_one_to_one_overlaps_most_and_uses_no_class_twice(problem):
    confusion, _, _ = problem
    assignment = match_classes(confusion, one_to_one=True)
    used = assignment[assignment != VOID]
    assert len(set(used.tolist())) == len(used) == min(confusion.shape)
    assert overlap(confusion, assignment) == best_one_to_one(confusion)


@given(problems())
@settings(deadline=None)
def test_pseudo_classes_left_over_take_their_largest_overlap(problem):
    confusion, _, _ = problem
    strict, full = match_classes(confusion, one_to_one=True), match_classes(confusion)
    kept = strict != VOID
    np.testing.assert_array_equal(full[kept], strict[kept])
    np.testing.assert_array_equal(full[~kept], confusion.argmax(1)[~kept])


@given(problems(), st.booleans())
@settings(deadline=None)
def test_things_and_stuff_are_matched_as_if_alone(problem, drop_absent):
    confusion, pseudo_is_thing, true_is_thing = problem
    assignment = match_classes(confusion, pseudo_is_thing, true_is_thing, drop_absent=drop_absent)
    for pseudo, true in ((pseudo_is_thing, true_is_thing), (~pseudo_is_thing, ~true_is_thing)):
        columns = np.flatnonzero(true)
        if not len(columns):
            assert (assignment[pseudo] == VOID).all()
        elif drop_absent is False and pseudo.any():
            alone = match_classes(confusion[np.ix_(pseudo, true)])
            np.testing.assert_array_equal(assignment[pseudo], columns[alone])
        else:
            assert np.isin(assignment[pseudo], [VOID, *columns]).all()


@given(problems())
@settings(deadline=None)
def test_absent_classes_take_no_part(problem):
    confusion, pseudo_is_thing, true_is_thing = problem
    assignment = match_classes(confusion, pseudo_is_thing, true_is_thing, drop_absent=True)
    unused = ~confusion.any(1)
    assert (assignment[unused] == VOID).all()
    present = np.flatnonzero(confusion.any(0))
    assert np.isin(assignment[assignment != VOID], present).all()
    more = np.concatenate([confusion, np.zeros((len(confusion), 2), np.int64)], 1)
    kinds = np.append(true_is_thing, [True, False])
    np.testing.assert_array_equal(match_classes(more, pseudo_is_thing, kinds, drop_absent=True), assignment)


def test_the_matching_trap_and_its_mending():
    """Two pseudo classes of building, one class pole that nobody found: Hungarian gives a building to the pole."""
    building, pole = 0, 1
    confusion = np.array([[900, 0], [500, 3]])
    assert match_classes(confusion).tolist() == [building, pole]
    assert match_classes(confusion, minimum_iou=0.1).tolist() == [building, building]
    assert match_classes(confusion, minimum_iou=0.1, one_to_one=True).tolist() == [building, VOID]


def test_one_kind_alone_is_refused():
    with pytest.raises(ValueError, match="both pseudo_is_thing and true_is_thing"):
        match_classes(np.ones((2, 2), np.int64), np.zeros(2, bool))


def test_no_classes_at_all():
    assert match_classes(np.zeros((0, 3), np.int64)).tolist() == []
    assert match_classes(np.zeros((2, 0), np.int64)).tolist() == [VOID, VOID]
