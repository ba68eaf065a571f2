import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.types import VOID, PanopticMap
from cupola.visualize import (
    class_image,
    class_palette,
    disparity_image,
    flow_image,
    instance_overlay,
    panoptic_image,
    panoptic_overlay,
)

rng = np.random.default_rng(0)


@given(st.integers(0, 60))
def test_palette_colours_differ(count):
    colors = class_palette(count)
    assert len(colors) == count
    assert len(set(colors)) == count


def test_void_is_black_and_classes_have_their_colour():
    classes = np.array([[0, 1, VOID]], np.int16)
    image = class_image(classes, [(1, 2, 3), (4, 5, 6)])
    assert image.tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]


def test_neighbouring_instances_are_told_apart():
    instances = np.zeros((20, 40), np.int32)
    instances[5:15, 5:20], instances[5:15, 20:35] = 1, 2
    image = panoptic_image(PanopticMap((instances > 0).astype(np.int16), instances), [(10, 10, 10), (100, 100, 100)])
    assert not np.array_equal(image[10, 10], image[10, 30])
    assert image[10, 20].tolist() == [255, 255, 255]


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_unknown_pixels_are_grey_and_nan_does_no_harm(known):
    valid = rng.random((12, 16)) < known
    field = np.where(valid, rng.random((12, 16)) * 30, np.nan).astype(np.float32)
    assert (disparity_image(field, valid)[~valid] == 40).all()
    assert (flow_image(np.stack([field, field]), valid)[~valid] == 40).all()


def test_overlays_keep_the_size():
    image = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
    ids = np.zeros((12, 16), np.int32)
    assert instance_overlay(image, ids).shape == image.shape
    assert panoptic_overlay(image, PanopticMap(ids.astype(np.int16), ids), [(0, 0, 0)]).shape == image.shape
