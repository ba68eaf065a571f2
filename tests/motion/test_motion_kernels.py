"""The compiled loops of the motion room against slow, obvious twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.motion import kernels

RIG = np.array([200.0, 210.0, 15.5, 11.5, 0.5])
SHAPE = (24, 32)
SIGMA_D = 0.55


def random_fields(seed):
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 2, (2, *SHAPE)).astype(np.float32)
    disparity = rng.uniform(3, 20, SHAPE).astype(np.float32)
    moved = (disparity + rng.normal(0, 1, SHAPE)).astype(np.float32)
    moved[rng.random(SHAPE) < 0.2] = np.nan
    sigma = rng.uniform(0.3, 1.2, SHAPE).astype(np.float32)
    motion = np.concatenate([np.eye(3), [[0.05], [0.02], [-0.6]]], 1)
    return flow, disparity, moved, sigma, motion


def predict(x, y, d, motion, shift=(0.0, 0.0, 0.0)):
    """(u', v', d') of a pixel, written out in space."""
    fx, fy, cx, cy, baseline = RIG
    z = fx * baseline / d
    point = motion[:, :3] @ np.array([(x - cx) / fx * z, (y - cy) / fy * z, z]) + motion[:, 3] + shift
    return np.array([fx * point[0] / point[2] + cx, fy * point[1] / point[2] + cy, fx * baseline / point[2]])


def slow_terms(flow, disparity, moved, sigma, motion, y, x):
    """Residual, inverse covariance and Jacobian by finite differences and a matrix inverse."""
    d = float(disparity[y, x])
    step = 1e-5
    r = np.array([x + flow[0, y, x], y + flow[1, y, x], moved[y, x]]) - predict(x, y, d, motion)
    g = (predict(x, y, d + step, motion) - predict(x, y, d - step, motion)) / (2 * step)
    jacobian = np.stack(
        [(predict(x, y, d, motion, s) - predict(x, y, d, motion, -s)) / (2 * step) for s in step * np.eye(3)], 1
    )
    rows = slice(0, 3) if np.isfinite(moved[y, x]) else slice(0, 2)
    variance = np.diag([sigma[y, x] ** 2, sigma[y, x] ** 2, SIGMA_D**2])[rows, rows]
    covariance = variance + SIGMA_D**2 * np.outer(g[rows], g[rows])
    return r[rows], np.linalg.inv(covariance), jacobian[rows]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_chi2_is_the_quadratic_form(seed):
    flow, disparity, moved, sigma, motion = random_fields(seed)
    chi2 = kernels.chi2_map(flow, moved, disparity, sigma, SIGMA_D, motion, RIG, (4, 12, 6, 20))
    assert chi2.shape == (8, 14)
    for y, x in ((4, 6), (7, 11), (11, 19)):
        r, inverse, _ = slow_terms(flow, disparity, moved, sigma, motion, y, x)
        assert chi2[y - 4, x - 6] == pytest.approx(r @ inverse @ r, rel=1e-3, abs=1e-3)


def test_normal_equations_and_cell_sums_agree_with_the_slow_sum():
    flow, disparity, moved, sigma, motion = random_fields(1)
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    ys, xs = (a.ravel().astype(np.int32) for a in np.mgrid[4:8, 8:12])
    normal, right, cost = kernels.normal_equations(
        ys, xs, flow, moved, disparity, sigma, SIGMA_D, motion, RIG, basis, 0.0
    )
    expected, vector, total = np.zeros((3, 3)), np.zeros(3), 0.0
    for y, x in zip(ys, xs, strict=True):
        r, inverse, jacobian = slow_terms(flow, disparity, moved, sigma, motion, y, x)
        turned = jacobian @ basis.T
        expected += turned.T @ inverse @ turned
        vector += turned.T @ inverse @ r
        total += r @ inverse @ r
    assert np.allclose(normal, expected, rtol=1e-3)
    assert np.allclose(right, vector, rtol=1e-3, atol=1e-2)
    assert cost == pytest.approx(total, rel=1e-3)
    usable = np.ones(SHAPE, bool)
    cell = kernels.cell_sums(flow, moved, disparity, sigma, usable, SIGMA_D, motion, RIG, basis, 4)[1, 2]
    upper = [expected[0, 0], expected[0, 1], expected[1, 1], expected[0, 2], expected[1, 2], expected[2, 2]]
    assert np.allclose(cell[:6], upper, rtol=1e-3, atol=1e-3)
    assert np.allclose(cell[6:9], vector, rtol=1e-3, atol=1e-2)
    assert cell[9:].tolist() == pytest.approx([total, 16, disparity[4:8, 8:12].sum()], rel=1e-3)


def test_unusable_pixels_do_not_count():
    flow, disparity, moved, sigma, motion = random_fields(3)
    usable = np.zeros(SHAPE, bool)
    sums = kernels.cell_sums(flow, moved, disparity, sigma, usable, SIGMA_D, motion, RIG, np.eye(3), 4)
    assert not sums.any()


def test_window_adds_only_cells_of_like_depth():
    sums = np.ones((3, 3, 12))
    sums[..., 10] = 4.0
    sums[..., 11] = 4 * 10.0
    sums[0, :, 11] = 4 * 20.0
    out = kernels.window_sums(sums, 1, 100.0, 0.5, 0.5)
    assert out[1, 1, 10] == 6 * 4
    assert out[0, 1, 10] == 3 * 4
    assert out[2, 0, 10] == 4 * 4


def test_linking_follows_depth_and_velocity():
    significance = np.array([[20.0, 10.0, 10.0, 10.0, 7.0, 10.0]])
    velocity = np.zeros((1, 6, 2))
    velocity[0, :, 0] = [1.0, 1.1, 1.2, 2.5, 1.0, 1.0]
    disparity = np.full((1, 6), 10.0)
    labels = kernels.link_cells(significance, 18.0, 8.0, velocity, disparity, 1, 100.0, 0.9, 0.8, 0.35)
    assert labels.tolist() == [[1, 1, 1, 0, 0, 0]]
    disparity[0, 2] = 30.0
    labels = kernels.link_cells(significance, 18.0, 8.0, velocity, disparity, 1, 100.0, 0.9, 0.8, 0.35)
    assert labels.tolist() == [[1, 1, 0, 0, 0, 0]]


def test_segments_are_split_at_depth_steps():
    disparity = np.array([[10, 10.5, 11, 20, 20], [10, 10, 11, 20, 20]], np.float32)
    mask = np.ones((2, 5), bool)
    mask[0, 0] = False
    labels, count = kernels.depth_segments(mask, disparity, 0.6, 0.03)
    assert count == 2
    assert labels.tolist() == [[0, 1, 1, 2, 2], [1, 1, 1, 2, 2]]


def test_sampled_disparity_does_not_mix_across_edges():
    disparity = np.full((4, 8), 5, np.float32)
    disparity[:, 4:] = 20
    flow = np.zeros((2, 4, 8), np.float32)
    flow[0] = 0.4
    sampled = kernels.sample_disparity(disparity, flow)
    assert set(np.unique(sampled[:, :7]).tolist()) == {5.0, 20.0}
    flow[0, 1, 2] = np.nan
    flow[0, 2, 2] = 100
    sampled = kernels.sample_disparity(disparity, flow)
    assert np.isnan(sampled[1, 2])
    assert np.isnan(sampled[2, 2])


def test_search_cost_is_lowest_at_the_true_shift():
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, (40, 60)).astype(np.float32)
    rig = np.array([50.0, 50.0, 29.5, 19.5, 0.5])
    disparity = np.full((40, 60), 5.0, np.float32)  # 5 m away: 10 px a metre
    second = np.roll(first, 6, 1)
    ys, xs = (a.ravel().astype(np.int32) for a in np.mgrid[10:30, 10:40])
    motion = np.concatenate([np.eye(3), np.zeros((3, 1))], 1)
    shifts = np.array([[0.0, 0, 0], [0.3, 0, 0], [0.6, 0, 0], [0.9, 0, 0]])
    costs = kernels.search_costs(ys, xs, first, second, disparity, disparity, motion, rig, shifts, 1.5, 0.75)
    assert costs.argmin() == 2
    assert costs[2] == pytest.approx(0, abs=1e-6)
