"""The paper's baselines that need no training: DepthG's classes with MaskCut's masks, or with masks from a file, from
images to scores. The networks are small and random, so scores are only compared, not judged."""

import json

import cv2
import numpy as np
import pytest
import torch
from depthg_files import random_parts, save_published

from cupola.cli import main
from cupola.data import open_dataset
from cupola.data.synthetic import render
from cupola.pseudo_labels import LabelStore
from cupola.semantics.backbones import VitSizes, random_backbone
from cupola.semantics.backbones.settings import DINO_VITS
from cupola.taxonomy import CITYSCAPES_27


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three frames of a rendered street."""
    root = tmp_path_factory.mktemp("data") / "street"
    render(root, frames=3, sequences=1, height=64, width=112, workers=1)
    return root


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """Words that name a small DepthG and a small DINO."""
    dino = random_backbone("dino_vits8", 0, width=64, depth=2, heads=1, grid=4)
    torch.save(dino.network.state_dict(), tmp_path / "dino.pth")
    save_published(tmp_path / "depthg.ckpt", *random_parts(classes=6))
    monkeypatch.setitem(DINO_VITS, "dino_vits8", VitSizes(patch=8, width=64, depth=2, heads=1, grid=4))
    classes = ["--semantics", "depthg", "--semantics.weights", str(tmp_path / "depthg.ckpt")]
    classes += ["--semantics.low", "32", "--semantics.high", "64", "--semantics.crf", "false"]
    cut = ["--motion", "maskcut", "--motion.weights", str(tmp_path / "dino.pth"), "--motion.architecture", "dino_vits8"]
    return classes, [*cut, "--motion.image_side", "96"]


FUSION = ["--fusion.sizes", "0", "--fusion.movable", "0", "--fusion.ignore_thing_without_instance", "false"]


def scores(store, data, out):
    assert main(["evaluate", str(store), str(data), "--classes", "27", "--out", str(out)]) == 0
    return json.loads((out / "result.json").read_text())


def true_masks(data, path):
    """All true things as a detector would write them: polygons, scores, and a list of images."""
    dataset = open_dataset(data)
    images, annotations = [], []
    for number, record in enumerate(dataset.records):
        truth = dataset.truth(record, CITYSCAPES_27)
        height, width = truth.classes.shape
        name = f"street/{record.sequence}/left/{record.left.name}"
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for instance in np.unique(truth.instances[truth.instances > 0]):
            mask = (truth.instances == instance).astype(np.uint8)
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            polygons = [(line + 0.5).ravel().tolist() for line in outlines if len(line) > 2]
            if polygons:
                annotations.append({"image_id": number, "score": 0.9, "segmentation": polygons})
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_depthg_with_maskcut_and_with_masks_from_a_file(data, networks, tmp_path):
    classes, cut = networks
    label = ["pseudo-label", str(data), "--workers", "1", *classes, *FUSION]
    masks = ["--motion", "masks", "--motion.file", str(true_masks(data, tmp_path / "masks.json"))]
    results = {}
    for name, motion in (("maskcut", cut), ("masks", masks)):
        assert main([*label, "--out", str(tmp_path / name), *motion]) == 0
        store = LabelStore.open(tmp_path / name)
        assert len(store.keys) == 3  # the last frame too: none needs a next one
        assert store.rule.counts.num_classes == 6
        assert store.rule.counts.inside.sum() > 0  # masks without motion decide what a thing is
        assert store.things
        results[name] = scores(store.path, data, tmp_path / f"{name}-scores")
    assert results["masks"]["objects"]["things"]["share"] > results["maskcut"]["objects"]["things"]["share"]
    assert results["masks"]["objects"]["things"]["share"] > 0.4  # the true masks, as far as their class is a thing


def test_the_frames_say_what_they_were_made_of(data, networks, tmp_path):
    classes, cut = networks
    assert main(["pseudo-label", str(data), "--workers", "1", "--out", str(tmp_path / "s"), *classes, *cut]) == 0
    run = json.loads((tmp_path / "s" / "manifest.json").read_text())["run"]
    assert run["parts"]["motion"]["name"] == "MaskCutSegmenter"
    assert "report.html" in {path.name for path in (tmp_path / "s").iterdir()}
