import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.geometry.ground_plane import GroundPlane, fit_ground_plane
from cupola.types import Calibration


def _scene(plane: GroundPlane, seed: int, noise: float = 0.3, objects: int = 6) -> np.ndarray:
    """Ground with noise, boxes nearer than the ground standing on it, nothing above the horizon."""
    rng = np.random.default_rng(seed)
    ground = plane.disparity()
    disparity = ground + rng.normal(0, noise, ground.shape).astype(np.float32)
    for _ in range(objects):
        foot, left = rng.integers(plane.height // 2, plane.height), rng.integers(0, plane.width)
        top, right = max(0, foot - rng.integers(10, plane.height // 2)), left + rng.integers(5, plane.width // 8)
        near = ground[foot, min(left, plane.width - 1)]
        disparity[top:foot, left:right] = np.maximum(disparity[top:foot, left:right], near)
    return disparity


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-0.1, 0.1),
    st.floats(0.06, 0.6),
    st.floats(-0.1, 0.1),
    st.sampled_from([(376, 1241), (192, 384), (96, 200)]),
    st.integers(0, 1000),
)
def test_finds_a_noisy_plane_behind_objects(roll, slope, horizon, size, seed):
    height, width = size
    plane = GroundPlane(roll * slope, slope, horizon * height * slope, height, width)
    disparity = _scene(plane, seed)
    found = fit_ground_plane(disparity, disparity > 0.5, np.random.default_rng(seed))
    assert found is not None
    lower = slice(int(0.7 * height), None)
    middle = slice(width // 4, -width // 4)
    assert np.abs(found.disparity() - plane.disparity())[lower, middle].mean() < 0.35


def test_same_rng_same_plane():
    disparity = _scene(GroundPlane(0.01, 0.3, 3.0, 200, 400), 0)
    first, second = (fit_ground_plane(disparity, disparity > 0.5, np.random.default_rng(7)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("size", [(376, 1241), (192, 384), (8, 8), (1, 1), (2, 300)])
def test_no_ground_is_none(size):
    nothing = np.full(size, np.nan, np.float32)
    rng = np.random.default_rng(0)
    assert fit_ground_plane(nothing, np.zeros(size, bool), rng) is None
    wall = np.full(size, 20, np.float32)
    assert fit_ground_plane(wall, np.ones(size, bool), rng) is None
    noise = rng.uniform(0.5, 500, size).astype(np.float32)
    assert fit_ground_plane(noise, np.ones(size, bool), rng) is None


def test_unknown_pixels_are_not_looked_at():
    plane = GroundPlane(0.0, 0.3, 3.0, 200, 400)
    disparity = _scene(plane, 1)
    valid = disparity > 0.5
    poisoned = np.where(valid & (np.arange(400) % 2 == 0), disparity, np.float32(np.nan))
    trap = poisoned.copy()
    trap[np.isnan(poisoned)] = 1e6
    known = np.isfinite(poisoned)
    first = fit_ground_plane(poisoned, known, np.random.default_rng(0))
    assert first == fit_ground_plane(trap, known, np.random.default_rng(0))
    assert first is not None
    assert abs(first.b - 0.3) < 0.02


def test_heights_of_a_level_camera():
    calibration = Calibration(fx=700.0, fy=700.0, cx=320.0, cy=120.0, baseline=0.5)
    height_above_ground = 1.6
    slope = calibration.baseline / height_above_ground
    plane = GroundPlane(0.0, slope, slope * (240 / 2 - calibration.cy), 240, 640)
    assert plane.camera_height(calibration) == pytest.approx(height_above_ground, rel=1e-6)
    assert np.allclose(plane.heights(np.maximum(plane.disparity(), 1e-3), calibration)[130:], 0, atol=1e-4)
    z, y_up = 20.0, 1.0  # a point one metre above the ground, twenty metres ahead
    row = round(calibration.fy * (height_above_ground - y_up) / z + calibration.cy)
    disparity = np.full((240, 640), calibration.fx * calibration.baseline / z, np.float32)
    assert plane.heights(disparity, calibration)[row, 320] == pytest.approx(y_up, abs=0.02)
    assert np.isnan(plane.heights(np.zeros((240, 640), np.float32), calibration)).all()
