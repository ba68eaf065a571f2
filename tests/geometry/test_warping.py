import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.geometry.warping import pixel_grid, sample_bilinear, sample_nearest, warp_bilinear, warp_nearest

sizes = st.integers(1, 8)
values = st.floats(-100, 100, width=32)


@st.composite
def fields(draw, channels=2):
    return draw(arrays(np.float32, (channels, draw(sizes), draw(sizes)), elements=values))


@given(fields())
@settings(deadline=None)
def test_warp_by_zero_changes_nothing(field):
    still = np.zeros((2, *field.shape[1:]), np.float32)
    np.testing.assert_array_equal(warp_bilinear(field, still), field)
    np.testing.assert_array_equal(warp_nearest(field, still), field)


@given(fields(), st.integers(-9, 9), st.integers(-9, 9))
@settings(deadline=None)
def test_warp_by_whole_pixels_shifts_and_leaves_the_rest_unknown(field, dx, dy):
    height, width = field.shape[1:]
    flow = np.broadcast_to(np.array([dx, dy], np.float32)[:, None, None], (2, height, width)).copy()
    expected = np.full_like(field, np.nan)
    for y in range(max(0, -dy), min(height, height - dy)):
        for x in range(max(0, -dx), min(width, width - dx)):
            expected[:, y, x] = field[:, y + dy, x + dx]
    np.testing.assert_array_equal(warp_bilinear(field, flow), expected)
    np.testing.assert_array_equal(warp_nearest(field, flow), expected)


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    arrays(np.float32, (2, 5), elements=st.floats(-2, 9, width=32)),
)
@settings(deadline=None)
def test_bilinear_is_exact_on_bilinear_fields(coefficients, positions):
    a, b, c, d = coefficients
    x, y = pixel_grid(6, 8)
    field = (a + b * x + c * y + d * x * y).astype(np.float32)
    px, py = positions[:1].astype(np.float64), positions[1:].astype(np.float64)
    inside = (px >= 0) & (px <= 7) & (py >= 0) & (py <= 5)
    expected = np.where(inside, a + b * px + c * py + d * px * py, np.nan)
    np.testing.assert_allclose(sample_bilinear(field, px, py), expected, atol=1e-4)


def test_unknown_spreads_only_to_where_it_has_weight():
    field = np.array([[1, np.nan, 3]], np.float32)
    x = np.array([[0.0, 0.5, 2.0, 2.1, np.nan]])
    y = np.zeros_like(x)
    np.testing.assert_array_equal(sample_bilinear(field, x, y), [[1, np.nan, 3, np.nan, np.nan]])
    np.testing.assert_array_equal(sample_nearest(field, x, y), [[1, 1, 3, np.nan, np.nan]])


def test_nearest_takes_one_of_the_values_and_no_mixture():
    field = np.array([[0, 10], [20, 30]], np.float32)
    got = sample_nearest(field, np.array([[0.4, 0.6]]), np.array([[0.6, 0.4]]))
    np.testing.assert_array_equal(got, [[20, 10]])


def test_a_flow_with_three_channels_is_refused():
    with pytest.raises(Exception, match="flow"):
        warp_bilinear(np.zeros((4, 4), np.float32), np.zeros((3, 4, 4), np.float32))
