"""Each compiled loop against its slow, obvious twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.semantics import kernels
from cupola.semantics.superpixels import COMPACTNESS, Superpixels, slic


def _segments(line, window, tolerance, slope):
    """Index of the segment of each value, read from the front."""
    numbers, members = [0], [float(line[0])]
    for value in line[1:]:
        mean = np.mean(members[-window:])
        if abs(value - mean) >= max(tolerance, slope * value):
            numbers.append(numbers[-1] + 1)
            members = []
        else:
            numbers.append(numbers[-1])
        members.append(float(value))
    return np.array(numbers)


def _steps(seed, rows, columns):
    """Disparity in steps with noise; quarters, so that sums in any order are exact."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 3, (rows, columns)) * 4 + rng.integers(0, 3, (rows, columns)) / 4 + 1
    return np.repeat(np.repeat(steps, 3, 0), 2, 1)[:rows, :columns].astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 20), st.sampled_from([1, 2, 4]))
def test_stixels_and_runs(seed, rows, columns, window):
    disparity = _steps(seed, rows, columns)
    height = np.random.default_rng(seed + 1).normal(size=(rows, columns)).astype(np.float32)
    tops = kernels.stixel_tops(disparity, height, window, 0.7, 0.04)
    runs = kernels.row_runs(disparity, window, 0.7, 0.04)
    for x in range(columns):
        numbers = _segments(disparity[::-1, x], window, 0.7, 0.04)[::-1]
        expected = [height[numbers == number, x].max() for number in numbers]
        assert np.array_equal(tops[:, x], np.array(expected, np.float32))
    for y in range(rows):
        numbers = _segments(disparity[y], window, 0.7, 0.04)
        assert np.array_equal(runs[y], [(numbers == number).sum() for number in numbers])


def test_assignment_takes_the_best_of_the_seeds_around():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 3, (4, 31, 47)).astype(np.float32)
    tops, lefts = np.array([0, 10, 20, 31]), np.array([0, 12, 24, 36, 47])
    centres = rng.normal(0, 3, (12, 6)).astype(np.float32)
    centres[:, 4], centres[:, 5] = rng.uniform(0, 31, 12), rng.uniform(0, 47, 12)
    labels = np.zeros((31, 47), np.int32)
    kernels.assign_superpixels(features, centres, tops, lefts, np.float32(0.2), labels)
    for y in range(31):
        for x in range(47):
            cell_y, cell_x = np.searchsorted(tops, y, "right") - 1, np.searchsorted(lefts, x, "right") - 1
            costs = {}
            for gy in range(max(0, cell_y - 1), min(3, cell_y + 2)):
                for gx in range(max(0, cell_x - 1), min(4, cell_x + 2)):
                    k = gy * 4 + gx
                    apart = ((features[:, y, x] - centres[k, :4]) ** 2).sum()
                    costs[k] = apart + 0.2 * ((y - centres[k, 4]) ** 2 + (x - centres[k, 5]) ** 2)
            assert costs[labels[y, x]] <= min(costs.values()) + 1e-3


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (90, 5), (64, 96)])
def test_superpixels_are_numbered_within_their_count(size):
    features = np.random.default_rng(1).normal(0, 1, (4, *size)).astype(np.float32)
    superpixels = slic(features, 1.0)
    assert superpixels.labels.min() >= 0
    assert superpixels.labels.max() < superpixels.count
    assert superpixels.count == max(1, round(size[0] / 18)) * max(1, round(size[1] / 18))


def test_superpixels_follow_an_edge():
    features = np.zeros((4, 54, 54), np.float32)
    features[0, :, 22:] = 20 * COMPACTNESS
    labels = slic(features, 1.0).labels
    assert not set(np.unique(labels[:, :22])) & set(np.unique(labels[:, 22:]))


def test_means_and_neighbours():
    labels = np.array([[0, 0, 1], [0, 2, 1]], np.int32)
    channels = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    use = np.array([[True, True, True], [False, True, False]])
    means, pixels = Superpixels(labels, 4).means(channels, use)
    assert np.array_equal(pixels, [2, 1, 1, 0])
    assert np.array_equal(means, [[0.5, 6.5], [2, 8], [4, 10], [0, 0]])
    assert np.array_equal(Superpixels(labels, 4).neighbours(), [[0, 1], [0, 2], [1, 2]])


def test_a_seed_without_pixels_stays():
    features = np.ones((4, 2, 2), np.float32)
    centres = np.array([[0, 0, 0, 0, 0, 0], [5, 5, 5, 5, 9, 9]], np.float32)
    kernels.move_centres(features, np.zeros((2, 2), np.int32), centres)
    assert np.array_equal(centres, np.array([[1, 1, 1, 1, 0.5, 0.5], [5, 5, 5, 5, 9, 9]], np.float32))


def test_lowering_distances():
    rng = np.random.default_rng(2)
    points, distance = rng.normal(size=(50, 3)), rng.uniform(0, 4, 50)
    expected = np.minimum(distance, ((points - points[7]) ** 2).sum(1))
    kernels.lower_to_distance(points, points[7], distance)
    assert np.allclose(distance, expected, rtol=1e-12)
