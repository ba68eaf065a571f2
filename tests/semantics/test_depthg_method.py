"""DepthG as a part of stage 1: its model in a store, the command line, resuming, missing and exchanged weights."""

import json
import pickle
import shutil

import numpy as np
import pytest
import yaml
from depthg_files import random_parts, save_published

from cupola.cli import main
from cupola.correspondence import NeedsFiles
from cupola.data.synthetic import render
from cupola.errors import CheckpointError, StoreError
from cupola.io import read_ids
from cupola.pseudo_labels import LabelStore
from cupola.semantics import (
    METHODS,
    DepthgSemantics,
    OfflineModel,
    OfflineSemantics,
    PublishedDepthgSemantics,
    SemanticMethod,
    SemanticModel,
)
from cupola.types import VOID, Calibration, StereoFrame

CLASSES = 6


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small random network in the layout of `depthg.ckpt`."""
    return save_published(tmp_path_factory.mktemp("weights") / "depthg.ckpt", *random_parts(classes=CLASSES))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three frames of a rendered street."""
    root = tmp_path_factory.mktemp("data") / "street"
    render(root, frames=3, sequences=1, height=64, width=112, workers=1)
    return root


def frame(height=32, width=48):
    left, right = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    valid = np.ones((height, width), bool)
    valid[:, :5] = False
    return StereoFrame(left, right, Calibration(100.0, 100.0, 24.0, 16.0, 0.5), valid, "0")


def disparity(height=32, width=48):
    known = np.random.default_rng(1).random((height, width)) > 0.3
    return np.where(known, np.float32(9), np.float32(np.nan)), known


SIZES = {"low": 16, "high": 32}


def test_it_is_a_method_of_stage_1(weights):
    settings = DepthgSemantics(weights)
    assert isinstance(settings, SemanticMethod)
    assert isinstance(settings, NeedsFiles)
    assert isinstance(settings.fit_described([], 0), SemanticModel)
    assert settings.choose(100) == []
    settings.check([("a", "b")])
    assert list(METHODS) == ["offline", "depthg", "depthg-published"]


@pytest.mark.parametrize("kind", [DepthgSemantics, PublishedDepthgSemantics])
@pytest.mark.parametrize("crf", [True, False])
def test_a_frame_gets_classes_and_scores(weights, kind, crf):
    model = pickle.loads(pickle.dumps(kind(weights, crf=crf, **SIZES).fit_described([], 0)))
    found = model(frame(), *disparity())
    assert model.num_classes == CLASSES
    assert found.scores.shape == (CLASSES, 32, 48)
    assert (found.classes[:, :5] == VOID).all()
    best = np.take_along_axis(found.scores, np.maximum(found.classes, 0)[None].astype(int), 0)[0]
    assert (best == found.scores.max(0))[:, 5:].all()
    again = model(frame(), *disparity())
    assert np.array_equal(found.classes, again.classes)


def test_the_crf_smooths_classes(weights):
    with_crf, without = (DepthgSemantics(weights, crf=crf, **SIZES).fit_described([], 0) for crf in (True, False))
    edges = [
        int((np.diff(model(frame(), *disparity()).classes[:, 5:], axis=1) != 0).sum()) for model in (with_crf, without)
    ]
    assert edges[0] < edges[1]


def test_the_model_of_a_store_knows_its_weights(tmp_path, weights):
    own = tmp_path / "depthg.ckpt"
    shutil.copy(weights, own)
    settings = DepthgSemantics(own)
    settings.fit_described([], 0).save(tmp_path / "model.npz")
    assert settings.load(tmp_path / "model.npz") == settings.fit_described([], 0)
    moved = DepthgSemantics(weights).load(tmp_path / "model.npz")
    assert moved.num_classes == CLASSES
    save_published(own, *random_parts(classes=CLASSES, seed=1))
    with pytest.raises(StoreError, match=r"made with other weights .*depthg\.ckpt, SHA-256"):
        settings.load(tmp_path / "model.npz")


def test_models_of_other_semantics_are_refused(tmp_path, weights):
    settings = DepthgSemantics(weights)
    settings.fit_described([], 0).save(tmp_path / "depthg.npz")
    with pytest.raises(StoreError, match="not a model of pseudo classes"):
        OfflineModel.load(tmp_path / "depthg.npz")
    zeros = np.zeros((3, 11))
    OfflineModel(zeros[0], zeros[0], 1.0, zeros, np.zeros(3, np.int64), 0).save(tmp_path / "offline.npz")
    assert isinstance(OfflineSemantics().load(tmp_path / "offline.npz"), OfflineModel)
    with pytest.raises(StoreError, match="other semantics than depthg"):
        settings.load(tmp_path / "offline.npz")
    (tmp_path / "offline.npz").write_bytes(b"PK")
    with pytest.raises(StoreError, match="damaged"):
        settings.load(tmp_path / "offline.npz")
    with pytest.raises(StoreError, match="does not exist"):
        settings.load(tmp_path / "none.npz")


def test_missing_weights_are_told_before_any_work(tmp_path, data, capsys):
    missing = tmp_path / "none" / "depthg.ckpt"
    with pytest.raises(CheckpointError, match="no file of DepthG weights"):
        DepthgSemantics(missing).check()
    for verb in ("pseudo-label", "semantics"):
        line = [verb, str(data), "--out", str(tmp_path / "out"), "--semantics", "depthg"]
        assert main([*line, "--semantics.weights", str(missing)]) == 2
        told = capsys.readouterr().err
        assert str(missing) in told
        assert "--semantics offline" in told
        assert not (tmp_path / "out").exists()
        assert main(line) == 2
        assert "semantics.weights" in capsys.readouterr().err


def command(data, weights, out, *more):
    return main(
        ["pseudo-label", str(data), "--out", str(out), "--semantics", "depthg", "--semantics.weights", str(weights),
         "--semantics.low", "32", "--semantics.high", "64", "--workers", "1", "--keep_scores", "true", *more]
    )  # fmt: skip


def test_stage_1_by_the_command_line(tmp_path, data, weights, capsys):
    own, out = tmp_path / "depthg.ckpt", tmp_path / "out"
    shutil.copy(weights, own)
    assert command(data, own, out) == 0
    assert "semantics DepthgSemantics" in capsys.readouterr().out
    store = LabelStore.open(out)
    first, second = store.keys
    assert store.rule.counts.num_classes == CLASSES
    assert store.scores(first).shape == (CLASSES, 64, 112)
    part = json.loads((out / "manifest.json").read_text())["run"]["parts"]["semantics"]
    assert part["sha256"] == {"weights": DepthgSemantics(own).hashes()["weights"]}
    assert yaml.safe_load((out / "config.yaml").read_text())["semantics"]["name"] == "depthg"

    before = {path.name: path.read_bytes() for path in (out / "semantics").iterdir()}
    kept = (out / "semantics" / f"{first}.png").stat().st_mtime_ns
    (out / "semantics" / f"{second}.png").unlink()
    assert main(["pseudo-label", "--config", str(out / "config.yaml")]) == 0  # goes on where it stopped
    assert {path.name: path.read_bytes() for path in (out / "semantics").iterdir()} == before
    assert (out / "semantics" / f"{first}.png").stat().st_mtime_ns == kept

    assert command(data, weights, tmp_path / "other", "--classes_from", str(out)) == 0
    assert LabelStore.open(tmp_path / "other").things == store.things
    save_published(own, *random_parts(classes=CLASSES, seed=1))
    capsys.readouterr()
    assert command(data, own, out) == 2
    assert "parts.semantics.sha256.weights" in capsys.readouterr().err
    assert command(data, own, tmp_path / "third", "--classes_from", str(out)) == 2
    assert "made with other weights" in capsys.readouterr().err


def test_class_maps_alone(tmp_path, data, weights):
    line = ["semantics", str(data), "--semantics.weights", str(weights), "--semantics.crf", "false", "--workers", "1"]
    ours = [*line, "--semantics", "depthg", "--semantics.low", "32", "--semantics.high", "64"]
    assert main([*ours, "--out", str(tmp_path / "ours")]) == 0
    first, *_ = maps = sorted((tmp_path / "ours").glob("*.png"))
    before = first.read_bytes()
    assert len(maps) == 3
    assert read_ids(first).max() < CLASSES
    first.unlink()
    assert main([*ours, "--out", str(tmp_path / "ours")]) == 0  # goes on with the classes that are there
    assert first.read_bytes() == before
    assert main([*line, "--semantics", "depthg-published", "--out", str(tmp_path / "published")]) == 0
