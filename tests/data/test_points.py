"""Labelled lidar points as truth: classes, objects, what moves, other sizes, and what is said of bad files."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import small_trees as trees
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cupola.data.points import (
    LABEL_IDS,
    LEAST_POINTS,
    LabelledPoints,
    decode_points,
    labelled_pixels,
    moving_ids,
    read_points,
)
from cupola.data.resizing import resize_ids
from cupola.errors import DataError
from cupola.taxonomy import CITYSCAPES_19, CITYSCAPES_27
from cupola.types import VOID

SIZE = (12, 20)
CAR, PERSON, ROAD = (CITYSCAPES_19.names.index(name) for name in ("car", "person", "road"))


def points_of(label, instance=0, size=SIZE, depth=9.0):
    """A point at each pixel, from the top left, for each of the labels."""
    label = np.asarray(label, np.int64)
    row, col = np.divmod(np.arange(len(label)), size[1])
    return LabelledPoints(
        row, col, label, np.broadcast_to(instance, label.shape).astype(np.int64), np.full(len(label), depth, np.float32)
    )


@st.composite
def many_points(draw):
    """Points at distinct pixels of an image of `SIZE`, of any label."""
    height, width = SIZE
    count = draw(st.integers(0, height * width))
    pixels = np.array(draw(st.permutations(range(height * width)))[:count], np.int64)
    labels = st.sampled_from([*LABEL_IDS, 0, 1, 20, 52, 99, 259])
    label = draw(arrays(np.int64, count, elements=labels))
    instance = draw(arrays(np.int64, count, elements=st.integers(0, 3)))
    return LabelledPoints(pixels // width, pixels % width, label, instance, np.linspace(2, 80, count, dtype=np.float32))


@given(many_points(), st.sampled_from([CITYSCAPES_19, CITYSCAPES_27]))
def test_each_point_has_its_class_and_nothing_else_has_one(points, taxonomy):
    truth = decode_points(points, taxonomy, SIZE, 1.0)
    expected = np.full(SIZE, VOID)
    for row, col, label, instance in zip(points.row, points.col, points.label, points.instance, strict=True):
        if LABEL_IDS.get(int(label)) in taxonomy.label_ids:
            number = taxonomy.label_ids.index(LABEL_IDS[int(label)])
            same = ((points.label == label) & (points.instance == instance)).sum()
            if not taxonomy.is_thing[number] or same >= LEAST_POINTS:
                expected[row, col] = number
    np.testing.assert_array_equal(truth.classes, expected)
    is_object = np.isin(truth.classes, np.flatnonzero(taxonomy.is_thing))
    assert not truth.instances[~is_object].any()


@given(many_points())
def test_objects_are_told_apart_by_label_and_instance(points):
    truth = decode_points(points, CITYSCAPES_19, SIZE, 1.0)
    ids = truth.instances[points.row, points.col]
    named = {}
    for number, label, instance in zip(ids, points.label, points.instance, strict=True):
        if number:
            assert named.setdefault(number, (label, instance)) == (label, instance)
    assert len(set(named.values())) == len(named)
    assert all(instance > 0 for _, instance in named.values())


@given(many_points(), st.sampled_from([0.5, 0.75, 1.0, 2.0]))
def test_a_resized_truth_holds_only_what_was_there(points, scale):
    whole, resized = (decode_points(points, CITYSCAPES_19, SIZE, s) for s in (1.0, scale))
    assert resized.classes.shape == resize_ids(whole.classes, scale).shape
    assert set(np.unique(resized.classes)) <= set(np.unique(whole.classes)) | {VOID}
    assert set(np.unique(resized.instances)) <= set(np.unique(whole.instances)) | {0}
    mask = labelled_pixels(points, SIZE, scale)
    assert not (~mask & (resized.classes != VOID)).any()
    assert mask.sum() <= len(points.row)
    if scale >= 1:
        assert mask.sum() == len(points.row)


def test_of_points_in_one_pixel_the_nearest_counts():
    points = points_of([40] * 20 + [70] * 20)
    depth = np.where(np.arange(40) < 20, 50, 5).astype(np.float32)
    for depths, name in ((depth, "vegetation"), (depth[::-1].copy(), "road")):
        truth = decode_points(replace(points, depth=depths), CITYSCAPES_19, SIZE, 0.5)
        assert (truth.classes[0] == CITYSCAPES_19.names.index(name)).all()


def test_moving_objects():
    label = np.repeat([252, 10, 254, 252], 10)
    points = points_of(label, np.repeat([1, 1, 2, 0], 10))
    truth = decode_points(points, CITYSCAPES_19, SIZE, 1.0)
    assert [CITYSCAPES_19.names[k] for k in truth.classes.ravel()[[0, 10, 20, 30]]] == ["car", "car", "person", "car"]
    moving, standing, person, crowd = truth.instances.ravel()[[0, 10, 20, 30]]
    assert len({moving, standing, person}) == 3
    assert crowd == 0
    assert moving_ids(points) == {moving, person}


def test_an_object_of_few_points_is_unknown():
    few, enough = ([10] * (LEAST_POINTS - 1), [10] * LEAST_POINTS)
    assert (decode_points(points_of(few, 1), CITYSCAPES_19, SIZE, 1.0).classes == VOID).all()
    assert (decode_points(points_of(enough, 1), CITYSCAPES_19, SIZE, 1.0).classes == CAR).sum() == LEAST_POINTS
    assert (decode_points(points_of([40]), CITYSCAPES_19, SIZE, 1.0).classes == ROAD).sum() == 1  # stuff is no object


def test_round_trip(tmp_path):
    path = trees.labelled_pixels(tmp_path / "000000.npz")
    points = read_points(path)
    assert points.label.tolist() == [40] * trees.WIDTH + [10] * trees.WIDTH
    assert points.depth.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays_", "message"),
    [
        ({"row": np.arange(3)}, "are not lists of equal length"),
        ({"label": np.zeros((2, trees.WIDTH), int)}, "are not lists of equal length"),
        ({"label": np.full(2 * trees.WIDTH, 1 << 16)}, "must be whole numbers from 0 to 65535"),
        ({"row": np.full(2 * trees.WIDTH, -1)}, "must be whole numbers from 0 to 65535"),
        ({"col": np.full(2 * trees.WIDTH, 1.5)}, "must be whole numbers from 0 to 65535"),
        ({"label": np.array([None] * 2 * trees.WIDTH)}, "not an npz file of labelled pixels"),
        ({"depth": np.array(["far"] * 2 * trees.WIDTH)}, "depths that are no numbers"),
    ],
)
def test_bad_arrays(tmp_path, arrays_, message):
    path = trees.labelled_pixels(tmp_path / "000000.npz", **arrays_)
    with pytest.raises(DataError, match=rf"000000\.npz.*{message}"):
        read_points(path)


def test_bad_files(tmp_path):
    path = trees.labelled_pixels(tmp_path / "000000.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged"):
        read_points(path)
    with pytest.raises(DataError, match="damaged"):
        read_points(tmp_path / "missing.npz")
    np.save(tmp_path / "one.npy", np.arange(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match="damaged"):
        read_points(tmp_path / "one.npz")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("row.npy", b"nothing")
    path.write_bytes(content.getvalue())
    with pytest.raises(DataError, match="has no array `col`"):
        read_points(path)


def test_points_outside_the_image():
    with pytest.raises(DataError, match="row 12, column 19, outside 20 x 12"):
        decode_points(points_of([40] * 260), CITYSCAPES_19, SIZE, 1.0)
