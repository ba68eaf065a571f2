import json

import numpy as np
import pytest
import torch

import cupola
from cupola.cli import main
from cupola.io import write_rgb
from cupola.io.coco_panoptic import read_index, read_map
from cupola.models import PanopticNetwork, save_network, tiny
from cupola.prediction.sources import unique_keys
from cupola.types import VOID

THINGS, STUFF = (5, 2), (0, 3, 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    save_network(directory, PanopticNetwork(tiny(), len(THINGS), len(STUFF)), {"things": THINGS, "stuff": STUFF})
    return directory


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)


def test_a_prediction_speaks_in_pseudo_classes(model, image):
    prediction = cupola.load(model, threshold=0.05)(image)
    assert set(np.unique(prediction.panoptic.classes)) <= {VOID, *THINGS, *STUFF}
    assert prediction.overlay().shape == image.shape
    ids, segments = prediction.to_coco()
    assert ids.shape == image.shape
    for segment in segments:
        assert segment["category_id"] in (*THINGS, *STUFF)
        assert bool(segment["isthing"]) == (segment["category_id"] in THINGS)
    for mask, score in zip(prediction.instances.masks, prediction.instances.scores, strict=True):
        assert score >= 0.05
        assert np.isin(prediction.panoptic.classes[mask], THINGS).all()


def test_batches_of_different_sizes_give_what_single_images_give(model, image):
    predictor = cupola.load(model, threshold=0.05)
    other = image[:50, :70]
    for alone, together in zip([predictor(image), predictor(other)], predictor.batch([image, other]), strict=True):
        # Padding to a common size may move a score across a threshold, not a whole picture.
        assert (alone.panoptic.classes == together.panoptic.classes).mean() > 0.95


def test_the_command_writes_coco_and_goes_on_past_a_damaged_file(model, image, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_rgb(tmp_path / "in" / "a.png", image)
    write_rgb(tmp_path / "in" / "c.png", image[::-1])
    (tmp_path / "in" / "b.png").write_bytes(b"not an image")
    assert main(["predict", str(tmp_path / "in"), "--model", str(model), "--out", str(tmp_path / "out")]) == 0
    assert "b.png" in capsys.readouterr().out
    annotations, categories = read_index(tmp_path / "out" / "panoptic.json")
    assert [a.key for a in annotations] == ["a", "c"]
    assert {c.id: c.is_thing for c in categories} == {c: c in THINGS for c in (*THINGS, *STUFF)}
    for annotation in annotations:
        assert read_map(tmp_path / "out" / "panoptic", annotation).classes.shape == image.shape[:2]
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert (tmp_path / "out" / "overlays" / "a.png").exists()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes(b"x" * 100), "model.safetensors"),
        (lambda m: (m / "model.json").write_text("{"), "model.json"),
    ],
)
def test_a_broken_model_is_one_sentence(model, image, tmp_path, capsys, break_it, sentence):
    broken = tmp_path / "model"
    broken.mkdir()
    for name in ("model.safetensors", "model.json"):
        (broken / name).write_bytes((model / name).read_bytes())
    break_it(broken)
    write_rgb(tmp_path / "a.png", image)
    assert main(["predict", str(tmp_path / "a.png"), "--model", str(broken), "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_no_image_is_one_sentence(model, tmp_path, capsys):
    assert main(["predict", str(tmp_path / "*.png"), "--model", str(model), "--out", str(tmp_path / "o")]) == 2
    assert "there is no image" in capsys.readouterr().err


def test_keys_are_unique(tmp_path):
    paths = [tmp_path / "x" / "0.png", tmp_path / "y" / "0.png"]
    assert unique_keys(paths) == ["x_0", "y_0"]
    assert unique_keys(paths[:1]) == ["0"]


def test_the_model_card_is_json(model):
    assert json.loads((model / "model.json").read_text())
