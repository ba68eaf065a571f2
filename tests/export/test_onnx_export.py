"""Exported files give what the network gives, on any size, and need no torch."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import cupola
from cupola.cli import main
from cupola.errors import CheckpointError
from cupola.export import command
from cupola.export.comparison import Differences, compare, open_session, run_session
from cupola.io import content_hash, write_rgb
from cupola.models import PanopticNetwork, VitSettings, load_network, paper, save_network, tiny
from cupola.semantics.backbones.settings import VitSizes

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_onnx.py"
THINGS, STUFF = (5, 2), (0, 3, 4)
ROWS = 90
SIZES = [(64, 96), (90, 130), (97, 203), (33, 240), (210, 41)]
"""Below and above `ROWS`, no multiples of 32, wide, tall."""


def lively(network):
    """The network as training leaves it: norms that do something, and heads that are sure of objects."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    if network.num_things:
        for predictor in network.roi_heads.box_predictor:
            predictor.cls_score.weight.data *= 30
            predictor.bbox_pred.weight.data *= 30
        network.roi_heads.mask_head.predictor.weight.data *= 1000
    return network.eval()


def picture(height, width, seed=0):
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    return cells.repeat(9, 0).repeat(9, 1)[:height, :width]


def exported(directory, settings, things, stuff):
    """(network, file) of a random network."""
    torch.manual_seed(0)
    network = lively(PanopticNetwork(settings, len(things), len(stuff)))
    save_network(directory, network, {"things": things, "stuff": stuff, "class_names": {"5": "car"}})
    result = cupola.export_onnx(str(directory), out=directory / "net.onnx", threshold=0.4)
    assert result.size == result.out.stat().st_size
    return network, result.out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("model"), replace(tiny(), rows=ROWS), THINGS, STUFF)


@pytest.fixture(scope="module")
def session(model):
    return open_session(model[1])


def require_the_same(network, session, size, threshold, things=THINGS, stuff=STUFF):
    """The same but for near ties; returns the number of objects."""
    found = compare(network, session, picture(*size), threshold, things, stuff)
    assert found.within_bounds, found
    assert found.box < 0.02
    assert found.score < 1e-4
    assert found.panoptic < 0.01
    return len(run_session(session, picture(*size), threshold)["scores"])


@pytest.mark.parametrize("size", SIZES)
def test_results_are_torchs_on_any_size(model, session, size):
    assert require_the_same(model[0], session, size, 0.0) == 100
    assert 0 < require_the_same(model[0], session, size, 0.5) < 100


def test_segments_are_those_of_a_predictor(model, session):
    predictor = cupola.load(model[1].parent, threshold=0.5, device="cpu")
    image = picture(97, 203)
    expected = predictor(image)
    found = run_session(session, image, 0.5)
    listed = zip(found["segment_id"], found["segment_class"], found["segment_is_thing"], strict=True)
    assert list(listed) == [(s.id, s.category, s.is_thing) for s in expected.segments]
    for area, score, segment in zip(found["segment_area"], found["segment_score"], expected.segments, strict=True):
        assert area == pytest.approx(segment.area, abs=5)
        assert np.isnan(score) if segment.score is None else score == pytest.approx(segment.score, abs=1e-4)
    assert set(np.unique(found["semantic"])) <= {-1, *STUFF}
    counted = np.bincount(found["panoptic"].ravel(), minlength=len(found["segment_id"]) + 1)
    assert counted[1:].tolist() == found["segment_area"].tolist()


def test_without_objects(model, session):
    found = run_session(session, picture(70, 110), 1.0)
    assert found["masks"].shape == (0, 70, 110)
    assert found["boxes"].shape == (0, 4)
    assert not found["segment_is_thing"].any()
    assert require_the_same(model[0], session, (70, 110), 1.0) == 0


def test_the_threshold_of_the_file_holds_where_none_is_given(session):
    image = picture(97, 203)
    names = [output.name for output in session.get_outputs()]
    alone = dict(zip(names, session.run(names, {"image": image}), strict=True))
    assert np.array_equal(alone["scores"], run_session(session, image, 0.4)["scores"])
    assert len(alone["scores"]) != len(run_session(session, image, 0.9)["scores"])


def test_a_network_without_things(tmp_path):
    network, path = exported(tmp_path, tiny(), (), (1, 0))
    session = open_session(path)
    for size in SIZES[:3]:
        assert require_the_same(network, session, size, 0.5, (), (1, 0)) == 0


@pytest.mark.slow
def test_the_papers_layout(tmp_path):
    """Three stages, P6, adaptive pooling, a mask a class, GroupNorm; narrow and of few blocks."""
    base = paper()
    settings = replace(
        base,
        trunk=replace(base.trunk, stem=8, blocks=(1, 1, 1, 1), widths=(8, 8, 16, 16)),
        fpn_channels=16,
        rpn=replace(base.rpn, channels=16),
        box=replace(base.box, channels=32),
        mask=replace(base.mask, channels=16),
        semantic=replace(base.semantic, channels=32),
    )
    network, path = exported(tmp_path, settings, THINGS, STUFF)
    session = open_session(path)
    for size in SIZES[2:]:
        assert require_the_same(network, session, size, 0.0) == 100
    assert 0 < require_the_same(network, session, SIZES[2], 0.4) <= 100  # leaves regions out between the stages


def test_the_file_tells_of_itself(model):
    session = onnxruntime.InferenceSession(model[1])
    about = session.get_modelmeta().custom_metadata_map
    assert about["cupola"] == cupola.__version__
    names = {str(number): "car" if number == 5 else f"class {number}" for number in (0, 2, 3, 4, 5)}
    assert json.loads(about["class_names"]) == names
    assert (tuple(json.loads(about["things"])), tuple(json.loads(about["stuff"]))) == (THINGS, STUFF)
    assert json.loads(about["settings"])["rows"] == ROWS
    assert about["score_threshold"] == "0.4"
    assert about["model_sha256"] == content_hash(model[1].parent / "model.safetensors")


def test_the_comparison_sees_a_changed_weight(model, session):
    network, _ = load_network(model[1].parent)
    network.sem_seg_head.predictor.bias.data[1] += 0.5
    found = compare(network, session, picture(97, 203), 0.0, THINGS, STUFF)
    assert found.semantic > 1e-3
    network, _ = load_network(model[1].parent)
    network.roi_heads.box_predictor[0].bbox_pred.bias.data += 0.5
    assert compare(network, session, picture(97, 203), 0.0, THINGS, STUFF).objects > 0.5
    network, _ = load_network(model[1].parent)
    network.roi_heads.mask_head.predictor.bias.data += 1
    assert compare(network, session, picture(97, 203), 0.0, THINGS, STUFF).masks > 1e-3


def test_a_file_that_disagrees_never_appears(model, tmp_path, monkeypatch):
    wrong = Differences(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, merge=7)
    monkeypatch.setattr(command, "_write", lambda path, *_: (path.write_bytes(b"half"), wrong)[1])
    with pytest.raises(CheckpointError, match="nothing was written"):
        cupola.export_onnx(str(model[1].parent), out=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "net.pt"], "let it end in .onnx"),
        (["--out", "net.onnx", "--threshold", "2"], "must lie in [0, 1]"),
        (["--out", "net.onnx"], "does not exist; give the directory of a trained network"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "onnx", "nowhere", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["export", "onnx", str(tmp_path), "--out", str(tmp_path / "net.onnx")]) == 2
    assert "onnxruntime; install it by `pip install 'cupola[onnx]'`" in capsys.readouterr().err


WITHOUT_TORCH = """
import runpy, sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "cupola"):
            raise ImportError(f"{name} is barred")
sys.meta_path.insert(0, Barred())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_example_needs_neither_torch_nor_cupola(model, tmp_path):
    write_rgb(tmp_path / "in.png", picture(97, 203))
    words = [str(EXAMPLE), str(model[1]), str(tmp_path / "in.png"), str(tmp_path / "out.png")]
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=True)
    assert "car" in run.stdout
    assert "class 4" in run.stdout
    assert cupola.io.read_rgb(tmp_path / "out.png").shape == (97, 203, 3)
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    barred = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, __file__], capture_output=True, text=True)
    assert "is barred" in barred.stderr  # the bar works


def test_a_transformer_is_refused(tmp_path):
    vit = VitSettings("dino_vits16", sizes=VitSizes(patch=16, width=16, depth=1, heads=2, grid=4))
    save_network(tmp_path / "net", PanopticNetwork(replace(tiny(), trunk=vit), 1, 1), {"things": [0], "stuff": [1]})
    with pytest.raises(CheckpointError, match="cannot become an ONNX file; only Cascade Mask R-CNNs on a ResNet can"):
        cupola.export_onnx(str(tmp_path / "net"), out=tmp_path / "net.onnx")
