import numpy as np
import pytest

from cupola.errors import ConfigError, StoreError
from cupola.semantics import OfflineModel, OfflineSemantics
from cupola.types import VOID, Calibration, StereoFrame


def _street(seed: int, height: int = 96, width: int = 200) -> tuple[StereoFrame, np.ndarray, np.ndarray]:
    """Grey road, green bank left, bright sky, one upright red box; exact disparity with noise."""
    rng = np.random.default_rng(seed)
    calibration = Calibration(fx=0.6 * width, fy=0.6 * width, cx=width / 2, cy=0.4 * height, baseline=0.5)
    slope = calibration.baseline / 1.6
    y, x = np.mgrid[:height, :width].astype(np.float32)
    disparity = np.maximum(slope * (y - calibration.cy), 0.3) + rng.normal(0, 0.1, (height, width))
    image = np.full((height, width, 3), 110.0)
    image[y < calibration.cy] = (200, 210, 255)
    image[(x < width * 0.3) & (y > 0.2 * height)] = (60, 130, 50)
    disparity[(x < width * 0.3) & (y > 0.2 * height)] += 2
    left = int(rng.integers(width // 2, width - 40))
    box = (x >= left) & (x < left + 30) & (y > 0.35 * height) & (y < 0.7 * height)
    image[box] = (180, 40, 40)
    disparity[box] = slope * 0.3 * height
    image += rng.normal(0, 6, image.shape)
    picture = np.clip(image, 0, 255).astype(np.uint8)
    frame = StereoFrame(picture, picture, calibration, np.ones((height, width), bool), f"street_{seed}")
    return frame, disparity.astype(np.float32), disparity > 0.5


@pytest.fixture(scope="module")
def frames():
    return [_street(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def model(frames):
    return OfflineSemantics(classes=6, clusters=60).fit(frames, seed=0)


def test_road_and_bank_differ(model, frames):
    classes = model(*frames[0]).classes
    road = np.bincount(classes[80:, 80:160].ravel()).argmax()
    bank = np.bincount(classes[40:, :50].ravel()).argmax()
    sky = np.bincount(classes[:25, 70:].ravel()).argmax()
    assert len({road, bank, sky}) == 3


def test_same_seed_same_maps_other_seed_other_clusters(frames, model):
    again = OfflineSemantics(classes=6, clusters=60).fit(frames, seed=0)
    assert np.array_equal(again.clusters, model.clusters)
    assert np.array_equal(again(*frames[1]).classes, model(*frames[1]).classes)
    other = OfflineSemantics(classes=6, clusters=60).fit(frames, seed=1)
    assert not np.array_equal(other.clusters, model.clusters)


def test_fitting_in_parts_is_the_same(frames, model):
    settings = OfflineSemantics(classes=6, clusters=60)
    apart = settings.fit_described([settings.describe(*frame, 0) for frame in frames], 0)
    assert np.array_equal(apart.clusters, model.clusters)


@pytest.mark.parametrize("classes", [1, 2, 6, 27, 40])
def test_number_of_classes(frames, classes):
    model = OfflineSemantics(classes=classes, smallest_share=0.001).fit(frames[:2], seed=0)
    assert 1 <= model.num_classes <= classes
    assert set(np.unique(model.class_of_cluster)) == set(range(model.num_classes))
    assert model(*frames[0]).classes.max() < model.num_classes
    if classes <= 6:
        assert model.num_classes == classes


def test_save_and_load(model, frames, tmp_path):
    model.save(tmp_path / "model.npz")
    loaded = OfflineModel.load(tmp_path / "model.npz")
    assert loaded.num_classes == model.num_classes
    assert np.array_equal(loaded(*frames[2]).classes, model(*frames[2]).classes)


def test_a_missing_or_damaged_model_is_one_sentence(model, tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(StoreError, match="does not exist"):
        OfflineModel.load(path)
    model.save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="damaged"):
        OfflineModel.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="damaged"):
        OfflineModel.load(path)


def test_fit_at_one_size_predict_at_another(model, frames):
    small = model(*frames[0]).classes
    large = model(*_street(0, 192, 400)).classes[::2, ::2]
    assert (small == large).mean() > 0.6


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 60), (60, 7)])
def test_tiny_images(model, size):
    height, width = size
    picture = np.full((height, width, 3), 90, np.uint8)
    calibration = Calibration(fx=50.0, fy=50.0, cx=width / 2, cy=height / 2, baseline=0.5)
    frame = StereoFrame(picture, picture, calibration, np.ones(size, bool), "tiny")
    nothing, unknown = np.full(size, np.nan, np.float32), np.zeros(size, bool)
    assert model(frame, nothing, unknown).classes.shape == size
    assert OfflineSemantics(classes=2).fit([(frame, nothing, unknown)], 0).num_classes >= 1


@pytest.mark.parametrize("level", [0, 255])
def test_a_plain_image_without_disparity(level):
    size = (96, 200)
    picture = np.full((*size, 3), level, np.uint8)
    calibration = Calibration(fx=120.0, fy=120.0, cx=100.0, cy=40.0, baseline=0.5)
    frame = StereoFrame(picture, picture, calibration, np.ones(size, bool), "plain")
    nothing, unknown = np.full(size, np.nan, np.float32), np.zeros(size, bool)
    model = OfflineSemantics().fit([(frame, nothing, unknown)], 0)
    classes = model(frame, nothing, unknown).classes
    assert classes.min() >= 0
    assert classes.max() < model.num_classes


def test_pixels_that_show_no_scene_are_void_and_not_fitted(frames):
    frame, disparity, valid = frames[0]
    mask = np.ones(frame.size, bool)
    mask[70:] = False
    masked = StereoFrame(frame.left, frame.right, frame.calibration, mask, frame.key)
    black = frame.left.copy()
    black[70:] = 0
    blackened = StereoFrame(black, frame.right, frame.calibration, mask, frame.key)
    model = OfflineSemantics(classes=4).fit([(masked, disparity, valid)], 0)
    classes = model(masked, disparity, valid).classes
    assert (classes[70:] == VOID).all()
    assert (classes[:70] >= 0).all()
    described = OfflineSemantics().describe(blackened, disparity, valid, 0)
    assert described.pixels.sum() == mask.sum()
    nowhere = StereoFrame(frame.left, frame.right, frame.calibration, np.zeros(frame.size, bool), frame.key)
    with pytest.raises(ConfigError, match="no frame with a usable pixel"):
        OfflineSemantics().fit([(nowhere, disparity, valid)], 0)


def test_chosen_frames_are_spread_evenly():
    settings = OfflineSemantics(fit_frames=10)
    assert settings.choose(7) == list(range(7))
    chosen = settings.choose(1003)
    assert len(chosen) == 10
    assert chosen[0] == 0
    assert set(np.diff(chosen)) <= {100, 101}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"classes": 0}, "classes must lie in"),
        ({"classes": 255, "clusters": 400}, "classes must lie in"),
        ({"clusters": 20}, "at least semantics.classes"),
        ({"smallest_share": 1.0}, "smallest_share"),
        ({"fit_frames": 0}, "fit_frames"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        OfflineSemantics(**wrong)


def test_real_frames_are_told_apart(shared):
    """Two KITTI frames, fitted on themselves: most pixels lie in a class that is mainly of their true class."""
    from cupola.correspondence import ClassicalCorrespondence
    from cupola.data import open_dataset
    from cupola.taxonomy import CITYSCAPES_19

    dataset = open_dataset(shared / "data" / "kitti15_stereo", scale=0.5)
    records = [record for record in dataset.records if record.truth is not None][:2]
    frames = [dataset.frame(record) for record in records]
    inputs = [(frame, *ClassicalCorrespondence().disparity(frame)) for frame in frames]
    model = OfflineSemantics().fit(inputs, seed=0)
    confusion = np.zeros((model.num_classes, len(CITYSCAPES_19)), int)
    for record, one in zip(records, inputs, strict=True):
        truth = dataset.truth(record, CITYSCAPES_19).classes
        known = truth != VOID
        np.add.at(confusion, (model(*one).classes[known], truth[known]), 1)
    shuffled = confusion.sum(0).max() / confusion.sum()
    assert confusion.max(1).sum() / confusion.sum() > max(0.6, shuffled + 0.15)
