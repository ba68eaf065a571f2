"""Positions, pairs and views: against brute force, and what they must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.semantics.learning.pairing import derangement, nearest_views, views_of_step
from cupola.semantics.learning.positions import (
    far_positions,
    farthest_points,
    random_positions,
    read_bilinear,
    read_nearest,
)
from cupola.semantics.learning.views import five_squares, view_image, view_points
from cupola.types import Calibration, StereoFrame

SEEDS = st.integers(0, 10_000)


def brute_force_farthest(points, known, count, start):
    chosen = [start]
    while len(chosen) < min(count, known.sum()):
        distance = {
            i: min(float(((points[i] - points[j]) ** 2).sum()) for j in chosen)
            for i in range(len(points))
            if known[i] and i not in chosen
        }
        chosen.append(max(distance, key=lambda i: (distance[i], -i)))
    return chosen


@given(SEEDS, st.integers(1, 14), st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_farthest_points_equal_brute_force(seed, count, size):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(size, 3)).astype(np.float32)
    known = rng.random(size) < 0.8
    start = int(rng.integers(size))
    known[start] = True
    points[~known] = np.nan
    found = farthest_points(points, known, count, start)
    assert found.tolist() == brute_force_farthest(points, known, count, start)


@given(SEEDS, st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_farthest_points_do_not_depend_on_the_order_of_points(seed, count):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(15, 3)).astype(np.float32)
    known = np.ones(15, bool)
    order = rng.permutation(15)
    start = int(rng.integers(15))
    found = farthest_points(points, known, count, start)
    permuted = farthest_points(points[order], known, count, int(np.flatnonzero(order == start)[0]))
    assert order[permuted].tolist() == found.tolist()


def test_farthest_points_measure_in_metres():
    """A row of points 1 m apart and one 30 m behind: that is chosen second, whatever the pixels say."""
    points = np.array([[x, 0, 5] for x in range(6)] + [[0, 0, 35]], np.float32)
    assert farthest_points(points, np.ones(7, bool), 3, 0).tolist() == [0, 6, 5]
    with pytest.raises(ValueError, match="point 1 is not known"):
        farthest_points(points, np.arange(7) != 1, 3, 1)


def test_far_positions_are_rows_and_columns_of_the_grid():
    """Near everywhere, but far in row 2, column 5: a transposed grid (defect S50) would look at row 5, column 2."""
    points = np.full((3, 4, 7), 5, np.float32)
    points[2, 2, 5] = 60
    for seed in range(10):
        found = far_positions(points, 2, np.random.default_rng(seed)).tolist()
        assert [2, 5] in found
    starts = {tuple(far_positions(points, 1, np.random.default_rng(seed))[0]) for seed in range(30)}
    assert len(starts) > 5  # a random start


@given(SEEDS, st.floats(0, 1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_far_positions_give_unknown_cells_their_share(seed, share, count):
    rng = np.random.default_rng(seed)
    points = rng.uniform(1, 50, (3, 5, 6)).astype(np.float32)
    unknown = rng.random((5, 6)) < share
    points[:, unknown] = np.nan
    found = far_positions(points, count, rng)
    assert found.shape == (count, 2)
    assert (found >= 0).all()
    assert (found <= (4, 5)).all()
    if count <= 30:
        cells = found.astype(int)
        assert (cells == found).all()
        assert len({tuple(cell) for cell in cells}) == count
        assert unknown[tuple(cells.T)].sum() == count - round(count * float((~unknown).mean()))


@given(SEEDS, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_bilinear_reading_equals_the_sum_over_cells(seed, rows, columns):
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(rows, columns, 3)).astype(np.float32)
    positions = random_positions(rows, columns, 6, rng)
    assert (positions >= 0).all()
    assert (positions <= (rows - 1, columns - 1)).all()
    found = read_bilinear(grid, positions)
    for at, value in zip(positions, found, strict=True):
        weight = np.maximum(0, 1 - abs(np.arange(rows) - at[0]))[:, None] * np.maximum(
            0, 1 - abs(np.arange(columns) - at[1])
        )
        np.testing.assert_allclose(value, (weight[..., None] * grid).sum((0, 1)), atol=1e-4)


def test_cells_are_read_as_they_are():
    grid = np.arange(12, dtype=np.float16).reshape(3, 4, 1)
    cells = np.array([[r, c] for r in range(3) for c in range(4)], np.float32)
    assert read_bilinear(grid, cells)[:, 0].tolist() == list(range(12))
    assert read_nearest(grid[..., 0], cells + np.float32(0.3)).tolist() == list(range(12))


@given(st.integers(2, 40), SEEDS)
@settings(max_examples=60, deadline=None)
def test_derangements_leave_nothing_in_its_place(size, seed):
    order = derangement(size, np.random.default_rng(seed))
    assert sorted(order) == list(range(size))
    assert (order != np.arange(size)).all()


def test_all_derangements_of_four_occur_equally_often():
    rng = np.random.default_rng(0)
    _, counts = np.unique([derangement(4, rng) for _ in range(1800)], axis=0, return_counts=True)
    assert len(counts) == 9
    assert counts.min() > 140
    with pytest.raises(ValueError, match="no permutation of 1"):
        derangement(1, rng)


@given(SEEDS, st.integers(2, 6), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_neighbours_equal_brute_force_and_are_of_other_images(seed, images, views):
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(images * views, 5)).astype(np.float32)
    source = np.repeat(np.arange(images), views)
    count = int(rng.integers(1, (images - 1) * views + 1))
    found = nearest_views(descriptors, source, count)
    assert (source[found] != source[:, None]).all()
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    for view, near in enumerate(found):
        others = np.flatnonzero(source != source[view])
        best = np.sort(unit[others] @ unit[view])[::-1][:count]
        np.testing.assert_allclose(unit[near] @ unit[view], best, atol=1e-5)
        assert len(set(near)) == count


def test_neighbours_across_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    descriptors, source = rng.normal(size=(50, 4)).astype(np.float32), np.arange(50) // 5
    whole = nearest_views(descriptors, source, 7)
    monkeypatch.setattr("cupola.semantics.learning.pairing.BLOCK", 7)
    assert (nearest_views(descriptors, source, 7) == whole).all()
    with pytest.raises(ValueError, match="only 45 views of other sources, but 46"):
        nearest_views(descriptors, source, 46)


@given(st.integers(1, 30), st.integers(1, 12), SEEDS)
@settings(max_examples=40, deadline=None)
def test_each_epoch_shows_every_view_once(views, size, seed):
    steps = -(-2 * views // size)
    shown = np.concatenate([views_of_step(views, size, step, seed) for step in range(steps)])
    for epoch in range(2):
        assert sorted(shown[epoch * views : (epoch + 1) * views]) == list(range(views))


@pytest.mark.parametrize(("height", "width"), [(192, 384), (375, 1242), (300, 200), (7, 9)])
def test_five_squares_lie_in_the_corners_and_the_centre(height, width):
    squares = five_squares(height, width)
    assert len(squares) == 5
    for square in squares:
        assert square.side == min(height // 2, width // 2)
        assert 0 <= square.top <= height - square.side
        assert 0 <= square.left <= width - square.side
    ups, lefts = {s.top < height / 2 - s.side / 2 for s in squares[:4]}, {s.left for s in squares[:4]}
    assert len(lefts) == 2
    assert ups == {True, False}
    assert abs(squares[4].left + squares[4].side / 2 - width / 2) <= 1


def frame_of(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    calibration = Calibration(100.0, 110.0, (width - 1) / 2, (height - 1) / 2, 0.5)
    return StereoFrame(image, image, calibration, np.ones((height, width), bool), "0000_000000")


def test_a_view_is_the_mean_over_its_pixels_where_it_shrinks():
    frame = frame_of(32, 64)
    square = five_squares(32, 64)[3]
    small = view_image(frame.left, square, 4)
    part = frame.left[square.top :, square.left :][: square.side, : square.side]
    expected = part.reshape(4, 4, 4, 4, 3).mean((1, 3))
    assert np.abs(small.astype(float) - expected).max() <= 0.51


@pytest.mark.parametrize("cells", [4, 16, 24])
def test_points_of_cells_are_those_of_a_plane(cells):
    """A wall at 5 m: each cell's point lies on the ray through the middle of the cell."""
    frame = frame_of(32, 64)
    disparity = np.full((32, 64), 100 * 0.5 / 5, np.float32)
    for square in five_squares(32, 64):
        points = view_points(frame, disparity, frame.valid, square, cells)
        middle = (np.arange(cells) + 0.5) * square.side / cells - 0.5
        x = (square.left + middle - frame.calibration.cx) / 100 * 5
        y = (square.top + middle - frame.calibration.cy) / 110 * 5
        np.testing.assert_allclose(points[2], 5, rtol=1e-5)
        np.testing.assert_allclose(points[0], np.broadcast_to(x, (cells, cells)), atol=1e-4)
        np.testing.assert_allclose(points[1], np.broadcast_to(y[:, None], (cells, cells)), atol=1e-4)


def test_a_cells_depth_is_never_a_mean_across_an_edge_and_unknown_stays_unknown():
    frame = frame_of(32, 32)
    disparity = np.where(np.arange(32) < 11, 20, 2).astype(np.float32) * np.ones((32, 1), np.float32)
    valid = np.ones((32, 32), bool)
    valid[:, 4:8] = False
    disparity[:, 4:8] = np.nan
    square = five_squares(32, 32)[0]
    depth = view_points(frame, disparity, valid, square, 4)[2]
    near, far = 100 * 0.5 / 20, 100 * 0.5 / 2
    np.testing.assert_allclose(depth, np.tile([near, np.nan, near, far], (4, 1)), rtol=1e-5)
