"""MaskCut: cuts of planted features, the eigenvector against a dense solver, and the whole behind its interface."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cupola.cli import main
from cupola.errors import CheckpointError, ConfigError
from cupola.io import write_rgb
from cupola.motion import MaskCutSegmenter
from cupola.motion.maskcut.cutting import FEW, WEAK, find_objects, foreground, second_vector, similar
from cupola.motion.maskcut.segmenter import refine
from cupola.pseudo_labels import LabelStore
from cupola.semantics.backbones import VitSizes, random_backbone
from cupola.semantics.backbones.settings import DINO_VITS
from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

ROWS, COLUMNS, CHANNELS = 16, 16, 12
TAU = 0.15
NOTHING = Correspondence(
    flow=np.zeros((2, 1, 1), np.float32),
    flow_backward=np.zeros((2, 1, 1), np.float32),
    disparity=np.zeros((1, 1), np.float32),
    disparity_next=np.zeros((1, 1), np.float32),
    flow_valid=np.zeros((1, 1), bool),
    disparity_valid=np.zeros((1, 1), bool),
    disparity_next_valid=np.zeros((1, 1), bool),
)
TINY = VitSizes(patch=8, width=64, depth=2, heads=1, grid=4)


# Cuts


@st.composite
def scenes(draw, most=3):
    """A map of numbers: 0 around up to `most` rectangles that touch neither each other nor the rim."""
    numbers = np.zeros((ROWS, COLUMNS), int)
    for number in range(1, draw(st.integers(1, most)) + 1):
        top, left = draw(st.integers(1, ROWS - 4)), draw(st.integers(1, COLUMNS - 4))
        height, width = draw(st.integers(2, ROWS - 2 - top)), draw(st.integers(2, COLUMNS - 2 - left))
        around = numbers[top - 1 : top + height + 1, left - 1 : left + width + 1]
        assume(not around.any())
        numbers[top : top + height, left : left + width] = number
    assume((numbers == 0).mean() > 0.4)
    return numbers, draw(st.integers(0, 2**32))


def features_of(numbers, seed, noise=0.1):
    """A direction for each number, none like another, and noise."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((CHANNELS, CHANNELS)))[0]
    features = directions[:, numbers] + noise / np.sqrt(CHANNELS) * rng.standard_normal((CHANNELS, *numbers.shape))
    return (features * rng.uniform(0.5, 2.0, numbers.shape)).astype(np.float32)


@given(scenes())
@settings(max_examples=25, deadline=None)
def test_planted_objects_are_found_exactly(scene):
    numbers, seed = scene
    found = find_objects(features_of(numbers, seed), TAU, 5)
    assert len(found) == numbers.max()
    expected = {(numbers == number).tobytes() for number in range(1, numbers.max() + 1)}
    assert {mask.tobytes() for mask in found} == expected


@given(scenes(), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_at_most_so_many_and_always_the_same(scene, count):
    features = features_of(*scene)
    found, again = (find_objects(features.copy(), TAU, count) for _ in range(2))
    assert len(found) == min(count, scene[0].max())
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(found, find_objects(features, TAU, 5)[:count])


@given(seed=st.integers(0, 2**32), count=st.integers(1, 4), rows=st.integers(1, 12), columns=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_masks_of_any_features_are_apart_and_connected(seed, count, rows, columns):
    features = np.random.default_rng(seed).standard_normal((4, rows, columns)).astype(np.float32)
    found = find_objects(features, TAU, count)
    assert len(found) <= count
    if found:
        assert np.sum(found, axis=0).max() == 1
    for mask in found:
        assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] == 2


@given(scenes(), st.floats(0.01, 100.0))
@settings(max_examples=25, deadline=None)
def test_order_of_channels_and_scale_of_features_change_nothing(scene, scale):
    numbers, seed = scene
    features = features_of(numbers, seed, noise=0.6)
    rng = np.random.default_rng(seed)
    cosines = np.abs(_cosines(features) - TAU)
    assume(cosines.min() > 1e-5)  # no pair of cells whose likeness hangs on rounding
    changed = features[rng.permutation(CHANNELS)] * np.float32(scale)
    np.testing.assert_array_equal(find_objects(features, TAU, 3), find_objects(changed, TAU, 3))


def _cosines(features):
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat /= np.linalg.norm(flat, axis=0)
    return flat.T @ flat


def test_nothing_stands_out_of_equal_cells():
    assert find_objects(np.ones((3, 8, 8), np.float32), TAU, 3) == []
    assert find_objects(np.ones((3, 1, 1), np.float32), TAU, 3) == []


def test_a_tiny_further_object_ends_the_search():
    numbers = np.zeros((ROWS, COLUMNS), int)
    numbers[2:8, 2:8], numbers[12, 12:14] = 1, 2
    assert len(find_objects(features_of(numbers, 0), TAU, 3)) == 1
    numbers[12, 12:15] = 2
    assert len(find_objects(features_of(numbers, 0), TAU, 3)) == 2


def test_a_cell_without_features_is_like_no_other():
    features = np.array([[1, 0], [0, 0], [2, 0], [0, 1]], np.float32)
    expected = np.eye(4, dtype=bool)
    expected[0, 2] = expected[2, 0] = True
    np.testing.assert_array_equal(similar(features, TAU), expected)


# The eigenvector


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, FEW + 40),
    share=st.sampled_from([0.02, 0.2, 0.6, 0.95]),
)
@settings(max_examples=25, deadline=None)
def test_the_vector_is_the_second_smallest(seed, count, share):
    rng = np.random.default_rng(seed)
    alike = np.triu(rng.random((count, count)) < share, 1)
    alike = alike | alike.T | np.eye(count, dtype=bool)
    weights = np.where(alike, 1.0, WEAK)
    degrees = weights.sum(1)
    values = scipy.linalg.eigh(np.diag(degrees) - weights, np.diag(degrees), eigvals_only=True)
    x = second_vector(alike)
    energy = x @ (degrees * x - weights @ x) / (degrees @ x**2)
    assert energy == pytest.approx(values[1], abs=1e-9)
    residual = degrees * x - weights @ x - energy * degrees * x
    assert np.abs(residual).max() < 1e-6 * np.abs(degrees * x).max()
    assert abs(degrees @ x) < 1e-6 * np.abs(degrees * x).sum()
    assert x[np.abs(x).argmax()] > 0


# Foreground


def test_the_part_around_the_largest_value_is_taken():
    values = np.full((5, 6), -1.0)
    values[1, 1] = values[1, 2] = 3.0
    values[3, 3] = 4.0  # alone: diagonal neighbours are not connected
    values[2, 2] = -1.0
    free = np.ones(values.shape, bool)
    expected = np.zeros(values.shape, bool)
    expected[3, 3] = True
    np.testing.assert_array_equal(foreground(values, free), expected)
    values[1, 1] = 5.0
    assert foreground(values, free).sum() == 2


@pytest.mark.parametrize(("corners", "taken"), [(2, "largest"), (3, "other"), (4, "other")])
def test_what_holds_most_corners_is_not_the_object(corners, taken):
    values = np.full((6, 6), -1.0)
    values[0, :] = values[1, :] = 2.0
    values[0, 2] = 5.0
    if corners > 2:
        values[:, 0] = 2.0
    if corners > 3:
        values[:, 5] = 2.0
    mask = foreground(values, np.ones(values.shape, bool))
    np.testing.assert_array_equal(mask, values > 0 if taken == "largest" else values < 0)


def test_cells_that_were_taken_belong_to_no_object():
    values = np.full((4, 4), -1.0)
    values[1, 1:3] = 2.0
    free = np.ones(values.shape, bool)
    free[1, 2] = False
    assert foreground(values, free).sum() == 1


# The segmenter


def test_refining_follows_the_edge_of_the_image_and_fills_holes():
    image = np.full((96, 96, 3), 60, np.uint8)
    image[20:70, 30:80] = (200, 40, 40)
    cut = np.zeros((96, 96), bool)
    cut[16:72, 24:80] = True
    cut[40:44, 40:44] = False
    refined = refine(image, cut)
    expected = np.zeros((96, 96), bool)
    expected[20:70, 30:80] = True
    assert (refined & expected).sum() / (refined | expected).sum() > 0.97
    assert (cut & expected).sum() / (cut | expected).sum() < 0.82


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a tiny DINO of random weights."""
    backbone = random_backbone("dino_vits8", 0, width=64, depth=2, heads=1, grid=4)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(backbone.network.state_dict(), path)
    return path


@pytest.fixture
def tiny(weights, monkeypatch):
    monkeypatch.setitem(DINO_VITS, "dino_vits8", TINY)
    return MaskCutSegmenter(weights, "dino_vits8", image_side=96, tau=0.9)


def clip_of(image, valid=None):
    valid = np.ones(image.shape[:2], bool) if valid is None else valid
    frame = StereoFrame(image, image, Calibration(100.0, 100.0, 50.0, 40.0, 0.5), valid, "frame")
    return StereoClip(frame, frame)


def colourful():
    image = np.full((80, 160, 3), 90, np.uint8)
    image += np.random.default_rng(0).integers(0, 6, image.shape, np.uint8)
    image[20:60, 40:90] = (230, 30, 30)
    return image


def test_an_object_of_another_colour(tiny):
    """Random weights keep colours apart, though nothing more."""
    found = tiny(clip_of(colourful()), NOTHING, 0)
    assert 1 <= len(found) <= tiny.masks
    assert found.masks.shape[1:] == (80, 160)
    assert found.motions is None
    assert ((found.scores >= 0.5) & (found.scores <= 1)).all()
    truth = np.zeros((80, 160), bool)
    truth[20:60, 40:90] = True
    assert max((mask & truth).sum() / (mask | truth).sum() for mask in found.masks) > 0.9


def test_the_same_each_time_and_for_any_seed(tiny):
    first, second = (tiny(clip_of(colourful()), NOTHING, seed) for seed in (0, 5))
    np.testing.assert_array_equal(first.masks, second.masks)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_pixels_that_show_no_scene_are_of_no_object(tiny):
    valid = np.ones((80, 160), bool)
    valid[:, :60] = False
    found = tiny(clip_of(colourful(), valid), NOTHING, 0)
    assert not found.masks[:, ~valid].any()
    assert len(tiny(clip_of(colourful(), np.zeros((80, 160), bool)), NOTHING, 0)) == 0


def test_an_image_of_one_colour_and_a_tiny_one(tiny):
    assert len(tiny(clip_of(np.full((1, 1, 3), 90, np.uint8)), NOTHING, 0)) <= tiny.masks
    assert len(tiny(clip_of(np.zeros((40, 60, 3), np.uint8)), NOTHING, 0)) <= tiny.masks


def test_missing_or_other_weights_are_told_before_any_work(weights, tmp_path):
    with pytest.raises(CheckpointError, match=r"no file of DINO weights at .*none\.pth; give --motion\.weights"):
        MaskCutSegmenter(tmp_path / "none.pth").check()
    with pytest.raises(CheckpointError, match="of another architecture than dino_vits16"):
        MaskCutSegmenter(weights, "dino_vits16").check()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"architecture": "dino_resnet50"}, "keys of one of DINO's transformers"),
        ({"image_side": 484}, "must be a multiple of the patch, 8 px, not 484"),
        ({"image_side": 0}, "must be a multiple of the patch, 8 px, not 0"),
        ({"tau": 1.0}, "at least -1 and below 1, not 1.0"),
        ({"masks": 0}, "at least 1, not 0"),
    ],
)
def test_impossible_settings(changed, sentence):
    with pytest.raises(ConfigError, match=sentence):
        MaskCutSegmenter(Path("w.pth"), **changed)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three frames of a coloured square on noise that wanders to the left, in the folder layout."""
    root = tmp_path_factory.mktemp("data")
    (root / "calibration.yaml").write_text("{fx: 80.0, fy: 80.0, cx: 60.0, cy: 30.0, baseline: 0.3}")
    texture = np.random.default_rng(0).integers(70, 110, (64, 160, 3)).astype(np.uint8)
    texture[20:50, 50:90] = (230, 30, 30)
    for number in range(3):
        for side, shift in (("left", 2 * number), ("right", 2 * number + 6)):
            write_rgb(root / side / f"{number}.png", np.ascontiguousarray(texture[:, shift : shift + 112]))
    return root


def test_stage_1_by_the_command_line(tiny, data, tmp_path, capsys):
    words = ["--architecture", "dino_vits8", "--image_side", "96", "--tau", "0.9", "--weights", str(tiny.weights)]
    options = [word.replace("--", "--motion.") for word in words]
    command = ["pseudo-label", str(data), "--motion", "maskcut", *options, "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "store")]) == 0
    assert "motion MaskCutSegmenter" in capsys.readouterr().out
    store = LabelStore.open(tmp_path / "store")
    assert store.keys == ("0", "1", "2")
    for number, key in enumerate(store.keys):
        assert 1 <= len(store.entries[key].scores) <= 3
        truth = np.zeros((64, 112), bool)
        truth[20:50, 50 - 2 * number : 90 - 2 * number] = True
        ids = store.instance_map(key)
        assert max(((ids == i) & truth).sum() / ((ids == i) | truth).sum() for i in range(1, 4)) > 0.85
    part = json.loads((store.path / "manifest.json").read_text())["run"]["parts"]["motion"]
    assert part["sha256"] == {"weights": hashlib.sha256(tiny.weights.read_bytes()).hexdigest()}


def test_missing_weights_on_the_command_line(data, tmp_path, capsys):
    command = ["pseudo-label", str(data), "--out", str(tmp_path / "store"), "--motion", "maskcut"]
    assert main([*command, "--motion.weights", str(tmp_path / "none.pth")]) == 2
    assert "no file of DINO weights" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


PRINT = """
import hashlib, sys
from pathlib import Path
import numpy as np
from cupola.motion import MaskCutSegmenter
from cupola.motion.maskcut.cutting import find_objects
from cupola.semantics.backbones import VitSizes
from cupola.semantics.backbones.settings import DINO_VITS
DINO_VITS["dino_vits8"] = VitSizes(patch=8, width=64, depth=2, heads=1, grid=4)
image = np.random.default_rng(0).integers(0, 90, (192, 192, 3)).astype(np.uint8)
image[40:90, 30:100] = (230, 30, 30)
keys = MaskCutSegmenter(Path({weights!r}), "dino_vits8", image_side=192)._keys(image)
found = find_objects(keys, 0.8, 3)
print(len(found), hashlib.sha256(keys.tobytes() + np.stack(found).tobytes()).hexdigest())
"""


def test_threads_do_not_change_the_bits(weights):
    """Of keys and cuts; the dense CRF has a test of its own for that."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    script = PRINT.format(weights=str(weights))
    lines = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | dict.fromkeys(names, count),
            check=True,
            capture_output=True,
        ).stdout
        for count in ("1", "2")
    ]
    assert lines[0].startswith((b"1 ", b"2 ", b"3 "))
    assert lines[0] == lines[1]
