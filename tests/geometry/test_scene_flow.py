import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.geometry import se3
from cupola.geometry.camera import points_from_disparity, project
from cupola.geometry.consistency import consistent_disparity, consistent_flow
from cupola.geometry.edges import disparity_edges
from cupola.geometry.noise import noise_scale
from cupola.geometry.scene_flow import compute_scene_flow, low_grid
from cupola.geometry.warping import pixel_grid
from cupola.types import Calibration, Correspondence

CALIBRATION = Calibration(fx=200.0, fy=200.0, cx=31.5, cy=23.5, baseline=0.5)
HEIGHT, WIDTH = 48, 64


@given(st.integers(-5, 5), st.integers(-4, 4))
@settings(deadline=None)
def test_a_perfect_pair_is_consistent_wherever_it_stays_inside(dx, dy):
    forward = np.broadcast_to(np.array([dx, dy], np.float32)[:, None, None], (2, HEIGHT, WIDTH)).copy()
    x, y = pixel_grid(HEIGHT, WIDTH)
    stays = (x + dx >= 0) & (x + dx < WIDTH) & (y + dy >= 0) & (y + dy < HEIGHT)
    np.testing.assert_array_equal(consistent_flow(forward, -forward), stays)


def test_what_the_right_camera_does_not_see_is_inconsistent():
    left, right = np.full((8, 40), 4, np.float32), np.full((8, 40), 4, np.float32)
    left[:, 20:30], right[:, 10:20] = 10, 10  # a near object; the ground at columns 14..19 of the left image is hidden
    expected = np.ones((8, 40), bool)
    expected[:, :4], expected[:, 14:20] = False, False
    np.testing.assert_array_equal(consistent_disparity(left, right), expected)


def moving_wall(depth, twist):
    """A wall at `depth` [m] seen by a camera that moves: exact fields of a plane under a rigid motion."""
    motion = se3.exp(np.array(twist, np.float64))
    disparity = np.full((HEIGHT, WIDTH), CALIBRATION.fx * CALIBRATION.baseline / depth, np.float32)
    points = points_from_disparity(disparity, CALIBRATION).astype(np.float64)
    x, y, disparity_there = project(se3.transform(motion, points), CALIBRATION)
    grid = pixel_grid(HEIGHT, WIDTH)
    flow = np.stack([x - grid[0], y - grid[1]]).astype(np.float32)
    return disparity, flow, disparity_there


def test_scene_flow_of_a_pure_approach_is_the_approach():
    disparity, flow, there = moving_wall(20.0, [0, 0, 0, 0, 0, -1.0])
    known = np.ones((HEIGHT, WIDTH), bool)
    correspondence = Correspondence(flow, -flow, disparity, there.astype(np.float32), known, known, known)
    scene = compute_scene_flow(correspondence, CALIBRATION, known)
    inside = np.isfinite(scene.points_next[2])
    np.testing.assert_allclose(scene.flow[2][inside], -1, atol=1e-4)
    # The nearest pixel is up to half a pixel beside the target: that is the error across, in metres at 19 m.
    assert np.abs(scene.flow[:2][:, inside]).max() < 0.5 * 19 / 200 + 1e-4
    np.testing.assert_array_equal(scene.known_next, inside)
    assert scene.known.all()


def test_depths_out_of_range_and_invalid_pixels_are_not_known():
    disparity, flow, there = moving_wall(80.0, [0, 0, 0, 0, 0, 0])
    known = np.ones((HEIGHT, WIDTH), bool)
    correspondence = Correspondence(flow, -flow, disparity, there.astype(np.float32), known, known, known)
    assert not compute_scene_flow(correspondence, CALIBRATION, known).known.any()
    disparity, flow, there = moving_wall(20.0, [0, 0, 0, 0, 0, 0])
    correspondence = Correspondence(flow, -flow, disparity, there.astype(np.float32), known, known, known)
    valid = known.copy()
    valid[:5] = False
    np.testing.assert_array_equal(compute_scene_flow(correspondence, CALIBRATION, valid).known, valid)


def test_edges_are_at_the_step_and_nowhere_on_a_smooth_road():
    _, y = pixel_grid(60, 80)
    assert not disparity_edges((20 + 0.2 * y).astype(np.float32)).any()
    step = np.full((60, 80), 5, np.float32)
    step[:, 40:] = 20
    columns = np.flatnonzero(disparity_edges(step).any(0))
    assert len(columns) == 5
    assert columns[0] in (37, 38)


def test_noise_scale_sees_through_the_truncation_and_keeps_its_bounds():
    rng = np.random.default_rng(0)
    valid = np.ones((200, 300), bool)
    for sigma, expected in ((0.5, 2.0), (5.0, 5.0 / np.sqrt(2)), (60.0, 10.0)):
        deviation = (sigma * rng.normal(size=(1, 200, 300))).astype(np.float32)
        np.testing.assert_allclose(noise_scale(deviation, valid), [expected], rtol=0.05)
    assert noise_scale(np.full((1, 200, 300), np.nan, np.float32), valid)[0] == 2.0


@given(st.integers(20, 2000), st.sampled_from([0.06, 0.25, 1.0]))
@settings(deadline=None)
def test_low_grid_is_even_and_inside(size, factor):
    cells = low_grid(size, factor)
    assert len(cells) == int(factor * size)
    assert cells.min() >= 0
    assert cells.max() < size
    np.testing.assert_allclose(cells, (np.arange(len(cells)) + 0.5) * size / len(cells) - 0.5, atol=0.5 + 1e-9)
