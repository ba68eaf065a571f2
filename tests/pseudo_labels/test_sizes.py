import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.pseudo_labels.sizes import extents, group_of, group_sizes
from cupola.types import Calibration

CALIBRATION = Calibration(fx=100.0, fy=50.0, cx=0.0, cy=0.0, baseline=0.5)
sizes = st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.1, 5)), min_size=1, max_size=30).map(
    lambda rows: np.array(rows, np.float32)
)


def test_an_extent_is_in_metres():
    ids = np.zeros((60, 80), np.int32)
    ids[10:30, 20:60] = 2
    disparity = np.full(ids.shape, 5.0, np.float32)  # 10 m away: 0.1 m a column, 0.2 m a row
    found = extents(ids, 3, disparity, np.ones(ids.shape, bool), CALIBRATION)
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == pytest.approx([4.0 * 0.9, 4.0 * 0.9], abs=0.3), "5 % of the pixels are left out on each side"


def test_an_object_without_disparity_has_no_extent():
    found = extents(np.ones((4, 4), np.int32), 1, np.ones((4, 4), np.float32), np.zeros((4, 4), bool), CALIBRATION)
    assert np.isnan(found).all()


def test_people_and_cars_fall_apart():
    rng = np.random.default_rng(0)
    people, cars = rng.normal([0.6, 1.7], 0.1, (30, 2)), rng.normal([4.0, 1.5], 0.3, (20, 2))
    both = np.concatenate([cars, people]).astype(np.float32)
    groups = group_sizes(both, 2)
    assert groups[0] == pytest.approx([0.6, 1.7], abs=0.1)
    assert groups[1] == pytest.approx([4.0, 1.5], abs=0.2)
    assert group_of(both, groups).tolist() == [1] * 20 + [0] * 30


def test_views_of_one_kind_stay_one_group():
    rng = np.random.default_rng(0)
    behind, beside = rng.normal([1.6, 1.4], 0.1, (30, 2)), rng.normal([3.0, 1.4], 0.2, (20, 2))
    assert len(group_sizes(np.concatenate([behind, beside]).astype(np.float32), 3)) == 1


@given(sizes, st.integers(1, 4))
def test_groups_come_by_number_and_each_has_a_member(rows, count):
    groups = group_sizes(rows, count)
    members = np.bincount(group_of(rows, groups), minlength=len(groups))
    assert len(groups) <= count
    assert (np.diff(members) <= 0).all()


@given(sizes, st.integers(0, 2**32))
def test_groups_do_not_depend_on_the_order(rows, seed):
    shuffled = np.random.default_rng(seed).permutation(rows)
    np.testing.assert_allclose(group_sizes(shuffled, 1), group_sizes(rows, 1), rtol=1e-6)


def test_unknown_sizes_make_no_group_and_join_the_most_frequent():
    rows = np.array([[1, 1], [1, 1], [5, 1], [np.nan, np.nan]], np.float32)
    groups = group_sizes(rows, 2)
    assert groups == pytest.approx(np.array([[1, 1], [5, 1]]))
    assert group_of(rows, groups).tolist() == [0, 0, 1, 0]


def test_no_object():
    nothing = np.zeros((0, 2), np.float32)
    assert group_sizes(nothing, 2).shape == (0, 2)
    assert group_sizes(np.full((2, 2), np.nan, np.float32), 2).shape == (0, 2)
    assert group_of(nothing, np.ones((1, 2))).shape == (0,)
