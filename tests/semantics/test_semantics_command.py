import cv2
import numpy as np
import pytest
import yaml

import cupola
from cupola.cli import main
from cupola.errors import ConfigError, DataError, StoreError
from cupola.io import read_ids, write_rgb
from cupola.semantics import OfflineSemantics
from cupola.semantics.command import semantic_maps

SETTINGS = OfflineSemantics(classes=5, clusters=40)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """Three stereo pairs of noise at one distance, in the folder layout, without truth."""
    root = tmp_path_factory.mktemp("rig")
    (root / "calibration.yaml").write_text("{fx: 80.0, fy: 80.0, cx: 60.0, cy: 30.0, baseline: 0.3}")
    for name in ("1", "2", "3"):
        rng = np.random.default_rng(ord(name))
        texture = cv2.GaussianBlur(rng.integers(0, 256, (64, 140, 3)).astype(np.uint8), (0, 0), 1.0)
        texture[:30] //= 3
        write_rgb(root / "left" / f"{name}.png", texture[:, :120])
        write_rgb(root / "right" / f"{name}.png", texture[:, 6:126])
    return root


def _maps(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.png"))}


def test_writes_a_map_of_each_frame_and_what_made_it(rig, tmp_path):
    result = cupola.semantic_maps(rig, out=tmp_path, semantics=SETTINGS, workers=1)
    assert result.keys == ("1", "2", "3")
    assert result.failed == {}
    for key in result.keys:
        classes = read_ids(tmp_path / f"{key}.png")
        assert classes.shape == (64, 120)
        assert classes.max() < result.num_classes <= 5
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["semantics"]["classes"] == 5
    assert (tmp_path / "model.npz").exists()


def test_does_not_depend_on_workers_and_goes_on_where_it_stopped(rig, tmp_path):
    semantic_maps(rig, out=tmp_path / "one", semantics=SETTINGS, workers=1)
    semantic_maps(rig, out=tmp_path / "two", semantics=SETTINGS, workers=2)
    whole = _maps(tmp_path / "one")
    assert len(whole) == 3
    assert whole == _maps(tmp_path / "two")
    (tmp_path / "one" / "2.png").unlink()
    kept = (tmp_path / "one" / "1.png").stat().st_mtime_ns
    semantic_maps(rig, out=tmp_path / "one", semantics=SETTINGS, workers=1)
    assert _maps(tmp_path / "one") == whole
    assert (tmp_path / "one" / "1.png").stat().st_mtime_ns == kept


def test_other_settings_are_refused(rig, tmp_path):
    semantic_maps(rig, out=tmp_path, semantics=SETTINGS, workers=1, limit=1)
    with pytest.raises(StoreError, match="other settings"):
        semantic_maps(rig, out=tmp_path, semantics=SETTINGS, workers=1, seed=1)
    assert semantic_maps(rig, out=tmp_path, semantics=SETTINGS, workers=1, limit=2).keys == ("1", "2")


def test_a_damaged_image_costs_its_own_map_alone(rig, tmp_path, capsys):
    data = tmp_path / "data"
    for path in sorted(rig.rglob("*")):
        if path.is_file():
            target = data / path.relative_to(rig)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    image = data / "left" / "2.png"
    image.write_bytes(image.read_bytes()[:60])
    result = semantic_maps(data, out=tmp_path / "out", semantics=SETTINGS, workers=1)
    assert result.keys == ("1", "3")
    assert str(image) in result.failed["2"]
    line = ["semantics", str(data), "--out", str(tmp_path / "out"), "--semantics.classes", "5"]
    assert main([*line, "--semantics.clusters", "40", "--workers", "1"]) == 1
    assert f"1 frames have no map; the first, 2: {image}" in capsys.readouterr().out
    for path in (data / "left").glob("*.png"):
        path.write_bytes(image.read_bytes())
    with pytest.raises(DataError, match="can be read"):
        semantic_maps(data, out=tmp_path / "none", semantics=SETTINGS, workers=1)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"every": 0}])
def test_wrong_choice_of_frames(rig, tmp_path, wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        semantic_maps(rig, out=tmp_path, **wrong)


def test_command_line(rig, tmp_path, capsys):
    line = ["semantics", str(rig), "--out", str(tmp_path), "--semantics.classes", "4", "--workers", "1", "--limit", "1"]
    assert main(line) == 0
    assert "1 class maps of" in capsys.readouterr().out
    assert main([*line, "--seed", "3"]) == 2
    assert "other settings" in capsys.readouterr().err
