"""Flow and disparity from disk."""

from dataclasses import replace

import numpy as np
import pytest

from cupola.correspondence import FileCorrespondence
from cupola.errors import DataError
from cupola.io.fields import write_disparity, write_flow
from cupola.types import Calibration, StereoClip, StereoFrame

SIZE = (24, 40)
CALIBRATION = Calibration(50.0, 50.0, 20.0, 12.0, 0.5)


def frame(key):
    image = np.zeros((*SIZE, 3), np.uint8)
    return StereoFrame(image, image, CALIBRATION, np.ones(SIZE, bool), key)


CLIP = StereoClip(frame("s_0"), frame("s_1"))


def constant(*values):
    return np.stack([np.full(SIZE, value, np.float32) for value in values])


@pytest.fixture(params=["png", "flo", "pfm", "npz"])
def directory(request, tmp_path):
    """A scene that moves by (3, 1) px at 4 px of disparity; the right disparity too."""
    suffix = "npz" if request.param == "flo" else request.param
    write_flow(tmp_path / "flow" / f"s_0.{request.param}", constant(3, 1))
    write_flow(tmp_path / "flow_backward" / f"s_0.{request.param}", constant(-3, -1))
    for key in ("s_0", "s_1"):
        write_disparity(tmp_path / "disparity" / f"{key}.{suffix}", constant(4)[0])
        write_disparity(tmp_path / "disparity_right" / f"{key}.{suffix}", constant(4)[0])
    return tmp_path


def test_fields_are_read_and_checked(directory):
    method = FileCorrespondence(directory)
    method.check([("s_0", "s_1")])
    found = method(CLIP)
    assert found.flow_valid[:-1, :-3].all()  # what leaves the image cannot be confirmed
    assert not found.flow_valid[-1:].any()
    assert not found.flow_valid[:, -3:].any()
    assert found.disparity_valid[:, 4:].all()
    assert not found.disparity_valid[:, :4].any()
    assert np.isnan(found.flow[:, ~found.flow_valid]).all()
    assert np.isnan(found.disparity[~found.disparity_valid]).all()
    np.testing.assert_array_equal(found.flow[:, 5, 5], [3, 1])
    np.testing.assert_allclose(found.noise, 2.0)
    disparity, valid = method.disparity(CLIP.first)
    np.testing.assert_array_equal(disparity, found.disparity)
    np.testing.assert_array_equal(valid, found.disparity_valid)


def test_what_does_not_close_is_unknown(directory):
    wrong = constant(-3, -1)
    wrong[0, 10, 20] = 5
    for path in (directory / "flow_backward").iterdir():
        path.unlink()
    write_flow(directory / "flow_backward" / "s_0.npz", wrong)
    assert not FileCorrespondence(directory)(CLIP).flow_valid[9, 17]


def test_without_right_disparity_the_left_is_taken(directory):
    for path in (directory / "disparity_right").iterdir():
        path.unlink()
    found = FileCorrespondence(directory)(CLIP)
    assert found.disparity_valid.all()
    assert found.noise is None


def test_margins_are_unknown(directory):
    seen = np.ones(SIZE, bool)
    seen[:, :10] = False
    clip = StereoClip(replace(CLIP.first, valid=seen), CLIP.second)
    found = FileCorrespondence(directory)(clip)
    assert not found.flow_valid[:, :10].any()
    assert not found.disparity_valid[:, :10].any()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_field_of_nothing_known_is_no_error(directory, value):
    for path in (directory / "disparity").iterdir():
        path.unlink()
    for key in ("s_0", "s_1"):
        write_disparity(directory / "disparity" / f"{key}.npz", constant(value)[0])
    found = FileCorrespondence(directory)(CLIP)
    assert not found.disparity_valid.any()
    assert np.isnan(found.disparity).all()


def test_a_few_negative_disparities_are_unknown(directory):
    disparity = constant(4)[0]
    disparity[3, 30] = -2
    (next((directory / "disparity").glob("s_0.*"))).unlink()
    write_disparity(directory / "disparity" / "s_0.npz", disparity)
    assert not FileCorrespondence(directory)(CLIP).disparity_valid[3, 30]


def test_disparities_of_the_wrong_sign_are_refused(tmp_path):
    write_disparity(tmp_path / "disparity" / "s_0.npz", constant(-4)[0])
    with pytest.raises(DataError, match="mostly negative"):
        FileCorrespondence(tmp_path).disparity(CLIP.first)


def test_another_size_is_refused(tmp_path):
    write_disparity(tmp_path / "disparity" / "s_0.pfm", np.ones((5, 6), np.float32))
    with pytest.raises(DataError, match="is 6 x 5 pixels, but the images are 40 x 24"):
        FileCorrespondence(tmp_path).disparity(CLIP.first)


@pytest.mark.parametrize("folder", ["flow", "flow_backward", "disparity"])
def test_a_missing_file_is_named_before_any_work(directory, folder):
    for path in (directory / folder).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=f"{folder} has no file for frame s_0: none of s_0.png, s_0.flo"):
        FileCorrespondence(directory).check([("s_0", "s_1")])


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(DataError, match="no directory"):
        FileCorrespondence(tmp_path / "none").check()
