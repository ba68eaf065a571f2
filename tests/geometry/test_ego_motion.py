"""The camera's own motion on synthetic points: recovered under noise and moving objects, repeatable, honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from cupola.geometry.ego_motion import estimate_disparity_bias, estimate_ego_motion, static_flow
from cupola.geometry.ego_motion.kernels import normal_equations, point_chi2, rotation_of
from cupola.types import Calibration

CALIBRATION = Calibration(230.0, 230.0, 191.5, 95.5, 0.5)
SHAPE = (192, 384)


def scene(rng):
    """Disparity of a bumpy world, 2 .. 30 px."""
    coarse = rng.uniform(2, 30, (SHAPE[0] // 8, SHAPE[1] // 8))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


def transform(turn, move):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation_of(np.array(turn, np.float64)), move
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


def test_rotation_is_the_matrix_exponential():
    for vector in np.random.default_rng(0).normal(0, 1, (5, 3)):
        x, y, z = vector
        assert np.allclose(rotation_of(vector), expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])))
    assert np.array_equal(rotation_of(np.zeros(3)), np.eye(3))


def test_normal_equations_equal_finite_differences():
    rng = np.random.default_rng(1)
    count, noise = 7, 1e-4
    rays = np.concatenate([rng.uniform(-0.5, 0.5, (count, 2)), np.ones((count, 1))], 1)
    rho, target = rng.uniform(0.02, 0.3, count), rng.uniform(-0.5, 0.5, (count, 2))
    variance, terms = rng.uniform(1, 2, count) * noise, rng.normal(0, 1, (count, 2))
    rotation, move = rotation_of(np.array([0.02, -0.01, 0.03])), np.array([0.1, -0.1, -0.6])

    def predict(k, unknowns):
        turn = rotation_of(unknowns[:3])
        q = turn @ (rotation @ rays[k] + (rho[k] + terms[k] @ unknowns[6:]) * move) + rho[k] * unknowns[3:6]
        return q[:2] / q[2]

    normal, right, _ = normal_equations(rays, rho, target, variance, noise, terms, rotation, move, 0.0)
    chi2 = point_chi2(rays, rho, target, variance, noise, rotation, move)
    expected, vector, step = np.zeros((8, 8)), np.zeros(8), 1e-6
    for k in range(count):
        jacobian = np.stack([(predict(k, s) - predict(k, -s)) / (2 * step) for s in step * np.eye(8)], 1)
        z = (rotation @ rays[k] + rho[k] * move)[2]
        slope = (move[:2] - predict(k, np.zeros(8)) * move[2]) / z
        inverse = np.linalg.inv(variance[k] * np.eye(2) + noise * np.outer(slope, slope))
        residual = target[k] - predict(k, np.zeros(8))
        expected += jacobian.T @ inverse @ jacobian
        vector += jacobian.T @ inverse @ residual
        assert chi2[k] == pytest.approx(residual @ inverse @ residual, rel=1e-6)
    assert np.allclose(normal, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert np.allclose(right, vector, rtol=1e-4, atol=1e-4 * np.abs(vector).max())


def bias_left(error, forward=0.9):
    """Root mean square of what the found bias leaves of a disparity error [px], in the middle three quarters."""
    rng = np.random.default_rng(6)
    truth = transform((0, 0.005, 0), (0, 0, -forward))
    disparity = scene(rng)
    flow, _ = static_flow(disparity, truth, CALIBRATION)
    flow = flow + rng.normal(0, 0.2, flow.shape).astype(np.float32)
    seen = np.maximum(disparity + error + rng.normal(0, 0.2, SHAPE), 0.5).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    ego = estimate_ego_motion(flow, everywhere, seen, everywhere, CALIBRATION, np.random.default_rng(0))
    bias = estimate_disparity_bias(flow, seen, everywhere, CALIBRATION, ego)
    return float(np.sqrt(np.mean((error + bias)[24:-24, 48:-48] ** 2)))


def test_smooth_error_of_the_disparity_is_found():
    across = np.linspace(-1, 1, SHAPE[1])[None, :]
    error = np.broadcast_to(-1.2 * across**2, SHAPE)
    assert bias_left(error) < 0.5 * np.sqrt(np.mean(error[24:-24, 48:-48] ** 2))


def test_no_error_is_left_alone():
    assert bias_left(np.zeros(SHAPE)) < 0.12


def test_camera_at_rest_says_nothing_about_the_disparity():
    error = np.full(SHAPE, 0.7)
    assert bias_left(error, forward=0.0) == pytest.approx(0.7, abs=0.1)
