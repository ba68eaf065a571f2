import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.geometry.disparity import fill_disparity

shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))


@st.composite
def sparse_disparity(draw):
    shape = draw(shapes)
    values = draw(arrays(np.float32, shape, elements=st.floats(0.0, 128.0, width=16)))
    valid = draw(arrays(bool, shape))
    return values, valid


def fill_line(values, known):
    """The slow obvious twin: for each gap the smaller of its two ends."""
    result, places = values.copy(), np.flatnonzero(known)
    for i in np.flatnonzero(~known):
        ends = [places[places < i][-1:], places[places > i][:1]]
        result[i] = min((values[j] for end in ends for j in end), default=values[i])
    return result, known | (places.size > 0)


@given(sparse_disparity())
@settings(deadline=None)
def test_fill_equals_the_obvious_loop(case):
    values, valid = case
    expected, known = np.where(valid, values, 0), valid.copy()
    for y in range(len(expected)):
        expected[y], known[y] = fill_line(expected[y], known[y])
    for x in range(expected.shape[1]):
        expected[:, x], known[:, x] = fill_line(expected[:, x], known[:, x])
    np.testing.assert_array_equal(fill_disparity(values, valid), expected)


@given(sparse_disparity())
@settings(deadline=None)
def test_fill_keeps_what_is_known_and_invents_no_new_value(case):
    values, valid = case
    filled = fill_disparity(np.where(valid, values, np.float32(np.nan)), valid)
    np.testing.assert_array_equal(filled[valid], values[valid])
    assert np.isin(filled, values[valid] if valid.any() else [0]).all()


def test_ground_beside_an_object_takes_the_ground():
    row = np.array([[9, np.nan, np.nan, 4]], np.float32)
    np.testing.assert_array_equal(fill_disparity(row, np.isfinite(row)), [[9, 4, 4, 4]])
