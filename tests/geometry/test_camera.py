import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.geometry.camera import depth_from_disparity, disparity_from_depth, points_from_disparity, project
from cupola.geometry.warping import pixel_grid
from cupola.types import Calibration

calibrations = st.builds(
    Calibration,
    fx=st.floats(50, 3000),
    fy=st.floats(50, 3000),
    cx=st.floats(-50, 1500),
    cy=st.floats(-50, 1500),
    baseline=st.floats(0.05, 2),
)
disparities = arrays(np.float32, (5, 7), elements=st.floats(-3, 0, width=32) | st.floats(0.0078125, 200, width=32))


@given(disparities, calibrations)
@settings(deadline=None)
def test_points_project_to_their_own_pixel_and_disparity(disparity, calibration):
    points = points_from_disparity(disparity, calibration)
    known = disparity > 1e-3
    x, y = pixel_grid(5, 7)
    back = project(points.astype(np.float64), calibration)
    tolerance = 1e-5 * (1500 + 50)  # the offset from the principal point passes through float32
    for got, expected in zip(back, (x, y, disparity), strict=True):
        np.testing.assert_allclose(got[known], expected[known], rtol=1e-5, atol=tolerance)


@given(disparities, calibrations)
@settings(deadline=None)
def test_what_is_not_in_front_of_the_camera_is_unknown(disparity, calibration):
    points = points_from_disparity(disparity, calibration)
    assert np.isnan(points[:, disparity <= 0]).all()
    behind = np.where(np.isnan(points), 0, -points)
    assert np.isnan(project(behind, calibration)).all()


@given(disparities, calibrations)
@settings(deadline=None)
def test_depth_and_disparity_are_inverse(disparity, calibration):
    back = disparity_from_depth(depth_from_disparity(disparity, calibration), calibration)
    known = disparity > 1e-3
    np.testing.assert_allclose(back[known], disparity[known], rtol=1e-6)
    assert np.isnan(back[disparity <= 0]).all()


@given(calibrations, st.integers(0, 3), st.integers(0, 2))
@settings(deadline=None)
def test_a_crop_leaves_the_points_where_they_are(calibration, left, top):
    disparity = np.linspace(5, 60, 35, dtype=np.float32).reshape(5, 7)
    whole = points_from_disparity(disparity, calibration)
    part = points_from_disparity(disparity[top:, left:], calibration.cropped(float(left), float(top)))
    np.testing.assert_allclose(part, whole[:, top:, left:], rtol=1e-5, atol=1e-5)
