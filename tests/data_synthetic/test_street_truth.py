"""The truth of a rendered street agrees with its images and with rigid motion."""

import cv2
import numpy as np
import pytest

from cupola.data.synthetic import StreetSettings, street
from cupola.data.synthetic.raster.kernels import camera_rotation
from cupola.data.synthetic.scene import make_scene

HEIGHT, WIDTH = 120, 240
QUIET = StreetSettings(noise=0.0)


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def clip(request):
    """Two frames without sensor noise, their truth, and the scene."""
    frames = list(street(11, request.param, 2, HEIGHT, WIDTH, QUIET))
    return frames, make_scene(11, request.param, 2, QUIET)


def _grid():
    return np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))


def _seen_in_both(near, x, y):
    """Pixels whose target (x, y) no nearer surface also claims; near: 1/depth."""
    inside = np.isfinite(x) & (x >= 0) & (x <= WIDTH - 1) & (y >= 0) & (y <= HEIGHT - 1)
    column, row = np.rint(np.where(inside, x, 0)).astype(int), np.rint(np.where(inside, y, 0)).astype(int)
    nearest = np.zeros((HEIGHT + 2, WIDTH + 2))
    for dy in range(3):
        for dx in range(3):
            np.maximum.at(nearest, (row[inside] + dy, column[inside] + dx), near[inside])
    return inside & (near >= 0.97 * nearest[row + 1, column + 1])


def _difference(image, other, x, y):
    warped = cv2.remap(other, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    return np.abs(image.astype(float) - warped).mean(-1)


def test_right_image_warped_by_the_disparity_is_the_left_image(clip):
    (frame, truth), _ = clip[0]
    x, y = _grid()
    visible = _seen_in_both(truth.disparity, x - truth.disparity, y) & (truth.disparity > 0)
    right = _difference(frame.left, frame.right, x - truth.disparity, y)[visible]
    wrong = _difference(frame.left, frame.right, x - truth.disparity - 2, y)[visible]
    assert visible.mean() > 0.4
    assert np.median(right) < 2.5
    assert np.mean(right) < 0.6 * np.mean(wrong)


def test_next_image_warped_by_the_flow_is_the_first(clip):
    (frame, truth), (following, _) = clip[0]
    x, y = _grid()
    u, v = truth.flow
    visible = _seen_in_both(1 / truth.depth, x + u, y + v)
    right = _difference(frame.left, following.left, np.nan_to_num(x + u), np.nan_to_num(y + v))[visible]
    wrong = _difference(frame.left, following.left, np.nan_to_num(x + u + 2), np.nan_to_num(y + v + 2))[visible]
    assert visible.mean() > 0.4
    assert np.median(right) < 2.5
    assert np.mean(right) < 0.6 * np.mean(wrong)


def _through_the_cameras(truth, scene):
    """Flow of the visible points if all of them stood still, from the depth and the two cameras."""
    first, second = scene.camera(0, HEIGHT, WIDTH), scene.camera(1, HEIGHT, WIDTH)
    rig = scene.settings.calibration(HEIGHT, WIDTH)
    x, y = _grid()
    rays = np.stack([(x - rig.cx) / rig.fx, (y - rig.cy) / rig.fy, np.ones_like(x)], -1).astype(np.float64)
    depth = np.where(np.isfinite(truth.depth), truth.depth, 1e9)[..., None]
    points = (rays * depth) @ camera_rotation(first) + first[:3]
    there = (points - second[:3]) @ camera_rotation(second).T
    return np.stack(
        [rig.fx * there[..., 0] / there[..., 2] + rig.cx - x, rig.fy * there[..., 1] / there[..., 2] + rig.cy - y]
    )


def test_what_stands_moves_by_the_camera_alone(clip):
    frames, scene = clip
    truth = frames[0][1]
    error = np.abs(truth.flow - _through_the_cameras(truth, scene)).max(0)
    standing = ~truth.moving_mask & np.isfinite(error)
    assert np.nanmax(np.where(truth.depth < 3, 0, error)[standing]) < 0.02
    if truth.moving_mask.sum() > 200:
        assert np.median(error[truth.moving_mask]) > 0.05


def test_disparity_is_focal_times_baseline_over_depth(clip):
    (frame, truth), _ = clip[0]
    sky = truth.classes == 23
    expected = frame.calibration.fx * frame.calibration.baseline / truth.depth[~sky]
    np.testing.assert_allclose(truth.disparity[~sky], expected, rtol=1e-5)
    assert (truth.disparity[sky] == 0).all()
    assert np.isinf(truth.depth[sky]).all()


def test_ids_say_their_class_and_things_have_one_each(clip):
    truth = clip[0][0][1]
    things = np.isin(truth.classes, [24, 25, 26, 33])
    assert things.any()
    np.testing.assert_array_equal(truth.instances[things] // 1000, truth.classes[things])
    assert (truth.instances[~things] == 0).all()
    np.testing.assert_array_equal(truth.instance_ids()[~things], truth.classes[~things])


def test_moving_flags_are_the_shifts_of_the_world(clip):
    frames, scene = clip
    truth = frames[0][1]
    shift = np.linalg.norm(scene.poses(1)[:, :3] - scene.poses(0)[:, :3], axis=1)
    by_id = dict(zip(scene.identity().tolist(), shift, strict=True))
    visible = set(np.unique(truth.instances).tolist()) - {0}
    assert truth.moving <= visible
    for identity in visible:
        assert (identity in truth.moving) == (by_id[identity] >= scene.settings.moving_shift)


def test_a_street_holds_what_a_pipeline_must_learn():
    """Over some scenes: all classes of a street, standing and moving cars and people."""
    classes, standing, moving = set(), [], []
    for sequence in range(6):
        _, truth = next(iter(street(5, sequence, 1, HEIGHT, WIDTH, QUIET)))
        classes |= set(np.unique(truth.classes).tolist())
        visible = {int(i) for i, n in zip(*np.unique(truth.instances, return_counts=True), strict=True) if n >= 30}
        moving += [i // 1000 for i in visible & truth.moving]
        standing += [i // 1000 for i in visible - truth.moving - {0}]
    assert {7, 8, 11, 17, 20, 21, 23, 24, 26} <= classes
    assert {24, 26} <= set(standing)
    assert {24, 26} <= set(moving)
