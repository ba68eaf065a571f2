"""Enlarging small images for motion, and back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.correspondence import ClassicalCorrespondence, FileCorrespondence
from cupola.data import open_dataset
from cupola.data.synthetic import render, street_frame
from cupola.errors import ConfigError
from cupola.pseudo_labels.detail import DetailSettings
from cupola.pseudo_labels.tasks import LabelFrame
from cupola.semantics import OfflineSemantics
from cupola.types import Instances, StereoClip


@pytest.fixture(scope="module")
def clip() -> StereoClip:
    (first, _), (second, _) = (street_frame(1, 0, t, 2, 96, 200) for t in range(2))
    return StereoClip(replace(first, valid=np.arange(200)[None].repeat(96, 0) >= 20), second)


def test_large_images_stay_as_they_are(clip):
    for rows in (0, 50, 96):
        assert DetailSettings(rows=rows).enlarged(clip) is clip


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(97, 300))
def test_geometry_goes_along(clip, rows):
    large = DetailSettings(rows=rows).enlarged(clip)
    height, width = large.first.size
    assert height == rows
    assert abs(width - 200 * rows / 96) <= 0.5
    before, after = clip.calibration, large.calibration
    assert after.baseline == before.baseline
    assert after.fx / before.fx == pytest.approx(width / 200)
    # a ray through the same place of the image is the same ray
    assert (width - 0.5 - after.cx) / after.fx == pytest.approx((200 - 0.5 - before.cx) / before.fx)
    assert (rows - 0.5 - after.cy) / after.fy == pytest.approx((96 - 0.5 - before.cy) / before.fy)
    assert large.first.valid.mean() == pytest.approx(0.9, abs=0.01)
    assert abs(float(large.first.left.mean()) - float(clip.first.left.mean())) < 2


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(97, 300), y=st.integers(0, 80), x=st.integers(0, 180), objects=st.integers(0, 2))
def test_masks_come_back_to_their_place(clip, rows, y, x, objects):
    detail = DetailSettings(rows=rows, outlines=False)
    small = np.zeros((objects, 96, 200), bool)
    small[:, y : y + 12, x : x + 12] = True
    height, width = detail.enlarged(clip).first.size
    places = np.ix_(np.arange(height) * 96 // height, np.arange(width) * 200 // width)
    large = Instances(small[:, places[0], places[1]], np.ones(objects, np.float32))
    found = detail.finished(large, clip.first)
    assert found.masks.shape == small.shape
    for one, truth in zip(found.masks, small, strict=True):
        assert (one & truth).sum() / (one | truth).sum() > 0.7  # a row or column to each side at the most


def test_objects_of_which_nothing_is_left_are_dropped(clip):
    masks = np.zeros((3, 192, 400), bool)
    masks[0, 60:80, 60:80] = masks[2, 20:40, 300:320] = True
    masks[1, 1, 0] = True  # between the pixels of the small image
    found = DetailSettings(rows=192, outlines=False).finished(
        Instances(masks, np.float32([0.1, 0.2, 0.3]), np.arange(48.0).reshape(3, 4, 4)), clip.first
    )
    np.testing.assert_array_equal(found.scores, np.float32([0.1, 0.3]))
    np.testing.assert_array_equal(found.motions[:, 0, 0], [0.0, 32.0])


def test_a_negative_number_of_rows_is_refused():
    with pytest.raises(ConfigError, match=r"detail\.rows"):
        DetailSettings(rows=-1)


def test_fields_from_files_are_taken_as_they_are(tmp_path):
    """Fields have the size of their images, so these are not enlarged for them."""
    render(tmp_path / "street", seed=1, frames=2, sequences=1, height=96, width=192)
    data = open_dataset(tmp_path / "street")
    [pair] = data.pairs()
    clip = data.clip(pair)
    fields = ClassicalCorrespondence()(clip)
    seen = []

    class Motion:
        name = "seen"

        def __call__(self, clip, correspondence, seed):
            seen.append(clip.first.size)
            return Instances.empty(*clip.first.size)

    for correspondence, size in ((FromFiles(fields), (96, 192)), (ClassicalCorrespondence(), (144, 288))):
        model = OfflineSemantics(classes=2, clusters=4).fit([(clip.first, fields.disparity, fields.disparity_valid)], 0)
        task = LabelFrame(data, correspondence, Motion(), model, DetailSettings(rows=144), tmp_path / "out", 0, False)
        done, _ = task(pair)
        assert seen.pop() == size
        assert done.scores == ()


class FromFiles(FileCorrespondence):
    """Fields that were read before."""

    def __init__(self, fields):
        object.__setattr__(self, "fields", fields)

    def __call__(self, clip):
        return self.fields
