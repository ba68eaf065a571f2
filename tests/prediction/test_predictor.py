import sys

import numpy as np
import pytest
from PIL import Image
from predicting_doubles import STUFF, THINGS, noise, save_untrained

import cupola
from cupola.errors import ConfigError, ImageError
from cupola.io import write_rgb
from cupola.prediction.pixels import rgb_of, shrunk
from cupola.types import VOID


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def image():
    return noise()


@pytest.fixture(scope="module")
def predictor(model):
    return cupola.load(model, threshold=0.01)


@pytest.fixture(scope="module")
def prediction(predictor, image):
    return predictor(image, scores=True)


def same(one, other):
    return (
        np.array_equal(one.panoptic.stacked(), other.panoptic.stacked())
        and one.segments == other.segments
        and np.array_equal(one.semantic, other.semantic)
    )


def test_a_prediction_speaks_in_pseudo_classes(prediction, image):
    assert set(np.unique(prediction.panoptic.classes)) <= {VOID, *THINGS, *STUFF}
    assert set(np.unique(prediction.semantic)) <= {VOID, *STUFF}
    things = [s for s in prediction.segments if s.is_thing]
    assert things, "the test needs a network that finds something"
    assert len(prediction.instances) == len(things)
    for mask, score, thing in zip(prediction.instances.masks, prediction.instances.scores, things, strict=True):
        assert score == np.float32(thing.score)
        assert score >= 0.01
        assert mask.sum() == thing.area
        assert (prediction.panoptic.classes[mask] == thing.category).all()


def test_coco_ids_and_segments_agree(prediction, image):
    rgb, segments = prediction.to_coco()
    assert rgb.shape == image.shape
    ids = rgb.astype(int) @ [1, 256, 65536]
    assert {s["id"] for s in segments} == set(np.unique(ids)) - {0}
    for segment in segments:
        where = ids == segment["id"]
        assert segment["area"] == where.sum()
        assert (prediction.panoptic.classes[where] == segment["category_id"]).all()
        assert bool(segment["isthing"]) == (segment["category_id"] in THINGS)
    assert ((ids == 0) == (prediction.panoptic.classes == VOID)).all()


def test_scores_are_kept_on_request_and_lead_to_the_semantic_map(predictor, prediction, image):
    scores = prediction.semantic_scores
    assert scores.dtype == np.float16
    assert scores.shape == (1 + len(STUFF), *image.shape[:2])
    assert np.allclose(scores.astype(np.float32).sum(0), 1, atol=0.01)
    best = np.array([VOID, *STUFF])[scores.argmax(0)]
    assert (best == prediction.semantic).mean() > 0.98  # half precision makes ties
    assert predictor(image).semantic_scores is None


def test_each_image_of_a_batch_gets_what_it_gets_alone(predictor, image):
    other = image[:50, :70]
    alone = [predictor(image), predictor(other)]
    assert all(same(a, t) for a, t in zip(alone, predictor.batch([image, other]), strict=True))


def test_an_image_may_come_in_many_forms(predictor, image, tmp_path):
    write_rgb(tmp_path / "a.png", image)
    grey = image[..., 0]
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), image.astype(np.uint16) * 256]
    forms += [image.astype(np.float32) / 255, np.dstack([image, grey])]
    assert all(np.array_equal(rgb_of(form), image) for form in forms)
    repeated = np.dstack([grey] * 3)
    for form in (grey, grey[..., None], Image.fromarray(grey), Image.fromarray(grey).quantize(256)):
        assert np.abs(rgb_of(form).astype(int) - repeated).max() <= 8
    assert same(predictor(tmp_path / "a.png"), predictor(image))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\) is no image"),
        (np.zeros((0, 8, 3), np.uint8), "is no image"),
        (np.zeros((2, 8, 8, 3), np.uint8), "is no image"),
        (np.full((8, 8, 3), 2.0), r"type float64 with values 2.0 .. 2.0"),
        (np.full((8, 8, 3), np.nan), "type float64"),
        (np.zeros((8, 8), np.int64), "type int64"),
    ],
)
def test_what_is_no_image_is_told_in_one_sentence(predictor, array, words):
    with pytest.raises(ImageError, match=words):
        predictor(array)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 900), (700, 3), (33, 31)])
def test_any_shape_is_predicted(predictor, shape):
    pixels = np.random.default_rng(1).integers(0, 255, (*shape, 3)).astype(np.uint8)
    prediction = predictor(pixels)
    assert prediction.panoptic.classes.shape == shape
    assert prediction.overlay(legend=True).shape[0] > shape[0]


@pytest.mark.parametrize("shape", [(64, 96), (3, 500), (500, 2), (1, 1), (120, 7)])
def test_shrinking_keeps_to_the_pixels_and_the_mean(shape):
    pixels = np.full((*shape, 3), 77, np.uint8)
    small = shrunk(pixels, 100)
    assert small.shape[0] * small.shape[1] <= max(100, min(shape))
    assert (small == 77).all()
    assert shrunk(pixels, shape[0] * shape[1]) is pixels


def test_a_large_image_gets_a_result_of_its_own_size(model, image):
    large = np.repeat(np.repeat(image, 4, 0), 4, 1)
    small = cupola.load(model, threshold=0.01)(image)
    result = cupola.load(model, threshold=0.01, max_pixels=image.shape[0] * image.shape[1])(large, scores=True)
    assert np.array_equal(result.panoptic.classes[::4, ::4], small.panoptic.classes)
    assert np.array_equal(result.panoptic.classes[3::4, 3::4], small.panoptic.classes)
    assert [s.area for s in result.segments] == [16 * s.area for s in small.segments]
    assert result.semantic_scores.shape[1:] == large.shape[:2]


def test_half_precision_says_nearly_the_same(model, image):
    full, half = (cupola.load(model, threshold=0.01, precision=p)(image, scores=True) for p in ("float32", "bfloat16"))
    difference = np.abs(full.semantic_scores.astype(np.float32) - half.semantic_scores)
    assert difference.max() > 0
    assert difference.mean() < 0.02


def test_the_settings_of_the_merge_are_heard(model, image):
    def stuff(**settings):
        return {s.category: s.area for s in cupola.load(model, threshold=1.0, **settings)(image).segments}

    every = stuff(stuff_area=0.0)
    limit = float(max(every.values()))
    assert stuff(stuff_area=limit) == {c: a for c, a in every.items() if a >= limit}
    assert stuff(stuff_area=(limit + 0.2) / image[..., 0].size) == stuff(stuff_area=limit)
    assert stuff(stuff_area=limit + 1) == {c: a for c, a in every.items() if a > limit}
    # In a shrunk image a pixel stands for several.
    pixels = image[..., 0].size
    large = np.repeat(np.repeat(image, 2, 0), 2, 1)
    shrunk_first = cupola.load(model, threshold=1.0, max_pixels=pixels, stuff_area=4 * limit)(large)
    assert {s.category for s in shrunk_first.segments} == stuff(stuff_area=limit).keys()

    def things(overlap):
        found = cupola.load(model, threshold=0.01, overlap=overlap)(image).segments
        return sum(s.is_thing for s in found)

    assert things(0.0) < things(1.0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"overlap": -1.0}, "overlap"),
        ({"stuff_area": -1.0}, "stuff_area"),
        ({"max_pixels": 0}, "max_pixels"),
    ],
)
def test_settings_out_of_range_are_refused(model, settings, word):
    with pytest.raises(ConfigError, match=f"^{word} must"):
        cupola.load(model, **settings)


def test_six_views_give_another_map_with_probabilities(model, predictor, image):
    six = cupola.load(model, threshold=0.01, tta=True)
    prediction = six(image, scores=True)
    assert np.allclose(prediction.semantic_scores.astype(np.float32).sum(0), 1, atol=0.01)
    assert not same(prediction, predictor(image))
    # The views hold each image and its mirror image alike.
    mirrored = six(image[:, ::-1])
    assert (mirrored.semantic[:, ::-1] == prediction.semantic).mean() > 0.99
    assert six.fingerprint() != predictor.fingerprint()


def test_the_fingerprint_tells_networks_and_settings_apart(model, predictor):
    assert cupola.load(model, threshold=0.01).fingerprint() == predictor.fingerprint()
    assert cupola.load(model, threshold=0.02).fingerprint() != predictor.fingerprint()
    changed = cupola.load(model, threshold=0.01)
    next(changed.network.parameters()).data[0] += 1
    assert changed.fingerprint() != predictor.fingerprint()


def test_detections_of_supervision(prediction, image):
    supervision = pytest.importorskip("supervision")
    detections = prediction.to_supervision()
    things = [s for s in prediction.segments if s.is_thing]
    assert detections.class_id.tolist() == [s.category for s in things]
    assert detections.data["class_name"].tolist() == [f"class {s.category}" for s in things]
    assert np.array_equal(detections.confidence, prediction.instances.scores)
    assert detections.area.tolist() == [s.area for s in things]
    for (x0, y0, x1, y1), mask in zip(detections.xyxy, prediction.instances.masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert (x0, y0, x1, y1) == (columns[0], rows[0], columns[-1], rows[-1])
    drawn = supervision.MaskAnnotator().annotate(image.copy(), detections)
    assert not np.array_equal(drawn, image)
    assert len(detections[detections.confidence > 2]) == 0


def test_no_detections_are_no_error(model, image):
    pytest.importorskip("supervision")
    assert len(cupola.load(model, threshold=1.0)(image).to_supervision()) == 0


def test_without_supervision_one_sentence_says_what_to_install(prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match=r"pip install 'cupola\[supervision\]'"):
        prediction.to_supervision()
