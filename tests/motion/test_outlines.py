"""Outlines along the image's edges."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.motion.outlines import outlined


def street(seed: int, objects: int):
    """A grey image with one bright upright object after the other, and their true masks."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 192, 3), 90, np.uint8)
    masks = np.zeros((objects, 96, 192), bool)
    for index in range(objects):
        x, y = 12 + 44 * index + int(rng.integers(0, 6)), int(rng.integers(20, 40))
        masks[index, y : y + int(rng.integers(24, 40)), x : x + int(rng.integers(8, 16))] = True
        image[masks[index]] = rng.integers(150, 256, 3)
    noise = rng.normal(0, 2.5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), masks


def swollen(masks, right: int, down: int):
    """Masks that reach over the object's border."""
    grown = masks.copy()
    for dx in range(right + 1):
        for dy in range(down + 1):
            grown |= np.roll(masks, (dy, dx), (1, 2))
    return grown


def iou(one, other):
    return (one & other).sum((1, 2)) / (one | other).sum((1, 2))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), objects=st.integers(1, 4), right=st.integers(0, 3), down=st.integers(0, 3))
def test_what_reaches_over_the_border_goes_back(seed, objects, right, down):
    image, truth = street(seed, objects)
    before = swollen(truth, right, down)
    found = outlined(image, before)
    gained = iou(found, truth) - iou(before, truth)
    assert (gained > 0).all() if right or down else (found == truth).all()
    assert found.sum(0).max() <= 1


def test_where_two_meet_each_pixel_is_of_one_and_colours_decide():
    image = np.full((96, 192, 3), 90, np.uint8)
    image[30:70, 40:60], image[30:70, 60:80] = (220, 60, 60), (60, 60, 220)
    masks = np.zeros((2, 96, 192), bool)
    masks[0, 30:70, 40:63], masks[1, 30:70, 57:80] = True, True
    found = outlined(image, masks)
    truth = np.zeros_like(masks)
    truth[0, 30:70, 40:60], truth[1, 30:70, 60:80] = True, True
    assert (iou(found, truth) > 0.95).all()


def test_an_object_that_the_image_does_not_show_stays():
    image = np.full((96, 192, 3), 90, np.uint8)
    masks = np.zeros((2, 96, 192), bool)
    masks[0, 40, 50] = True  # the CRF would dissolve it
    np.testing.assert_array_equal(outlined(image, masks), masks)


def test_nothing_gives_nothing():
    assert outlined(np.zeros((20, 30, 3), np.uint8), np.zeros((0, 20, 30), bool)).shape == (0, 20, 30)
