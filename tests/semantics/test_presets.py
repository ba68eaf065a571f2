"""`--preset paper` and `published`: the paper's stage 1 by one name, run on real frames with small random networks."""

import numpy as np
import pytest
import torch
import yaml
from depthg_files import random_parts, save_published

from cupola.cli import main
from cupola.cli.choices import resolve
from cupola.correspondence.raft.network import Variant, expected_shapes
from cupola.data.synthetic import render
from cupola.errors import ConfigError
from cupola.pseudo_labels import LabelStore, pseudo_label
from cupola.pseudo_labels.presets import DEPTHG, PRESETS, SMURF
from cupola.semantics import DepthgSemantics, OfflineSemantics


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random networks in files named and laid out as the published ones."""
    folder = tmp_path_factory.mktemp("weights")
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(Variant.SMURF).items()
    state = {f"module.{name}": 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes}
    torch.save(state, folder / SMURF)
    save_published(folder / DEPTHG, *random_parts())
    return folder


@pytest.fixture
def frames(request, tmp_path):
    """Frames for a preset: real ones for the paper's; the published windows only fit sizes that are multiples of 16."""
    if request.param == "paper":
        return request.param, request.getfixturevalue("shared") / "data" / "kitti_odometry"
    render(tmp_path / "street", seed=1, frames=2, sequences=1, height=256, width=512)
    return request.param, tmp_path / "street"


@pytest.mark.parametrize("frames", PRESETS, indirect=True)
def test_end_to_end(frames, weights, tmp_path, capsys):
    preset, data = frames
    arguments = [str(data), "--out", str(tmp_path / "labels"), "--scale", "0.25", "--limit", "1", "--workers", "1"]
    assert main(["pseudo-label", *arguments, "--preset", preset, "--weights", str(weights)]) == 0
    store = LabelStore.open(tmp_path / "labels")
    expected = PRESETS[preset](weights)
    used = store.run["parts"]
    assert {part: used[part]["name"] for part in used} == {
        part: type(expected[part]).__name__ for part in ("correspondence", "motion", "semantics")
    }
    assert len(used["semantics"]["sha256"]["weights"]) == 64
    assert store.run["detail"] == {"rows": 0, "outlines": False}
    assert store.label(store.keys[0]).classes.shape == store.image(store.keys[0]).shape[:2]
    # the same from Python, and again by the configuration that was kept
    direct = pseudo_label(data, out=tmp_path / "direct", scale=0.25, limit=1, workers=1, **expected)
    np.testing.assert_array_equal(direct.semantic(direct.keys[0]), store.semantic(store.keys[0]))
    assert direct.run["parts"] == used
    config = tmp_path / "labels" / "config.yaml"
    assert main(["pseudo-label", "--config", str(config), "--out", str(tmp_path / "labels")]) == 0
    assert yaml.safe_load(config.read_text())["motion"]["name"] == expected["motion"].name
    assert "labels:" in capsys.readouterr().out


def test_each_part_can_be_swapped_alone(weights, tmp_path):
    render(tmp_path / "street", seed=1, frames=2, sequences=1, height=48, width=96)
    arguments = [
        str(tmp_path / "street"),
        "--out",
        str(tmp_path / "labels"),
        "--preset",
        "paper",
        f"--weights={weights}",
    ]
    swapped = ["--semantics", "offline", "--semantics.classes", "4", "--correspondence", "classical", "--workers", "1"]
    assert main(["pseudo-label", *arguments, *swapped, "--motion.runs", "2"]) == 0
    parts = LabelStore.open(tmp_path / "labels").run["parts"]
    assert parts["semantics"]["name"] == OfflineSemantics.__name__
    assert parts["semantics"]["classes"] == 4
    assert parts["correspondence"]["name"] == "ClassicalCorrespondence"
    assert (parts["motion"]["name"], parts["motion"]["runs"]) == ("Sf2se3Segmenter", 2)


@pytest.mark.parametrize("missing", [SMURF, DEPTHG])
def test_a_missing_file_is_named_with_what_works_without_it(weights, tmp_path, missing, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in {SMURF, DEPTHG} - {missing}:
        (folder / name).symlink_to(weights / name)
    render(tmp_path / "street", seed=1, frames=2, sequences=1, height=48, width=96)
    out = tmp_path / "labels"
    assert (
        main(["pseudo-label", str(tmp_path / "street"), "--out", str(out), "--preset=paper", "--weights", str(folder)])
        == 2
    )
    told = capsys.readouterr().err
    assert missing in told
    assert ("--correspondence classical" if missing == SMURF else "--semantics offline") in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_what_is_wrong_with_a_preset_is_told():
    with pytest.raises(ConfigError, match="no preset `papr`, known are paper, published"):
        resolve(pseudo_label, ["--preset", "papr"], PRESETS)
    with pytest.raises(ConfigError, match="add --preset paper or published"):
        resolve(pseudo_label, ["--weights", "folder"], PRESETS)
    classes, words = resolve(pseudo_label, ["DATA", "--preset", "paper"], PRESETS)
    assert classes["semantics"] is DepthgSemantics
    assert words[0] == "--config"
    assert yaml.safe_load(words[1])["semantics"]["weights"] == f"weights/{DEPTHG}"
