"""Inference at two scales: what the windows decide, how scores are interpolated and averaged."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from depthg_files import random_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import ConfigError
from cupola.semantics.depthg.checkpoint import Depthg
from cupola.semantics.depthg.inference import crf_image, depth_weight, high_scores, low_scores, predict
from cupola.semantics.depthg.layout import high_size, low_size, pass_size, pixels, sampling, windows
from cupola.semantics.depthg.settings import DepthgSettings

SMALL = DepthgSettings(Path(), low=16, high=32)
PUBLISHED = DepthgSettings(Path(), window="square", form="published")
sides = st.integers(16, 90)


@pytest.fixture(scope="module")
def network():
    backbone, head, probe = random_parts()
    for part in (head, probe):
        part.requires_grad_(False)
    return Depthg(backbone, head, probe, {})


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), rng.random((height, width), np.float32)


@given(sides, sides, st.integers(8, 700), st.sampled_from([8, 14, 16, 32]))
def test_passes_consist_of_whole_cells_and_keep_the_shape(height, width, shorter, patch):
    size = pass_size((height, width), shorter, patch)
    assert all(side % patch == 0 and side >= patch for side in size)
    exact = [side * shorter / min(height, width) for side in (height, width)]
    assert all(abs(side - max(value, patch)) < patch for side, value in zip(size, exact, strict=True))


@given(sides, sides, st.sampled_from(["half", "square"]), st.sampled_from([8, 16]))
def test_windows_fill_the_image_and_stay_inside(height, width, window, patch):
    size = pass_size((height, width), 64, patch)
    plan = windows(size, replace(SMALL, window=window), patch)
    assert all(side % patch == 0 for side in plan.size)
    cover = np.zeros(size, int)
    for y, x in plan.corners:
        assert 0 <= y <= size[0] - plan.size[0]
        assert 0 <= x <= size[1] - plan.size[1]
        cover[y : y + plan.size[0], x : x + plan.size[1]] += 1
    assert cover.min() >= 1
    assert len(set(plan.corners)) == len(plan.corners)


def test_windows_are_those_of_the_paper_and_of_the_code():
    """Nine of 320 x 640 px in the paper, 21 of 320 x 320 px in the code, on Cityscapes."""
    paper = windows((640, 1280), SMALL, 8)
    assert (paper.size, len(paper.corners)) == ((320, 640), 9)
    for form in (replace(SMALL, window="square"), PUBLISHED):
        square = windows((640, 1280), form, 8)
        assert (square.size, len(square.corners)) == ((320, 320), 21)
    assert (low_size((640, 1280), PUBLISHED, 8), high_size((640, 1280), PUBLISHED, 8)) == ((320, 640), (640, 1280))
    ours = DepthgSettings(Path())
    assert (low_size((376, 1242), ours, 8), high_size((376, 1242), ours, 8)) == ((320, 1056), (640, 2112))


@given(st.integers(1, 60), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=4))
def test_pixels_of_neighbouring_windows_join_without_gap(count, scaled, cuts):
    ends = sorted({0, scaled, *(min(cut, scaled) for cut in cuts)})
    parts = [pixels(count, scaled, start, end - start) for start, end in pairwise(ends)]
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(count))


@given(st.integers(1, 9), st.integers(1, 12))
def test_sampling_is_bilinear_interpolation(cells, factor):
    found = sampling(slice(0, cells * factor), cells * factor, cells * 8, 0, cells, 8)
    line = torch.eye(cells)[None]
    expected = torch.nn.functional.interpolate(line, size=cells * factor, mode="linear")[0].T
    np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(sides, sides),
    st.sampled_from(["depth-guided", "mean", "low", "high"]),
    st.sampled_from(["half", "square"]),
    st.sampled_from(["log", "prob"]),
    st.booleans(),
)
def test_every_pixel_gets_probabilities(size, scales, window, space, flip_low):
    backbone, head, probe = random_parts()
    network = Depthg(backbone, head, probe, {})
    chosen = replace(SMALL, scales=scales, window=window, space=space, flip_low=flip_low)
    scores = predict(network, *picture(*size), chosen)
    assert scores.shape == (5, *size)
    assert scores.min() > 0
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-5)


def test_the_weight_blends_the_passes(network):
    image, _ = picture(32, 48)
    by = {scales: predict(network, image, np.zeros((32, 48), np.float32), replace(SMALL, scales=scales, space="prob"))
          for scales in ("low", "high", "depth-guided")}  # fmt: skip
    np.testing.assert_allclose(by["depth-guided"], by["high"], atol=1e-6)
    assert np.abs(by["low"] - by["high"]).max() > 1e-3
    weight = np.linspace(0, 1, 48, dtype=np.float32)[None].repeat(32, 0)
    blended = predict(network, image, weight, replace(SMALL, space="prob"))
    np.testing.assert_allclose(blended, weight * by["low"] + (1 - weight) * by["high"], atol=1e-6)


def test_logarithms_average_geometrically(network):
    image, weight = picture(32, 48)
    low, high = (predict(network, image, weight, replace(SMALL, scales=scales)) for scales in ("low", "high"))
    expected = low**weight * high ** (1 - weight)
    np.testing.assert_allclose(predict(network, image, weight, SMALL), expected / expected.sum(0), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_batches_change_nothing(network, batch):
    image, weight = picture(40, 56)
    whole = predict(network, image, weight, SMALL)
    np.testing.assert_allclose(predict(network, image, weight, replace(SMALL, batch=batch)), whole, atol=1e-6)


def test_threads_change_no_bit():
    """The products of this network are so large that torch would split them among threads, and round otherwise."""
    backbone, head, probe = random_parts(width=384, heads=6, grid=28)
    network, before = Depthg(backbone, head, probe, {}), torch.get_num_threads()
    image, weight = picture(160, 320)
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(predict(network, image, weight, replace(SMALL, low=160, high=160)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_mirrored_image_has_mirrored_classes_in_the_low_pass(network):
    image, _ = picture(32, 48)
    one, two = (
        low_scores(network, np.ascontiguousarray(each.transpose(2, 0, 1).astype(np.float32) / 255), SMALL)
        for each in (image, image[:, ::-1])
    )
    np.testing.assert_allclose(one, two.flip(-1), atol=1e-5)


def test_windows_see_their_own_part_only(network):
    """A change in the right half leaves pixels alone that no window there decides."""
    image = np.random.default_rng(0).random((3, 32, 64), np.float32)
    other = image.copy()
    other[:, :, 48:] = 0
    one, two = (high_scores(network, each, SMALL) for each in (image, other))
    assert torch.equal(one[..., :16], two[..., :16])
    assert not torch.equal(one[..., 32:], two[..., 32:])


def test_far_and_unknown_pixels_count_for_the_high_pass():
    disparity = np.array([[64.0, 8.0, 1.0, 0.5, 0.1, 0.0, np.nan, 70.0]], np.float32)
    valid = np.array([[True, True, True, True, True, True, False, False]])
    weight = depth_weight(disparity, valid, 64.0)
    np.testing.assert_allclose(weight[0, :3], [1 / 2, 1 / 9, 1 / 65], rtol=1e-6)
    np.testing.assert_allclose(weight[0, 3:], 1 / 129, rtol=1e-6)
    published = depth_weight(disparity, valid, 64.0, "published")
    np.testing.assert_allclose(published[0, 4:], [1 / 641, 1, 1, 1], rtol=1e-6)


def test_the_published_form_refuses_images_that_its_cells_do_not_fit_into(network):
    with pytest.raises(ConfigError, match="15 x 24 px does not consist of whole cells"):
        predict(network, *picture(30, 48), PUBLISHED)


def test_the_crf_sees_blue_first():
    image, _ = picture(4, 5)
    assert np.array_equal(crf_image(image, "paper"), image[..., ::-1])
    difference = image[..., ::-1].astype(int) - crf_image(image, "published")
    assert set(np.unique(difference)) <= {0, 1}


@pytest.mark.parametrize("wrong", [{"low": 0}, {"high": -1}, {"batch": -1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"semantics.{next(iter(wrong))}"):
        DepthgSettings(Path(), **wrong)
