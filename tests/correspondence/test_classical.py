"""Flow and disparity of the classical provider: known answers on made pairs, honesty about what it does not know."""

import cv2
import numpy as np
import pytest

from cupola.correspondence import ClassicalCorrespondence, kernels
from cupola.correspondence.classical import disparity_levels
from cupola.geometry.ego_motion import static_flow
from cupola.io import read_rgb
from cupola.types import Calibration, StereoClip, StereoFrame

CALIBRATION = Calibration(230.0, 230.0, 191.5, 95.5, 0.5)
SHAPE = (192, 384)


def texture(rng, shape=SHAPE):
    """Blobs of several sizes, 8 bit RGB."""
    image = np.zeros(shape, np.float32)
    for sigma in (1.0, 2.5, 6.0):
        layer = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), None, sigma)
        image += layer / layer.std()
    grey = np.clip(128 + 30 * image, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def seen_from(image, shift):
    """The image whose pixel x + shift shows what `image` shows at x, for a constant shift [px]."""
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image, x - np.float32(shift[0]), y - np.float32(shift[1]), cv2.INTER_CUBIC, None, cv2.BORDER_REFLECT
    )


def frame(left, right, key="a", valid=None):
    return StereoFrame(left, right, CALIBRATION, np.ones(SHAPE, bool) if valid is None else valid, key)


@pytest.fixture(scope="module")
def wall():
    """A wall at 12 px of disparity that moves by (5, 2) px in the image."""
    left = texture(np.random.default_rng(0))
    right = seen_from(left, (-12, 0))
    return StereoClip(frame(left, right, "one"), frame(seen_from(left, (5, 2)), seen_from(right, (5, 2)), "two"))


def test_wall_has_one_disparity_and_one_flow(wall):
    result = ClassicalCorrespondence()(wall)
    middle = np.s_[20:-20, 60:-60]
    assert result.disparity_valid[middle].mean() > 0.95
    assert np.nanmedian(np.abs(result.disparity[middle] - 12)) < 0.1
    assert result.flow_valid[middle].mean() > 0.95
    assert np.nanmedian(np.abs(result.flow[0][middle] - 5)) < 0.2
    assert np.nanmedian(np.abs(result.flow[1][middle] - 2)) < 0.2
    assert np.nanmedian(np.abs(result.flow_backward[0][middle] + 5)) < 0.2


def test_unknown_is_nan_and_known_is_finite(wall):
    result = ClassicalCorrespondence()(wall)
    assert np.array_equal(np.isfinite(result.disparity), result.disparity_valid)
    assert np.array_equal(np.isfinite(result.disparity_next), result.disparity_next_valid)
    assert np.array_equal(np.isfinite(result.flow).all(0), result.flow_valid)
    assert not result.flow_valid.all()


def test_left_strip_gets_disparity_where_the_right_image_shows_it(wall):
    _, valid = ClassicalCorrespondence().disparity(wall.first)
    assert valid[20:-20, 16:48].mean() > 0.9
    assert not valid[:, :8].any()


def test_pixels_that_do_not_show_the_scene_stay_unknown(wall):
    inside = np.ones(SHAPE, bool)
    inside[150:] = False
    masked = StereoClip(frame(wall.first.left, wall.first.right, "one", inside), wall.second)
    result = ClassicalCorrespondence()(masked)
    assert not result.flow_valid[150:].any()
    assert not result.disparity_valid[150:].any()


def test_noise_has_little_disparity():
    rng = np.random.default_rng(1)
    left, right = (rng.integers(0, 255, (*SHAPE, 3), np.uint8) for _ in range(2))
    _, valid = ClassicalCorrespondence().disparity(frame(left, right))
    assert valid.mean() < 0.3


def test_black_frames_raise_nothing():
    black = np.zeros((*SHAPE, 3), np.uint8)
    result = ClassicalCorrespondence()(StereoClip(frame(black, black), frame(black, black, "b")))
    assert result.disparity.shape == SHAPE


def test_repeatable_and_independent_of_threads(wall):
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            results.append(ClassicalCorrespondence()(wall))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(results[0].flow, results[1].flow, equal_nan=True)
    assert np.array_equal(results[0].disparity, results[1].disparity, equal_nan=True)


@pytest.mark.parametrize(("width", "levels"), [(1241, 128), (1226, 128), (384, 48)])
def test_search_range_follows_the_rig(width, levels):
    calibration = Calibration(0.58 * width, 0.58 * width, width / 2, 50.0, 0.537)
    assert disparity_levels(calibration, width, 3.1) == levels


def test_loop_error_equals_a_plain_loop():
    rng = np.random.default_rng(7)
    flow, back = (rng.uniform(-4, 4, (2, 9, 11)).astype(np.float32) for _ in range(2))
    error = kernels.loop_error(flow, back)
    for y in range(9):
        for x in range(11):
            px, py = x + flow[0, y, x], y + flow[1, y, x]
            if not (0 <= px <= 10 and 0 <= py <= 8):
                assert np.isinf(error[y, x])
                continue
            read = [
                cv2.remap(channel, np.float32([[px]]), np.float32([[py]]), cv2.INTER_LINEAR)[0, 0] for channel in back
            ]
            assert error[y, x] == pytest.approx(np.hypot(*(flow[:, y, x] + read)), abs=0.15)


def test_compose_of_a_static_prediction_is_exact_where_it_is_linear():
    disparity = np.full(SHAPE, 10, np.float32)
    motion = np.eye(4)
    motion[2, 3] = -0.5
    prediction, _ = static_flow(disparity, motion, CALIBRATION)
    residual = np.random.default_rng(3).uniform(-3, 3, (2, *SHAPE)).astype(np.float32)
    total = kernels.compose(residual, prediction)
    y, x = np.mgrid[5:180, 5:370]
    scale = prediction[0, 0, 1] - prediction[0, 0, 0]
    expected = residual[0][5:180, 5:370] * (1 + scale) + prediction[0][5:180, 5:370]
    assert np.allclose(total[0][5:180, 5:370], expected, atol=1e-3)
    assert y.size
    assert x.size


def test_real_pair_closes_and_matches_the_lidar(shared):
    root = shared / "data" / "kitti_odometry" / "sequences" / "04"

    frames = []
    for number in (0, 1):
        left, right = (read_rgb(root / f"image_{camera}" / f"{number:06d}.png") for camera in (2, 3))
        rig = Calibration(707.0912, 707.0912, 601.8873, 183.1104, 0.5379)
        frames.append(StereoFrame(left, right, rig, np.ones(left.shape[:2], bool), f"04_{number:06d}"))
    result = ClassicalCorrespondence()(StereoClip(*frames))
    points = np.load(root / "labels_image_2" / "000000.npz")
    row, column = points["row"].astype(int), points["col"].astype(int)
    known = result.disparity_valid[row, column]
    error = np.abs(result.disparity[row, column] - 707.0912 * 0.5379 / points["depth"])[known]
    assert known.mean() > 0.9
    assert np.median(error) < 0.5
    assert (error > 3).mean() < 0.04
    assert result.flow_valid.mean() > 0.6
