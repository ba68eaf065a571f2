"""Views: one warp for image and label, colours in one matrix, all from one generator."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_doubles import COLORS, HEIGHT, WIDTH, classes_of, street

from cupola.errors import ConfigError
from cupola.models import IGNORE
from cupola.training.augment import PADDING, AugmentSettings, augment, draw_view, recolor, warp
from cupola.training.targets import FIRST_OBJECT, UNMARKED, Sample

PLAIN = AugmentSettings(flip=0.0, zoom=(1.0, 1.0), jitter=0.0, grey=0.0, blur=0.0)

STILL = AugmentSettings(jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grey=0.0, blur=0.0)


def sample(number: int = 0) -> Sample:
    image = street(number)
    codes = (classes_of(image) + 1).astype(np.uint16)
    codes[codes == 3] = FIRST_OBJECT
    return Sample(image, codes, np.zeros(1, np.int64))


def test_a_view_without_change_is_the_frame():
    view = augment(sample(), (HEIGHT, WIDTH), PLAIN, np.random.default_rng(0))
    assert np.array_equal(view.image, sample().image)
    assert np.array_equal(view.codes, sample().codes)


def test_flip_is_exact():
    settings = AugmentSettings(flip=1.0, zoom=(1.0, 1.0), jitter=0.0, grey=0.0, blur=0.0)
    view = augment(sample(), (HEIGHT, WIDTH), settings, np.random.default_rng(0))
    assert np.array_equal(view.image, sample().image[:, ::-1])
    assert np.array_equal(view.codes, sample().codes[:, ::-1])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(HEIGHT, WIDTH), (40, 50), (80, 60), (96, 160)]))
def test_label_and_image_stay_together(seed, canvas):
    settings = AugmentSettings(jitter=0.0, grey=0.0, blur=0.0)
    view = augment(sample(), canvas, settings, np.random.default_rng(seed))
    assert view.image.shape[:2] == view.codes.shape == canvas
    inside = view.codes != IGNORE
    means = {1: COLORS["sky"], 2: COLORS["road"], FIRST_OBJECT: COLORS["car"], IGNORE: PADDING}
    kernel = {"kernel": np.ones((5, 5)), "borderType": cv2.BORDER_CONSTANT, "borderValue": 0.0}
    eroded = {code: cv2.erode((view.codes == code).astype(np.uint8), **kernel) > 0 for code in means}
    for code, color in means.items():
        found = view.image[eroded[code]].astype(int)
        assert (np.abs(found - color) <= 32).all()
    assert inside.any()


@given(st.integers(0, 2**32 - 1))
def test_the_smaller_of_frame_and_canvas_lies_inside_the_larger(seed):
    rng = np.random.default_rng(seed)
    size, canvas = tuple(rng.integers(32, 200, 2).tolist()), tuple(rng.integers(32, 200, 2).tolist())
    matrix = draw_view(size, canvas, AugmentSettings(zoom=(0.5, 2.0)), rng)
    corners = np.array([[-0.5, -0.5, 1], [size[1] - 0.5, size[0] - 0.5, 1]]) @ matrix.T + 0.5
    for axis, room in ((0, canvas[1]), (1, canvas[0])):
        low, high = sorted(corners[:, axis])
        assert (low >= -1e-6 and high <= room + 1e-6) or (low <= 1e-6 and high >= room - 1e-6)


def test_objects_shrunk_or_cut_away_are_hidden():
    small = Sample(sample().image, np.ones((HEIGHT, WIDTH), np.uint16), np.zeros(1, np.int64))
    small.codes[10:15, 10:15] = FIRST_OBJECT
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    view = warp(small, half, (HEIGHT, WIDTH))
    assert not (view.codes == FIRST_OBJECT).any()
    assert (view.codes == UNMARKED).sum() in range(4, 10)


def test_grey_has_no_colour_and_keeps_brightness():
    view = recolor(sample().image, AugmentSettings(jitter=0.0, grey=1.0, blur=0.0), np.random.default_rng(0))
    assert (view.max(-1) - view.min(-1)).max() <= 1
    wanted = cv2.cvtColor(sample().image, cv2.COLOR_RGB2GRAY)
    assert np.abs(view[..., 0].astype(int) - wanted).max() <= 1


def test_jitter_without_strength_changes_nothing():
    assert np.array_equal(recolor(sample().image, STILL, np.random.default_rng(0)), sample().image)


def test_hue_leaves_grey_alone_and_brightness_scales():
    grey = np.full((8, 8, 3), 100, np.uint8)
    turned = recolor(grey, replace(STILL, hue=0.5), np.random.default_rng(1))
    assert np.abs(turned.astype(int) - 100).max() <= 1
    brighter = replace(STILL, brightness=0.4)
    levels = [recolor(grey, brighter, np.random.default_rng(seed)).mean() for seed in range(50)]
    assert 58 <= min(levels) < 75
    assert 125 < max(levels) <= 141


def test_blur_blurs():
    blurred = recolor(sample().image, AugmentSettings(jitter=0.0, grey=0.0, blur=1.0, blur_sigma=(1.0, 1.0)),
                      np.random.default_rng(0))  # fmt: skip
    assert (
        np.abs(np.diff(blurred.astype(int), axis=1)).max() < np.abs(np.diff(sample().image.astype(int), axis=1)).max()
    )


def test_same_generator_same_view():
    views = [augment(sample(), (HEIGHT, WIDTH), AugmentSettings(), np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(views[0].image, views[1].image)
    other = augment(sample(), (HEIGHT, WIDTH), AugmentSettings(), np.random.default_rng(6))
    assert not np.array_equal(views[0].image, other.image)


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"zoom": (2.0, 1.0)}, {"blur_sigma": (0.0, 1.0)}])
def test_impossible_settings(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AugmentSettings(**wrong)
