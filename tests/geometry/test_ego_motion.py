"""The camera's own motion on synthetic points: recovered under noise and moving objects, repeatable, honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.geometry.ego_motion import estimate_ego_motion, rotation_matrix, static_flow
from cupola.types import Calibration

CALIBRATION = Calibration(230.0, 230.0, 191.5, 95.5, 0.5)
SHAPE = (192, 384)


def scene(rng):
    """Disparity of a bumpy world, 2 .. 30 px."""
    coarse = rng.uniform(2, 30, (SHAPE[0] // 8, SHAPE[1] // 8))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


def transform(turn, move):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation_matrix(np.array(turn, np.float64)), move
    return result


def observed(rng, truth, noise=0.3, outliers=0.0):
    disparity = scene(rng)
    flow, _ = static_flow(disparity, truth, CALIBRATION)
    flow = flow + rng.normal(0, noise, flow.shape).astype(np.float32)
    wrong = rng.random(SHAPE) < outliers
    flow[:, wrong] += rng.uniform(-20, 20, (2, int(wrong.sum()))).astype(np.float32)
    noisy = np.maximum(disparity + rng.normal(0, noise, SHAPE), 0.5).astype(np.float32)
    return flow, noisy


angles = st.floats(-0.03, 0.03)


@settings(max_examples=15, deadline=None)
@given(turn=st.tuples(angles, angles, angles), forward=st.floats(-0.2, 1.5), seed=st.integers(0, 1000))
def test_motion_is_recovered_under_noise_and_outliers(turn, forward, seed):
    rng = np.random.default_rng(seed)
    truth = transform(turn, (0.03, -0.02, -forward))
    flow, disparity = observed(rng, truth, outliers=0.25)
    everywhere = np.ones(SHAPE, bool)
    ego = estimate_ego_motion(flow, everywhere, disparity, everywhere, CALIBRATION, np.random.default_rng(0))
    assert ego is not None
    assert np.abs(ego.transform[:3, :3] - truth[:3, :3]).max() < 2e-3
    assert np.abs(ego.transform[:3, 3] - truth[:3, 3]).max() < 0.03


def test_error_is_about_what_the_covariance_says():
    truth = transform((0, 0.01, 0), (0, 0, -1))
    everywhere = np.ones(SHAPE, bool)
    scaled = []
    for seed in range(12):
        flow, disparity = observed(np.random.default_rng(seed), truth, noise=0.5)
        ego = estimate_ego_motion(flow, everywhere, disparity, everywhere, CALIBRATION, np.random.default_rng(0))
        scaled.append((ego.transform[:3, 3] - truth[:3, 3]) / np.sqrt(np.diag(ego.covariance)[3:]))
    assert 0.3 < np.sqrt(np.mean(np.square(scaled))) < 4


def test_exact_input_gives_exact_motion():
    truth = transform((0.01, -0.02, 0.005), (0.1, 0.02, -0.8))
    flow, disparity = observed(np.random.default_rng(3), truth, noise=0)
    everywhere = np.ones(SHAPE, bool)
    ego = estimate_ego_motion(flow, everywhere, disparity, everywhere, CALIBRATION, np.random.default_rng(0))
    assert np.allclose(ego.transform, truth, atol=1e-5)
    assert ego.inliers == 1


def test_same_seed_same_bits_other_seed_same_motion():
    flow, disparity = observed(np.random.default_rng(5), transform((0, 0.02, 0), (0, 0, -1)), outliers=0.3)
    everywhere = np.ones(SHAPE, bool)

    def estimate(seed):
        return estimate_ego_motion(flow, everywhere, disparity, everywhere, CALIBRATION, np.random.default_rng(seed))

    assert np.array_equal(estimate(1).transform, estimate(1).transform)
    assert np.allclose(estimate(1).transform, estimate(2).transform, atol=1e-4)


@pytest.mark.parametrize("known", [0.0, 0.0005])
def test_too_few_known_pixels_give_none(known):
    flow, disparity = observed(np.random.default_rng(5), np.eye(4))
    valid = np.random.default_rng(1).random(SHAPE) < known
    flow[:, ~valid] = np.nan
    assert estimate_ego_motion(flow, valid, disparity, valid, CALIBRATION, np.random.default_rng(0)) is None


def test_flow_without_a_common_motion_gives_none():
    rng = np.random.default_rng(2)
    flow = rng.uniform(-40, 40, (2, *SHAPE)).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    assert estimate_ego_motion(flow, everywhere, scene(rng), everywhere, CALIBRATION, rng) is None


def test_static_flow_is_projection_of_moved_points():
    rng = np.random.default_rng(4)
    disparity, motion = scene(rng), transform((0.01, 0.02, -0.01), (0.2, 0.1, -0.5))
    flow, moved = static_flow(disparity, motion, CALIBRATION)
    for y, x in rng.integers(0, SHAPE, (20, 2)):
        z = CALIBRATION.fx * CALIBRATION.baseline / disparity[y, x]
        point = np.array([(x - CALIBRATION.cx) / CALIBRATION.fx * z, (y - CALIBRATION.cy) / CALIBRATION.fy * z, z, 1])
        a, b, c, _ = motion @ point
        u, v = CALIBRATION.fx * a / c + CALIBRATION.cx, CALIBRATION.fy * b / c + CALIBRATION.cy
        assert np.allclose(flow[:, y, x], (u - x, v - y), atol=2e-3)
        assert moved[y, x] == pytest.approx(CALIBRATION.fx * CALIBRATION.baseline / c, rel=1e-4)


def test_points_behind_the_camera_are_unknown():
    near = np.full((4, 6), 230.0, np.float32)  # 0.5 m away
    flow, moved = static_flow(near, transform((0, 0, 0), (0, 0, -1)), CALIBRATION)
    assert np.isnan(flow).all()
    assert np.isnan(moved).all()
