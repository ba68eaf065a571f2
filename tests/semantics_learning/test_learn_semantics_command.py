"""`cupola learn semantics` on a few small stereo pairs with a small backbone of random weights."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import cupola
import cupola.semantics.learning.loop as loop_module
from cupola.cli import main
from cupola.errors import CheckpointError, ConfigError, DataError, StoreError, TrainingError
from cupola.io import read_ids, write_rgb
from cupola.runs.metrics import read_metrics
from cupola.runs.state import StateFiles
from cupola.semantics import DepthgSemantics
from cupola.semantics.backbones import BackboneSettings, normalised, random_backbone
from cupola.semantics.depthg.checkpoint import read_depthg
from cupola.semantics.depthg.head import ClusterProbe, DepthgHead
from cupola.semantics.learning import DepthSettings, SmallRecipe, learn_semantics
from cupola.semantics.learning.learner import Learner

BACKBONE = BackboneSettings("test_vit")
"""Timm's smallest transformer: 64 channels, cells of 16 px."""

SETTINGS = SmallRecipe(
    classes=5,
    code_channels=8,
    steps=6,
    batch=6,
    side=80,
    positions=4,
    negatives=2,
    standardise=True,
    checkpoint_seconds=0.0,
)
"""A state after every step; the probe begins after the third."""


def write_rig(root: Path, count: int, textured: bool = True) -> Path:
    """Stereo pairs of noise at one distance, in the folder layout, without truth."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "calibration.yaml").write_text("{fx: 80.0, fy: 80.0, cx: 60.0, cy: 30.0, baseline: 0.3}")
    for name in range(1, count + 1):
        rng = np.random.default_rng(name)
        noise = rng.integers(0, 256, (64, 140, 3)) if textured else np.full((64, 140, 3), 90)
        texture = cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 1.0)
        texture[:30] //= 3
        write_rgb(root / "left" / f"{name}.png", texture[:, :120])
        write_rgb(root / "right" / f"{name}.png", texture[:, 6:126])
    return root


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    return write_rig(tmp_path_factory.mktemp("data") / "rig", 4)


@pytest.fixture(scope="module")
def whole(rig, tmp_path_factory):
    """An unbroken run."""
    out = tmp_path_factory.mktemp("whole") / "net"
    return learn_semantics(rig, out=out, backbone=BACKBONE, settings=SETTINGS, workers=1)


def losses(out):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(out)]


def assert_same(one, other):
    assert losses(one) == losses(other)
    first, second = read_depthg(one / "depthg.safetensors"), read_depthg(other / "depthg.safetensors")
    for part in ("head", "probe", "backbone"):
        expected = getattr(second, part).state_dict()
        for name, tensor in getattr(first, part).state_dict().items():
            assert torch.equal(tensor, expected[name]), name


def test_what_it_writes(whole, rig):
    assert (whole.steps, whole.images, whole.views, whole.classes) == (6, 4, 20, 5)
    assert sorted(path.name for path in whole.out.iterdir()) == [
        "card.json",
        "config.yaml",
        "depthg.safetensors",
        "metrics.jsonl",
    ]
    lines = read_metrics(whole.out)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert ["probe" in line for line in lines] == [False] * 3 + [True] * 3
    for line in lines:
        parts = {name: value for name, value in line.items() if name not in ("step", "seconds", "loss")}
        assert set(parts) - {"probe"} == {"intra", "inter", "negative", "depth"}
        assert sum(parts.values()) == pytest.approx(line["loss"], abs=1e-6)
    card = json.loads((whole.out / "card.json").read_text())
    assert "No ground truth was used" in card["truth"]
    assert "last step" in card["truth"]
    assert card["known_depth"] > 0.5
    assert card["largest_class"] < 0.9
    assert len(whole.notes) == 1
    assert "random weights" in whole.notes[0]
    network = read_depthg(whole.weights)
    assert network.card["truth"] == card["truth"]
    assert network.probe.classes == 5
    assert yaml.safe_load((whole.out / "config.yaml").read_text())["settings"]["steps"] == 6


def test_the_weights_give_classes_to_an_image(whole):
    network = read_depthg(whole.weights)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    scores = network.probe.log_probabilities(network.head(network.backbone(torch.from_numpy(normalised(image))[None])))
    assert scores.shape == (1, 5, 4, 6)
    assert torch.isfinite(scores).all()
    expected = random_backbone("test_vit", 0).state_dict()
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_head_and_probe_have_been_learnt(whole, rig, tmp_path):
    short = learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=replace(SETTINGS, steps=1))
    first, last = read_depthg(short.weights), read_depthg(whole.weights)
    for part in ("head", "probe"):
        before = getattr(first, part).state_dict()
        for name, tensor in getattr(last, part).state_dict().items():
            assert torch.isfinite(tensor).all()
            assert not torch.equal(tensor, before[name]), name


def test_the_features_scale_is_put_into_the_head():
    torch.manual_seed(0)
    head, probe = DepthgHead(6, 3), ClusterProbe(4, 3)
    learner = Learner(head, probe, torch.randn(6), torch.rand(6) + 0.1)
    features = torch.randn(2, 5, 6)
    expected = learner.codes(learner.standardised(features))
    found = learner.folded()(features.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(whole, rig, tmp_path, monkeypatch, after):
    """Stopped right after a state was saved: early, with the probe about to begin, and with it begun. That features are
    then kept no longer changes nothing."""
    again = replace(SETTINGS, cache_gigabytes=0.0) if after == 5 else SETTINGS
    real, saved = StateFiles.save, []

    def stop(*arguments):
        real(*arguments)
        saved.append(arguments)
        if len(saved) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StateFiles, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=SETTINGS)
    assert len(read_metrics(tmp_path)) == after
    looked = {path: path.stat().st_mtime_ns for path in (tmp_path / "views").iterdir()}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": after + 1, "loss": 0.0}) + '\n{"step": ')  # a lost step, a torn line
    with monkeypatch.context() as patch:
        patch.setattr("cupola.semantics.learning.command.shutil.rmtree", lambda *_, **__: None)
        learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=again)
    assert_same(tmp_path, whole.out)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "views").iterdir()} == looked  # not again


def test_threads_change_no_bit(whole, rig, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=SETTINGS, workers=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert_same(tmp_path, whole.out)


def test_features_that_are_not_kept_give_the_same(whole, rig, tmp_path):
    small = replace(SETTINGS, cache_gigabytes=0.0)
    learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=small)
    assert_same(tmp_path, whole.out)


def test_another_seed_is_another_run(whole, rig, tmp_path):
    learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=SETTINGS, seed=1)
    assert losses(tmp_path)[0] != losses(whole.out)[0]


def test_a_finished_run_is_only_told_again(whole, rig, monkeypatch):
    monkeypatch.setattr("cupola.semantics.learning.command.learn_from", None)
    assert learn_semantics(rig, out=whole.out, backbone=BACKBONE, settings=SETTINGS) == whole


def test_other_settings_in_the_same_place(whole, rig):
    with pytest.raises(StoreError, match=r"holds a run of other settings \(settings.steps: 6 there, 7 now"):
        learn_semantics(rig, out=whole.out, backbone=BACKBONE, settings=replace(SETTINGS, steps=7))


def test_what_only_costs_time_or_room_may_differ(whole, rig):
    settings = replace(SETTINGS, cache_gigabytes=0.0, checkpoint_seconds=5.0)
    assert learn_semantics(rig, out=whole.out, backbone=BACKBONE, settings=settings) == whole


def test_farthest_points_and_pointwise_run_too(rig, tmp_path):
    settings = replace(SETTINGS, sampling="farthest", pointwise=True, standardise=False, steps=2)
    result = learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=settings)
    assert all(np.isfinite(value) for value in result.losses.values())


def test_more_classes_than_images_and_cells_are_formed(rig, tmp_path):
    """Classes are of places in images, not of images: even more than there are distinct codes can be asked for."""
    settings = replace(SETTINGS, classes=60, steps=2)
    result = learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=settings, limit=3)
    assert read_depthg(result.weights).probe.classes == result.classes == 60


def test_a_damaged_image_is_left_out_and_told(tmp_path):
    data = write_rig(tmp_path / "data", 4)
    (data / "left" / "2.png").write_bytes(b"no image")
    result = learn_semantics(data, out=tmp_path / "out", backbone=BACKBONE, settings=replace(SETTINGS, steps=1))
    assert list(result.failed) == ["2"]
    assert result.images == 3


@pytest.mark.parametrize(
    ("limit", "change", "sentence"),
    [
        (1, {}, "1 usable image (5 views) leave only 0; give more images"),
        (2, {}, "2 usable images (10 views) leave only 5"),
        (2, {"neighbours": 5, "batch": 11}, "a batch holds 11 views, but there are only 2 usable images (10 views)"),
        (4, {"neighbours_from": "sequences"}, "among those of other sequences"),
        (4, {"side": 31}, "a view of 31 px has 1 cells of the backbone (16 px each) on a side"),
    ],
)
def test_too_little_is_one_sentence_before_any_work(rig, tmp_path, monkeypatch, limit, change, sentence):
    monkeypatch.setattr("cupola.semantics.learning.command.prepare_views", None)
    with pytest.raises((DataError, ConfigError)) as error:
        learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=replace(SETTINGS, **change), limit=limit)
    assert sentence in str(error.value)
    assert not list(tmp_path.iterdir())  # so that the mended command may use it


def test_codes_that_have_become_alike_are_told(rig, tmp_path, monkeypatch):
    """Centres that are all equal: every code is nearest to the first of them."""
    real = loop_module.begin_probe

    def equal(learner, batches, device):
        real(learner, batches, device)
        with torch.no_grad():
            learner.probe.clusters.copy_(learner.probe.clusters[:1].expand(5, -1))

    monkeypatch.setattr(loop_module, "begin_probe", equal)
    still = replace(SETTINGS, probe_learning_rate=1e-9)
    result = learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=still)
    assert json.loads((tmp_path / "card.json").read_text())["largest_class"] > 0.9
    assert "nearly everything is of one pseudo class" in result.notes[-1]


def test_missing_weights_of_the_backbone(rig, tmp_path):
    with pytest.raises(CheckpointError, match="gone"):
        learn_semantics(rig, out=tmp_path, backbone=BackboneSettings(weights=tmp_path / "gone.pth"), settings=SETTINGS)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_given_are_used_and_come_without_a_warning(rig, tmp_path, capsys):
    weights = tmp_path / "weights.safetensors"
    save_file(random_backbone("test_vit", 5).network.state_dict(), weights)
    backbone = BackboneSettings("test_vit", weights)
    result = learn_semantics(rig, out=tmp_path / "net", backbone=backbone, settings=replace(SETTINGS, steps=1))
    assert result.notes == ()
    assert "warning" not in capsys.readouterr().err
    expected = random_backbone("test_vit", 5).state_dict()
    for name, tensor in read_depthg(result.weights).backbone.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_the_weights_serve_as_semantics(whole, rig, tmp_path):
    settings = DepthgSemantics(whole.weights, low=64, high=64, crf=False)
    maps = cupola.semantic_maps(rig, out=tmp_path, semantics=settings, workers=1, limit=1)
    classes = read_ids(tmp_path / f"{maps.keys[0]}.png")
    assert classes.shape == (64, 120)
    assert classes.max() < maps.num_classes == 5


def test_data_without_any_known_disparity(tmp_path, monkeypatch):
    data = write_rig(tmp_path / "grey", 3, textured=False)
    with monkeypatch.context() as patch:
        patch.setattr("cupola.semantics.learning.command.prepare_views", None)
        with pytest.raises(DataError, match=r"has a known disparity.*--settings.depth.weight 0"):
            learn_semantics(data, out=tmp_path / "a", backbone=BACKBONE, settings=SETTINGS)
    without = replace(SETTINGS, depth=DepthSettings(weight=0.0), steps=2)
    result = learn_semantics(data, out=tmp_path / "b", backbone=BACKBONE, settings=without)
    assert "depth" not in result.losses


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(rig, tmp_path, monkeypatch):
    real = Learner.losses

    def broken(self, batch, step, *rest, **named):
        found = real(self, batch, step, *rest, **named)
        return found | {"inter": found["inter"] * float("nan")} if step == 3 else found

    monkeypatch.setattr(Learner, "losses", broken)
    with pytest.raises(TrainingError, match="loss inter is not finite at step 4"):
        learn_semantics(rig, out=tmp_path, backbone=BACKBONE, settings=SETTINGS)
    assert len(read_metrics(tmp_path)) == 3
    assert list(tmp_path.glob("learning.*.safetensors"))


def test_the_command_line(rig, tmp_path, capsys):
    words = ["learn", "semantics", str(rig), "--out", str(tmp_path / "net"), "--backbone.architecture", "test_vit"]
    words += ["--settings.steps", "2", "--settings.batch", "4", "--settings.side", "80", "--settings.classes", "3"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "2 steps in" in shown.out
    assert "--semantics depthg --semantics.weights" in shown.out
    assert "warning: the backbone has random weights" in shown.err
    assert main([*words, "--limit", "1"]) == 2
    assert main(["learn"]) == 2
    assert "`learn` needs to know what: `cupola learn semantics`" in capsys.readouterr().err


def test_help_explains_the_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["learn", "semantics", "--help", "--settings", "cityscapes"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "one of small, cityscapes, depth-only (default: small)" in shown
    assert "batches to learn from. (type: int, default: 2334)" in shown
    assert "the positive of a view is one of this many views" in shown
