"""SF2SE3 in an exact world and in noise, its steps against slow twins, and its edges."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components_of
from scipy.stats import norm

from cupola.config import plain
from cupola.geometry import se3
from cupola.motion import MotionSegmenter, PublishedSf2se3Segmenter, Sf2se3Segmenter
from cupola.motion.sf2se3 import kernels
from cupola.motion.sf2se3.consensus import joint_consensus, motion_consensus
from cupola.motion.sf2se3.ensemble import consistency, matrix_nms, shared_pixels
from cupola.motion.sf2se3.fitting import refit
from cupola.motion.sf2se3.labelling import label_pixels, moving_objects, separate
from cupola.motion.sf2se3.masks import fill_all_but_largest, fill_holes, finish, surface_area
from cupola.motion.sf2se3.observation import observe
from cupola.motion.sf2se3.proposals import draw_clusters, propose
from cupola.motion.sf2se3.selection import select, split
from cupola.motion.sf2se3.settings import Sf2se3Settings
from cupola.motion.sf2se3.single_run import find_objects
from cupola.types import Correspondence, StereoClip, StereoFrame

SMALL = {"downscale": 0.2}
"""Cells for the 160 x 320 pixels of the test world."""

PAPER, PUBLISHED = Sf2se3Segmenter(**SMALL), Sf2se3Segmenter(form="published", **SMALL)
SINGLE = Sf2se3Segmenter(runs=1, iterations=10, **SMALL)
SIDEWAYS = (0.5, 0.0)


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


@pytest.fixture(scope="module")
def scene(world, box):
    return world((box(-1, 2.4, 2.0, 10, SIDEWAYS), box(3, 1.8, 1.5, 12)), seed=3, noise=0.0)


@pytest.fixture(scope="module")
def seen(scene):
    return observe(scene.clip, scene.correspondence, PAPER)


@pytest.mark.parametrize("segmenter", [PAPER, PUBLISHED, SINGLE])
def test_the_moving_box_is_found_with_its_motion_and_the_parked_one_is_not(scene, segmenter):
    assert isinstance(segmenter, MotionSegmenter)
    found = segmenter(scene.clip, scene.correspondence, 0)
    assert len(found) == 1
    assert iou(found.masks[0], scene.masks[0]) > 0.75
    assert 0.6 <= found.scores[0] <= 1
    centre = np.array([0.2, 0.6, 10.0])
    moved = se3.transform(found.motions[0], centre[:, None])[:, 0] - centre
    np.testing.assert_allclose(moved, (SIDEWAYS[0], 0, SIDEWAYS[1] - 0.8), atol=0.05)


@pytest.mark.parametrize("segmenter", [PAPER, PUBLISHED])
def test_a_still_world_holds_no_object(world, box, segmenter):
    still = world((box(-4, 1.8, 1.5, 12), box(2.5, 1.8, 1.5, 9)), noise=0.0)
    assert len(segmenter(still.clip, still.correspondence, 0)) == 0


def test_the_seed_decides(scene):
    again = [PAPER(scene.clip, scene.correspondence, 4) for _ in range(2)]
    np.testing.assert_array_equal(again[0].masks, again[1].masks)
    np.testing.assert_array_equal(again[0].motions, again[1].motions)
    draws = [
        draw(np.random.default_rng([seed, run]), observe(scene.clip, scene.correspondence, PAPER))
        for seed, run in ((0, 0), (0, 1), (1, 0))
    ]
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def draw(rng, seen):
    return propose(seen.low, np.zeros(seen.low.size, bool), PAPER, rng)


PRINT = """
import sys, hashlib
sys.path.insert(0, {tests!r})
from conftest import Box, make_world
from cupola.motion import Sf2se3Segmenter
scene = make_world((Box(-1, 2.4, 2.0, 10, (0.5, 0.0)), Box(3, 1.8, 1.5, 12)), seed=3, noise=0.0)
found = Sf2se3Segmenter(downscale=0.2)(scene.clip, scene.correspondence, 0)
print(len(found), hashlib.sha256(found.masks.tobytes() + found.scores.tobytes() + found.motions.tobytes()).hexdigest())
"""


def test_threads_do_not_change_the_bits():
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    script = PRINT.format(tests=str(Path(__file__).parent))
    lines = []
    for count in ("1", "2"):
        threads = os.environ | dict.fromkeys(names, count)
        run = subprocess.run([sys.executable, "-c", script], env=threads, check=True, capture_output=True)
        lines.append(run.stdout)
    assert lines[0].startswith(b"1 ")
    assert lines[0] == lines[1]


@pytest.mark.parametrize("segmenter", [PAPER, PUBLISHED, SINGLE])
@pytest.mark.parametrize("missing", ["flow", "disparity", "disparity_next"])
def test_unknown_fields_hold_no_object(scene, segmenter, missing):
    field = getattr(scene.correspondence, missing)
    nothing = {missing: np.full_like(field, np.nan), f"{missing}_valid": np.zeros(field.shape[-2:], bool)}
    blind = Correspondence(**(vars(scene.correspondence) | nothing))
    assert len(segmenter(scene.clip, blind, 0)) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (12, 12), (40, 40)])
@pytest.mark.parametrize("segmenter", [Sf2se3Segmenter(), PublishedSf2se3Segmenter(), Sf2se3Segmenter.single()])
def test_tiny_images_hold_no_object(scene, size, segmenter):
    def cut(field):
        return field if field is None else np.ascontiguousarray(field[..., : size[0], : size[1]])

    first = scene.clip.first
    image = first.left[: size[0], : size[1]]
    frame = StereoFrame(image, image, first.calibration, np.ones(size, bool), "tiny")
    small = Correspondence(**{name: cut(field) for name, field in vars(scene.correspondence).items()})
    found = segmenter(StereoClip(frame, frame), small, 0)
    assert found.masks.shape == (0, *size)


def test_the_noise_is_the_providers_or_what_the_flow_shows(scene):
    measured = np.array([3.0, 4.0, 5.0])
    known = Correspondence(**(vars(scene.correspondence) | {"noise": measured}))
    np.testing.assert_array_equal(observe(scene.clip, known, PAPER).sigma, measured)
    shaken = scene.correspondence.flow + np.random.default_rng(0).normal(0, 4, (2, 160, 320)).astype(np.float32)
    loud = Correspondence(**(vars(scene.correspondence) | {"flow": shaken}))
    assert observe(scene.clip, loud, PAPER).sigma == pytest.approx((4 / 2**0.5, 4 / 2**0.5, 2), abs=0.4)
    assert observe(scene.clip, scene.correspondence, PAPER).sigma.tolist() == [2, 2, 2]


def test_the_forms_have_names():
    published = PublishedSf2se3Segmenter()
    assert plain(published) == {**plain(Sf2se3Segmenter(form="published")), "name": "sf2se3-published"}
    assert Sf2se3Segmenter.single().runs == 1
    assert Sf2se3Segmenter.single().iterations == 10


# Steps


def test_tail_is_the_two_sided_normal_tail():
    x = np.linspace(0, kernels.REACH - 1e-9, 5001)
    np.testing.assert_allclose(kernels.tails_of(x), 2 * norm.sf(x), atol=2e-7)
    assert (kernels.tails_of(np.array([kernels.REACH, 9.0, np.inf, np.nan])) == 0).all()


def test_points_behind_the_camera_are_explained_by_nothing(seen):
    """S15: turned half a circle about x and mirrored back, points near the horizon project to where they were."""
    turned = np.diag([1.0, -1.0, -1.0, 1.0])[None]
    assert motion_consensus(seen, seen.low, turned, PUBLISHED).soft.max() > 0
    assert motion_consensus(seen, seen.low, turned, PAPER).soft.max() == 0


def random_cells(rng, seen, share):
    return rng.random((3, *seen.low.size)) < share


@given(seed=st.integers(0, 99), share=st.sampled_from([0.005, 0.1, 0.6]))
@settings(max_examples=8, deadline=None)
def test_joint_consensus_is_the_best_of_the_window(seen, seed, share):
    rng = np.random.default_rng(seed)
    motions = se3.exp(rng.normal(0, 0.02, (3, 6)))
    cells = random_cells(rng, seen, share)
    found = joint_consensus(seen, seen.full, motions, cells, PAPER)
    moved = motion_consensus(seen, seen.full, motions, PAPER)
    for k, i, j in zip(rng.integers(0, 3, 60), rng.integers(0, 160, 60), rng.integers(0, 320, 60), strict=True):
        row, column = i * 32 // 160, j * 64 // 320
        near, square = 0.0, np.inf
        for r in range(max(0, row - 4), min(32, row + 5)):
            for c in range(max(0, column - 4), min(64, column + 5)):
                if cells[k, r, c]:
                    dx, dy = (j - seen.low.x[c]) / (230 * 0.05), (i - seen.low.y[r]) / (230 * 0.05)
                    product = 4 * norm.sf(abs(dx)) * norm.sf(abs(dy))
                    if product > near:
                        near, square = product, dx * dx + dy * dy
        np.testing.assert_allclose(found.soft[k, i, j], moved.soft[k, i, j] * near, atol=1e-6)
        if square < 20:
            np.testing.assert_allclose(found.square[k, i, j], moved.square[k, i, j] + square, rtol=1e-5)


def test_labels_are_the_likeliest_of_the_joint_consensus(seen):
    rng = np.random.default_rng(0)
    objects = find_objects(seen, PAPER, lambda explained: propose(seen.low, explained, PAPER, rng))
    assert len(objects) >= 2
    labels, shares = label_pixels(seen, objects, PAPER)
    joint = joint_consensus(seen, seen.full, objects.motions, objects.assigned, PAPER)
    explained = seen.full.reliable & (joint.soft > 0).any(0)
    clear = np.ptp(np.sort(joint.square, 0)[:2], 0) > 1e-3
    np.testing.assert_array_equal(labels[~explained & seen.full.reliable & clear], 0)
    at = explained & clear
    np.testing.assert_array_equal(labels[at], joint.square.argmin(0)[at])
    likelihood = np.exp(-(joint.square - joint.square.min(0)) / 2)
    np.testing.assert_allclose(shares[at], 1 / likelihood.sum(0)[at], rtol=1e-3)
    assert not labels[~seen.full.reliable].any()


def grow_slowly(points, points_next, free, seed, uniforms, exchanged):
    """Twin of `grow_clusters` for one cluster, from the distances of all pairs."""
    distance, later = (np.linalg.norm(p[:, None] - p, axis=-1) for p in (points, points_next))
    near, rigid = distance <= 5.0, abs(distance - later) <= 0.03
    members = [seed]
    for uniform in uniforms:
        close, stiff = near[members], rigid[members]
        joins = close.all(0) & stiff.any(0) if exchanged else close.any(0) & stiff.all(0)
        choices = [j for j in np.flatnonzero(joins & free) if j not in members]
        if not choices:
            break
        members.append(choices[int(uniform * len(choices))])
    return members + [-1] * (1 + len(uniforms) - len(members))


@given(seed=st.integers(0, 999), exchanged=st.booleans())
@settings(max_examples=40, deadline=None)
def test_clusters_grow_like_the_slow_twin(seed, exchanged):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 9, (40, 3))
    points_next = points + rng.normal(0, 0.015, points.shape)
    free = rng.random(40) < 0.8
    seeds, uniforms = rng.integers(0, 40, 6), rng.random((6, 4))
    members = np.full((6, 5), -1)
    kernels.grow_clusters(points, points_next, free, seeds, uniforms, 5.0, 0.03, exchanged, members)
    for one, start, numbers in zip(members, seeds, uniforms, strict=True):
        assert one.tolist() == grow_slowly(points, points_next, free, start, numbers, exchanged)


def test_seeds_are_cells_that_can_grow_and_the_published_ones_need_not_be_free():
    """S17: a blocked cell may seed a published cluster, never one of ours."""
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform(0, 3, (30, 3)), [[90.0, 90, 90]]])
    free = np.arange(31) >= 10
    ours, theirs = (
        draw_clusters(points, points.copy(), free, form, np.random.default_rng(2)) for form in (PAPER, PUBLISHED)
    )
    assert free[ours].all()
    assert (theirs[:, 0] < 10).any()
    assert free[theirs[:, 1:]].all()
    assert not (ours == 30).any()
    assert not (theirs == 30).any()


def test_proposals_of_a_rigid_world_are_its_motion():
    rng = np.random.default_rng(3)
    points = rng.uniform((-2, -2, 7), (2, 2, 11), (60, 3))
    motion = se3.exp(np.array([0.02, -0.05, 0.01, 0.3, 0.0, -0.8]))
    later = se3.transform(motion, points.T).T
    members = draw_clusters(points, later, np.ones(60, bool), PAPER, rng)
    fitted = se3.fit_motions(points[members], later[members], (members >= 0).astype(float))
    np.testing.assert_allclose(fitted, np.broadcast_to(motion, fitted.shape), atol=1e-9)


def test_selection_takes_what_adds_and_drops_what_overlaps():
    soft = np.zeros((3, 4, 10), np.float32)
    soft[0, :, :4], soft[1, :, :6], soft[2, :, 7:] = 1, 1, 0.5
    reliable = np.ones((4, 10), bool)
    nothing = soft[:0]
    assert select(soft, nothing, reliable, 5, PAPER) == [1, 2]
    assert select(soft, nothing, reliable, 1, PAPER) == [1]
    assert select(soft, soft[:1], reliable, 5, PAPER) == [2]
    assert select(nothing, nothing, reliable, 5, PAPER) == []


def test_a_cell_below_the_threshold_bridges_parts_only_as_published(seen):
    """S20: two inliers beyond each other's reach with a non-inlier between, which comes after both in raster order."""
    apart = int(2.2 * 0.05 * 230 / 5)
    soft = np.zeros(seen.low.size, np.float32)
    row, column = next(
        (r, c)
        for r in range(20, 30)
        for c in range(5, 50)
        if seen.low.reliable[r, c] and seen.low.reliable[r, c + 2 * apart - 2]
    )
    soft[row, column] = soft[row, column + 2 * apart - 2] = 1.0
    nothing = np.zeros(seen.low.size, bool)
    assert len(split(seen, soft, nothing, PUBLISHED)) == 1
    assert len(split(seen, soft, nothing, PAPER)) == 2


@pytest.mark.parametrize("form", [PAPER, PUBLISHED])
def test_refit_mends_a_disturbed_motion(seen, form):
    rng = np.random.default_rng(0)
    objects = find_objects(seen, form, lambda explained: propose(seen.low, explained, form, rng))
    background = objects[[0]]
    disturbed = se3.compose(se3.exp(np.array([0, 0.002, 0, 0.05, 0, 0.05]))[None], background.motions)
    start = type(objects)(disturbed, background.assigned, background.soft)
    mended = refit(seen, start, form).motions[0]
    assert se3.rotation_angle(mended, np.eye(4)) < 1e-3
    np.testing.assert_allclose(mended[:3, 3], (0, 0, -0.8), atol=0.02)


def test_static_and_implausible_objects_are_no_objects(seen):
    """The published code keeps the static one (S21); both drop what turns too fast."""
    rng = np.random.default_rng(0)
    objects = find_objects(seen, PAPER, lambda explained: propose(seen.low, explained, PAPER, rng))
    labels, _ = label_pixels(seen, objects, PAPER)
    moving = moving_objects(seen, objects, labels, PAPER)
    assert len(moving) == 1
    for twist, kept in (((0, 0, 0, 0, 0, 0.01), (False, True)), ((0, 0.05, 0, 0, 0, 0), (False, False))):
        motions = objects.motions.copy()
        motions[moving[0]] = se3.exp(np.array(twist, float)) @ motions[0]
        changed = type(objects)(motions, objects.assigned, objects.soft)
        assert [moving[0] in moving_objects(seen, changed, labels, form) for form in (PAPER, PUBLISHED)] == list(kept)


def test_parts_and_scores():
    labels = np.zeros((20, 30), np.uint8)
    labels[:10, :5], labels[10:14, 5:9], labels[:10, 20:], labels[15:, 20:22] = 1, 1, 2, 2
    shares = np.where(labels == 1, np.float32(0.5), np.float32(0.75))
    runs = separate(labels, shares, np.arange(3.0)[:, None, None] * np.ones((4, 4)), [1, 2], 16)
    assert np.bincount(runs.ids.ravel())[1:].tolist() == [66, 100]  # corners touch: one part; ten pixels: none
    np.testing.assert_allclose(runs.scores, [0.5, 0.75])
    assert runs.motions[:, 0, 0].tolist() == [1, 2]


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_votes_count_like_the_masks_themselves(seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, (4, 9, 11)).astype(np.int32)
    ids += np.where(ids > 0, 2 * np.arange(4, dtype=np.int32)[:, None, None], 0)
    masks = np.stack([(ids == i + 1).any(0) for i in range(8)])
    shared = shared_pixels(ids, 8)
    np.testing.assert_array_equal(shared, (masks[:, None] & masks).sum((2, 3)))
    count = masks.sum(0)
    expected = [(mask * count).sum() / (4 * mask.sum()) for mask in masks]
    np.testing.assert_allclose(consistency(shared, 4), expected)
    scores = rng.random(8).astype(np.float32)
    best, lowered = matrix_nms(shared, scores, 0.0)
    for index, score in zip(best, lowered, strict=True):
        assert score == pytest.approx(scores[index] * decay_of(masks, scores, index), abs=1e-6)


def decay_of(masks, scores, j):
    better = [i for i in range(len(masks)) if scores[i] > scores[j]]
    decays = [1.0]
    for i in better:
        worst = max([iou(masks[i], masks[a]) for a in range(len(masks)) if scores[a] > scores[i]], default=0)
        decays.append(np.exp(-2 * iou(masks[i], masks[j]) ** 2) / np.exp(-2 * worst**2))
    return min(decays)


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_holes_are_what_the_border_does_not_reach(seed):
    mask = np.random.default_rng(seed).random((12, 14)) < 0.6
    outside, _ = components_of(np.pad(~mask, 1, constant_values=True))
    np.testing.assert_array_equal(fill_holes(mask), outside[1:-1, 1:-1] != outside[0, 0])


def test_what_a_mask_cuts_off_stays_open_except_as_published():
    """S30"""
    mask = np.zeros((20, 30), bool)
    mask[:, 10:13] = True
    np.testing.assert_array_equal(fill_holes(mask), mask)
    assert fill_all_but_largest(mask)[:, :13].all()


def test_better_masks_lie_on_top_except_as_published(seen):
    """S31"""
    small, large = np.zeros((2, *seen.full.size), bool)
    small[100:120, 150:180], large[90:140, 140:200] = True, True
    columns, rows = np.meshgrid(np.arange(320.0), np.arange(160.0))
    points = np.stack([columns, rows, np.full((160, 320), 9.0)]).astype(np.float32)
    scores = np.array([0.9, 0.7], np.float32)
    ours = finish([small, large], scores, points, PAPER)
    assert [index for index, _ in ours] == [0, 1]
    np.testing.assert_array_equal(ours[0][1], small)
    np.testing.assert_array_equal(ours[1][1], large & ~small)
    theirs = finish([small, large], scores, points, PUBLISHED)
    assert [index for index, _ in theirs] == [1]


def test_surface_area_does_not_step_across_depth():
    """S32: a slanted patch of known size; a jump in depth inside the mask adds nothing."""
    x, y = np.meshgrid(np.arange(30) * 0.1, np.arange(20) * 0.1)
    points = np.stack([x, y, 10 + 0.5 * x]).astype(np.float32)
    everywhere = np.ones((20, 30), bool)
    assert surface_area(everywhere, points) == pytest.approx(2.9 * 1.9 * np.sqrt(1.25), rel=1e-3)
    points[2, :, 15:] += 30
    assert surface_area(everywhere, points) == pytest.approx(2.8 * 1.9 * np.sqrt(1.25), rel=1e-3)
    points[:, 5, 5] = np.nan
    assert np.isfinite(surface_area(everywhere, points))
    assert surface_area(everywhere & False, points) == 0


def test_opencv_threads_do_not_matter(scene):
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            results.append(PAPER(scene.clip, scene.correspondence, 0).id_map())
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*results)


def test_settings_are_those_of_the_segmenter():
    assert vars(Sf2se3Segmenter()) == vars(Sf2se3Settings())
