"""Masks in COCO's form: both kinds of run lengths and polygons give the mask, and damaged ones are refused."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cupola.errors import DataError
from cupola.io.coco_masks import CocoMask, read_masks, runs_to_mask, unpack_runs

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def plain_runs(mask):
    """Run lengths down the columns, the obvious way."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def packed_runs(runs):
    """COCO's packed form, digit by digit."""
    text = ""
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        while True:
            digit, value = value & 0x1F, value >> 5
            more = value != (-1 if digit & 0x10 else 0)
            text += chr(48 + digit + (0x20 if more else 0))
            if not more:
                break
    return text


@given(MASKS)
@settings(deadline=None)
def test_run_lengths_give_the_mask(mask):
    runs = plain_runs(mask)
    np.testing.assert_array_equal(CocoMask(1.0, mask.shape, runs).decode(), mask)
    np.testing.assert_array_equal(CocoMask(1.0, mask.shape, packed_runs(runs)).decode(), mask)


@given(st.lists(st.integers(0, 10**8), max_size=30))
def test_packed_numbers_of_any_size(runs):
    assert unpack_runs(packed_runs(runs)).tolist() == runs


@given(MASKS)
@settings(deadline=None, max_examples=30)
def test_as_pycocotools_packs_them(mask):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(CocoMask(1.0, mask.shape, packed).decode(), mask)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(4, 9), st.integers(4, 9))
@settings(deadline=None)
def test_polygons_to_about_half_a_pixel(x, y, width, height):
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    mask = CocoMask(1.0, (30, 30), [corners]).decode()
    inside = np.zeros((30, 30), bool)
    inside[y + 1 : y + height - 1, x + 1 : x + width - 1] = True
    around = np.zeros((30, 30), bool)
    around[y - 1 : y + height + 1, x - 1 : x + width + 1] = True
    assert mask[inside].all()
    assert not mask[~around].any()


@pytest.mark.parametrize(
    ("packed", "sentence"),
    [("é", "outside ASCII"), ("0!", "stands for no digit"), ("\x7f", "stands for no digit"), ("P", "cut off"),
     ("P" * 9 + "0", "longer than any image")],
)  # fmt: skip
def test_packed_nonsense(packed, sentence):
    with pytest.raises(ValueError, match=sentence):
        unpack_runs(packed)


@given(st.text(alphabet=[chr(c) for c in range(40, 120)], max_size=40))
def test_any_text_gives_numbers_or_one_error(packed):
    mask = np.zeros((3, 5), bool)
    with contextlib.suppress(ValueError):
        mask = runs_to_mask(unpack_runs(packed), (3, 5))
    assert (mask.shape, mask.dtype) == ((3, 5), bool)


@pytest.mark.parametrize("runs", [[14], [16], [10, -5, 10], []])
def test_runs_that_do_not_fill_the_image(runs):
    with pytest.raises(ValueError, match=r"cover \d+ of 15 pixels|negative"):
        runs_to_mask(np.array(runs, np.int64), (3, 5))


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def entry(**changed):
    return {"image_id": 1, "score": 0.5, "segmentation": {"size": [2, 2], "counts": [1, 2, 1]}} | changed


def test_results_are_sorted_and_a_missing_score_is_one(tmp_path):
    unscored = entry()
    del unscored["score"]
    path = write(tmp_path / "m.json", [entry(), unscored, entry(score=0.7), entry(image_id="b")])
    masks, images = read_masks(path)
    assert [mask.score for mask in masks[1]] == [1.0, 0.7, 0.5]
    assert (set(masks), images) == ({1, "b"}, {})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ({"a": 1}, "neither a list of detections nor an object with `annotations`"),
        ([3], "detection 0 of .* cannot be used"),
        ([entry(), {"score": 1}], "detection 1 of .* has no 'image_id'"),
        ([entry(image_id=[1])], "an image id must be a number or a name"),
        ([entry(score=1.5)], "score must be a number from 0 to 1, not 1.5"),
        ('[{"image_id": 1, "score": NaN, "segmentation": []}]', "score must be a number from 0 to 1, not nan"),
        ([entry(segmentation=None)], "neither run lengths nor polygons"),
        ([entry(segmentation={"size": [2, 2]})], "has no 'counts'"),
        ([entry(segmentation={"size": [100_000, 100_000], "counts": [10**10]})], "is outside 1 .. 200,000,000 pixels"),
        ([entry(segmentation={"size": [2, -2], "counts": [4]})], "is outside 1 .. 200,000,000 pixels"),
        ([entry(segmentation={"size": [2, 2], "counts": [4.0]})], "neither packed nor a list of lengths"),
        ([entry(segmentation={"size": [2, 2], "counts": [10**30]})], "neither packed nor a list of lengths"),
        ([entry(segmentation=[[0, 0, 1, 1]])], "neither run lengths nor polygons of three corners"),
        ([entry(segmentation=[[0, 0, 1, 1, 0, 10**400]])], "cannot be used"),
        ([entry(segmentation=[[0, 0, 1, 1, 0, 1]])], "no list of images tells the height and width"),
        ({"images": [{"id": 1}], "annotations": []}, "`images` of .* are not in COCO's form"),
        ({"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []}, "id 1 occurs twice"),
        ({"images": [{"id": 1, "file_name": "a", "height": 0, "width": 9}], "annotations": []}, "the size 0 x 9"),
    ],
)
def test_files_that_are_refused(tmp_path, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read_masks(write(tmp_path / "m.json", content))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        read_masks(tmp_path / "none.json")
