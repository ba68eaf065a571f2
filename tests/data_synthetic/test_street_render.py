"""`render`: the tree on disk, going on after a stop, and the same bytes every time."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import cupola
from cupola.data import open_dataset
from cupola.data.synthetic import StreetSettings, render, street, street_frame
from cupola.data.synthetic.writer import SPAN, encode_disparity
from cupola.errors import ConfigError, StoreError
from cupola.io import read_ids, read_rgb
from cupola.taxonomy import CITYSCAPES_27

SMALL = {"seed": 3, "frames": 2, "sequences": 2, "height": 48, "width": 96}


def _digest(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != "config.yaml":
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_tree_opens_as_any_other_data(tmp_path):
    result = cupola.render(tmp_path / "street", **SMALL)
    assert (result.sequences, result.frames, result.rendered) == (2, 4, 4)
    data = open_dataset(tmp_path / "street")
    assert data.layout == "folder"
    assert [record.key for record in data.records] == ["0000_000000", "0000_000001", "0001_000000", "0001_000001"]
    assert len(data.pairs()) == 2
    for record, (frame, truth) in zip(data.records[:2], street(3, 0, 2, 48, 96), strict=True):
        read = data.frame(record)
        np.testing.assert_array_equal(read.left, frame.left)
        np.testing.assert_array_equal(read.right, frame.right)
        assert read.key == frame.key
        assert read.calibration == frame.calibration
        assert data.moving(record) == truth.moving
        panoptic = data.truth(record, CITYSCAPES_27)
        np.testing.assert_array_equal(panoptic.instances, truth.instances)
        np.testing.assert_array_equal(panoptic.classes, CITYSCAPES_27.from_label_ids()[truth.classes])
        stored = read_ids(tmp_path / "street" / "0000" / "truth" / f"{record.number:06d}_disparity.png")
        assert np.abs(stored / 256 - truth.disparity).max() <= 0.5 / 256 + 1e-6


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(tmp_path):
    render(tmp_path / "whole", **SMALL)
    render(tmp_path / "parts", **{**SMALL, "sequences": 1})
    # stopped within the second sequence: a frame is there, the last file of the sequence is not
    render(tmp_path / "parts", **SMALL)
    (tmp_path / "parts" / "0001" / "street.json").unlink()
    (tmp_path / "parts" / "0001" / "left" / "000001.png").unlink()
    assert render(tmp_path / "parts", **SMALL).rendered == 2
    assert render(tmp_path / "parts", **SMALL).rendered == 0
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "parts")


def test_the_files_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    long = {**SMALL, "frames": SPAN + 2, "sequences": 2}
    monkeypatch.setattr("cupola.data.synthetic.writer.FRAMES_A_WORKER", 1)
    for workers in (1, 2):
        render(tmp_path / str(workers), **long, workers=workers)
    assert len(list((tmp_path / "2").rglob("*.png"))) == 2 * 4 * (SPAN + 2)
    assert _digest(tmp_path / "1") == _digest(tmp_path / "2")


@pytest.mark.parametrize("change", [{"seed": 4}, {"width": 128}, {"settings": StreetSettings(noise=1.0)}])
def test_another_street_in_the_same_place_is_refused(tmp_path, change):
    render(tmp_path, **{**SMALL, "sequences": 1})
    with pytest.raises(StoreError, match="choose another --out"):
        render(tmp_path, **{**SMALL, "sequences": 1, **change})


@pytest.mark.parametrize(
    "change", [{"frames": 0}, {"height": 4}, {"width": 100_000}, {"sequences": 0}, {"sequences": 10_001}]
)
def test_impossible_sizes_are_refused(tmp_path, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        render(tmp_path, **{**SMALL, **change})


def test_what_is_refused_leaves_nothing_behind(tmp_path):
    with pytest.raises(ConfigError, match="workers"):
        render(tmp_path / "street", **SMALL, workers=-1)
    assert not (tmp_path / "street").exists()


@pytest.mark.parametrize("change", [{"baseline": 0.0}, {"focal": -1.0}, {"noise": -0.1}, {"parked": float("nan")}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        StreetSettings(**change)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (47, 91), (376, 1241)])
def test_any_size(height, width):
    frame, truth = street_frame(1, 2, 0, 1, height, width)
    assert frame.size == (height, width)
    assert truth.flow.shape == (2, height, width)
    assert np.isfinite(truth.disparity).all()
    assert frame.left.std() > 10


def test_one_frame_alone_is_the_frame_of_the_video():
    frames = list(street(9, 1, 3, 48, 96))
    alone, truth = street_frame(9, 1, 2, 3, 48, 96)
    np.testing.assert_array_equal(alone.left, frames[2][0].left)
    np.testing.assert_array_equal(truth.flow, frames[2][1].flow)
    assert alone.key == "0001_000002"


def test_a_long_video_goes_somewhere():
    """A minute of street: the ego car drives on, and the far end still has houses and traffic."""
    frames = 600
    frame, truth = street_frame(2, 0, frames - 1, frames, 48, 96)
    assert {7, 11} <= set(np.unique(truth.classes).tolist())
    assert frame.left.std() > 10


def test_sensor_noise_is_as_strong_as_set_and_differs_between_eyes():
    clean, _ = street_frame(4, 0, 0, 1, 96, 192, StreetSettings(noise=0.0))
    noisy, _ = street_frame(4, 0, 0, 1, 96, 192, StreetSettings(noise=3.0))
    middle = (clean.left > 20) & (clean.left < 235)
    left = (noisy.left.astype(float) - clean.left)[middle]
    assert 2.5 < left.std() < 3.5
    assert abs(left.mean()) < 0.5
    both = middle & (clean.right > 20) & (clean.right < 235)
    right = noisy.right.astype(float) - clean.right
    assert abs(np.corrcoef((noisy.left.astype(float) - clean.left)[both], right[both])[0, 1]) < 0.05


def test_disparity_of_16_bits():
    encoded = encode_disparity(np.array([[0.0, 0.001, 1.5, 300.0]], np.float32))
    np.testing.assert_array_equal(encoded, [[0, 1, 384, 65535]])


@pytest.mark.slow
def test_the_same_bytes_for_any_number_of_threads():
    code = (
        "import hashlib; from cupola.data.synthetic import street; h = hashlib.sha256()\n"
        "for f, t in street(6, 0, 2, 48, 96): [h.update(x.tobytes()) for x in (f.left, f.right, t.flow, t.instances)]\n"
        "print(h.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_written_images_are_those_in_memory(tmp_path):
    render(tmp_path, **{**SMALL, "sequences": 1})
    frame, _ = street_frame(3, 0, 1, 2, 48, 96)
    np.testing.assert_array_equal(read_rgb(tmp_path / "0000" / "left" / "000001.png"), frame.left)
