"""The small real sets of ../shared/data: counts, sizes, calibration, truth."""

import numpy as np
import pytest

from cupola.data import open_dataset
from cupola.taxonomy import CITYSCAPES_19
from cupola.types import VOID


@pytest.fixture(scope="module")
def real(shared):
    if not (shared / "data").is_dir():
        pytest.skip("../shared/data is not here")
    return shared / "data"


def test_kitti_odometry(real):
    dataset = open_dataset(real / "kitti_odometry")
    assert (dataset.layout, len(dataset), len(dataset.pairs()), dataset.gaps()) == ("kitti_odometry", 43, 36, ())
    assert list(dataset.sequences) == ["01", "02", "03", "04", "06", "07", "08"]
    record = next(record for record in dataset.records if record.key == "02_000004")
    assert record.time == pytest.approx(0.4147131)  # the sequence starts at frame 4, times.txt at frame 0
    assert record.calibration.baseline == pytest.approx(0.5323, abs=1e-4)
    assert dataset.source_size(record) == (376, 1241)
    clip = dataset.clip(dataset.pairs()[0])
    assert clip.key == "01_000000"
    assert clip.first.size == (376, 1241)


def test_kitti_odometry_truth_is_the_labelled_points(real):
    dataset = open_dataset(real / "kitti_odometry")
    assert all(record.truth is not None for record in dataset.records)
    record = next(record for record in dataset.records if record.key == "04_000004")
    truth = dataset.truth(record, CITYSCAPES_19)
    assert truth is not None
    assert truth.classes.shape == dataset.source_size(record)
    with np.load(record.truth) as points:
        at_points = truth.classes[points["row"], points["col"]]
        for raw, name in ((40, "road"), (70, "vegetation"), (252, "car"), (20, None), (0, None)):
            expected = VOID if name is None else CITYSCAPES_19.names.index(name)
            of_raw = at_points[(points["label"] == raw) & (points["instance"] != 4)]  # object 4: two points
            assert (of_raw == expected).all(), raw
        assert (truth.classes != VOID).sum() == (at_points != VOID).sum()
        assert dataset.judged(record, truth, truth)[0].classes.shape == (1, len(points["row"]))
    moving = dataset.moving(record)
    sizes = {number: (truth.instances == number).sum() for number in np.unique(truth.instances) if number}
    assert sorted(sizes[number] for number in sizes if number in moving) == [299, 591]  # van ahead, oncoming car


def test_kitti_2015_stereo(real):
    dataset = open_dataset(real / "kitti15_stereo")
    assert (dataset.layout, len(dataset), len(dataset.pairs())) == ("kitti_2015", 9, 0)
    assert all(record.truth is not None for record in dataset.records)
    truth = dataset.truth(dataset.records[0], CITYSCAPES_19)
    assert truth is not None
    cars = np.unique(truth.instances[truth.classes == CITYSCAPES_19.names.index("car")])
    assert cars[cars > 0].min() == 26001  # 0: a crowd of cars
    road = truth.classes == CITYSCAPES_19.names.index("road")
    assert road[-60:].mean() > 0.3
    assert road[:120].mean() < 0.001


def test_kitti_2015_video(real):
    dataset = open_dataset(real / "kitti15_video")
    assert (dataset.layout, len(dataset), len(dataset.pairs())) == ("kitti_2015", 10, 9)
    assert dataset.records[0].key == "000043_06"


def test_cityscapes(real):
    dataset = open_dataset(real / "cityscapes", scale=0.625)
    assert (dataset.layout, len(dataset), len(dataset.pairs())) == ("cityscapes", 1, 0)
    (record,) = dataset.records
    assert (record.key, record.truth) == ("aachen_000029_000019", None)
    assert "2 left images" in dataset.notes[0]
    frame = dataset.frame(record)
    assert frame.size == (640, 1280)
    assert frame.calibration.fx == pytest.approx(2262.52 * 0.625)
    assert frame.calibration.cx == pytest.approx((1096.98 + 0.5) * 0.625 - 0.5)
    assert frame.valid.sum() == (640 - 32 - 128) * (1280 - 2 * 60)
