"""Moving objects in an exact world, in noise, with unknowns, and on real frames."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cupola.correspondence import ClassicalCorrespondence
from cupola.io import read_rgb
from cupola.motion import EgoMotionSegmenter
from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

SEGMENT = EgoMotionSegmenter()


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_static_world_with_exact_flow_holds_no_object(world, box):
    parked = (box(-4, 1.8, 1.5, 12), box(2.5, 1.8, 1.5, 9), box(3, 0.5, 1.7, 14))
    for seed in range(3):
        still = world(parked, noise=0.0 if seed == 0 else 0.2, seed=seed)
        assert len(SEGMENT(still.clip, still.correspondence, 0)) == 0


@pytest.mark.parametrize("motion", [(0.3, 0.0), (0.0, 0.8), (-0.4, -0.5)])
def test_moving_box_is_found_and_the_parked_one_is_not(world, box, motion):
    scene = world((box(-1, 1.8, 1.5, 12, motion), box(3, 1.8, 1.5, 12)), seed=3)
    found = SEGMENT(scene.clip, scene.correspondence, 0)
    assert len(found) == 1
    assert iou(found.masks[0], scene.masks[0]) > 0.7
    assert 0 < found.scores[0] <= 1


def test_motion_of_a_box_is_measured(world, box):
    scene = world((box(-1, 1.8, 1.5, 12, (0.3, 0.5)),), forward=0.8, noise=0.1, seed=2)
    found = SEGMENT(scene.clip, scene.correspondence, 0)
    assert np.allclose(found.motions[0][:3, 3], (0.3, 0.0, 0.5 - 0.8), atol=0.08)


def test_two_boxes_that_move_apart_are_two_objects(world, box):
    scene = world((box(-2.6, 1.8, 1.5, 12, (-0.3, 0)), box(0.6, 1.8, 1.5, 12, (0.3, 0))), seed=5)
    found = SEGMENT(scene.clip, scene.correspondence, 0)
    assert len(found) == 2
    best = [max(iou(mask, truth) for mask in found.masks) for truth in scene.masks]
    assert min(best) > 0.6


def test_masks_do_not_overlap(world, box):
    scene = world((box(-2.0, 1.8, 1.5, 12, (-0.3, 0)), box(-0.2, 1.8, 1.5, 10, (0.3, 0))), seed=6)
    found = SEGMENT(scene.clip, scene.correspondence, 0)
    assert found.masks.sum(0).max() <= 1


def test_standing_camera_sees_what_moves(world, box):
    scene = world((box(-1, 1.8, 1.5, 10, (0.3, 0.0)), box(3, 1.8, 1.5, 12)), forward=0.0, seed=4)
    found = SEGMENT(scene.clip, scene.correspondence, 0)
    assert len(found) == 1
    assert iou(found.masks[0], scene.masks[0]) > 0.7


def test_outcome_does_not_depend_on_the_seed(world, box):
    scene = world((box(-1, 1.8, 1.5, 12, (0.3, 0.0)), box(3, 1.8, 1.5, 12)), seed=7)
    one, other = (SEGMENT(scene.clip, scene.correspondence, seed) for seed in (0, 1))
    assert len(one) == len(other) == 1
    assert iou(one.masks[0], other.masks[0]) > 0.95


def test_same_seed_gives_the_same_bits_with_any_number_of_threads(world, box):
    scene = world((box(-1, 1.8, 1.5, 12, (0.3, 0.0)),), seed=8)
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            results.append(SEGMENT(scene.clip, scene.correspondence, 0))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(results[0].masks, results[1].masks)
    assert np.array_equal(results[0].scores, results[1].scores)
    assert np.array_equal(results[0].motions, results[1].motions)


PRINT_HASH = """
import sys, hashlib
sys.path.insert(0, {tests!r})
from conftest import Box, make_world
from cupola.motion import EgoMotionSegmenter
scene = make_world((Box(-1.0, 1.8, 1.5, 12.0, (0.3, 0.0)),), seed=8)
found = EgoMotionSegmenter()(scene.clip, scene.correspondence, 0)
print(len(found), hashlib.sha256(found.masks.tobytes() + found.motions.tobytes()).hexdigest())
"""


def test_library_threads_do_not_change_the_bits(world, box):
    """This process has as many threads as the machine has cores (or as the caller allows); the other has one."""
    scene = world((box(-1.0, 1.8, 1.5, 12.0, (0.3, 0.0)),), seed=8)
    here = SEGMENT(scene.clip, scene.correspondence, 0)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    script = PRINT_HASH.format(tests=str(Path(__file__).parent))
    alone = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | dict.fromkeys(names, "1"), check=True, capture_output=True
    )
    digest = hashlib.sha256(here.masks.tobytes() + here.motions.tobytes()).hexdigest()
    assert alone.stdout.decode().split() == ["1", digest]


def unknown(correspondence, **changes):
    return Correspondence(**(vars(correspondence) | changes))


def test_fully_unknown_flow_gives_no_object(world, box):
    scene = world((box(-1, 1.8, 1.5, 12, (0.3, 0.0)),))
    nothing = np.full((2, *scene.clip.first.size), np.nan, np.float32)
    nowhere = np.zeros(scene.clip.first.size, bool)
    blind = unknown(scene.correspondence, flow=nothing, flow_backward=nothing.copy(), flow_valid=nowhere)
    assert len(SEGMENT(scene.clip, blind, 0)) == 0


def test_fully_unknown_disparity_gives_no_object(world, box):
    scene = world((box(-1, 1.8, 1.5, 12, (0.3, 0.0)),))
    nothing = np.full(scene.clip.first.size, np.nan, np.float32)
    nowhere = np.zeros(scene.clip.first.size, bool)
    blind = unknown(
        scene.correspondence,
        disparity=nothing,
        disparity_next=nothing.copy(),
        disparity_valid=nowhere,
        disparity_next_valid=nowhere.copy(),
    )
    assert len(SEGMENT(scene.clip, blind, 0)) == 0


def test_unknown_next_disparity_leaves_sideways_motion(world, box):
    scene = world((box(-1, 1.8, 1.5, 12, (0.3, 0.0)),), seed=9)
    nothing = np.full(scene.clip.first.size, np.nan, np.float32)
    partly = unknown(scene.correspondence, disparity_next=nothing, disparity_next_valid=np.zeros(nothing.shape, bool))
    found = SEGMENT(scene.clip, partly, 0)
    assert len(found) == 1
    assert iou(found.masks[0], scene.masks[0]) > 0.6


def test_half_of_the_pixels_unknown_still_finds_the_box(world, box):
    scene = world((box(-1, 1.8, 1.5, 10, (0.3, 0.0)),), seed=10)
    known = np.random.default_rng(0).random(scene.clip.first.size) < 0.5
    flow = np.where(known, scene.correspondence.flow, np.float32(np.nan))
    thin = unknown(scene.correspondence, flow=flow, flow_valid=known & scene.correspondence.flow_valid)
    found = SEGMENT(scene.clip, thin, 0)
    assert len(found) == 1
    assert iou(found.masks[0], scene.masks[0]) > 0.6


def test_flow_of_nonsense_gives_no_object(world):
    scene = world(())
    rng = np.random.default_rng(0)
    flow = rng.uniform(-30, 30, scene.correspondence.flow.shape).astype(np.float32)
    valid = np.ones(scene.clip.first.size, bool)
    assert len(SEGMENT(scene.clip, unknown(scene.correspondence, flow=flow, flow_valid=valid), 0)) == 0


KITTI_RIG = {
    "04": Calibration(707.0912, 707.0912, 601.8873, 183.1104, 0.5379),
    "06": Calibration(707.0912, 707.0912, 601.8873, 183.1104, 0.5379),
}


def kitti_clip(shared, sequence, number):
    root = shared / "data" / "kitti_odometry" / "sequences" / sequence
    frames = []
    for n in (number, number + 1):
        left, right = (read_rgb(root / f"image_{camera}" / f"{n:06d}.png") for camera in (2, 3))
        known = np.ones(left.shape[:2], bool)
        frames.append(StereoFrame(left, right, KITTI_RIG[sequence], known, f"{sequence}_{n:06d}"))
    return root, StereoClip(*frames)


def test_real_street_shows_the_van_and_the_oncoming_car(shared):
    root, clip = kitti_clip(shared, "04", 2)
    found = SEGMENT(clip, ClassicalCorrespondence()(clip), 0)
    points = np.load(root / "labels_image_2" / "000002.npz")
    row, column = points["row"].astype(int), points["col"].astype(int)
    for instance in (1, 2):
        mine = (points["label"] == 252) & (points["instance"] == instance)
        assert max(iou(mask[row, column], mine) for mask in found.masks) > 0.5
    moving = points["label"] >= 252
    for mask in found.masks:
        inside = mask[row, column]
        assert inside.sum() < 10 or moving[inside].mean() > 0.5


def test_real_street_with_parked_cars_only_holds_no_object(shared):
    _, clip = kitti_clip(shared, "06", 0)
    assert len(SEGMENT(clip, ClassicalCorrespondence()(clip), 0)) == 0
