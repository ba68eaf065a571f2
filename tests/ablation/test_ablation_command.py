"""The ablation tables, measured on two small streets."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cupola.ablation import AblationWeights, ablate_pseudo_labels
from cupola.ablation.measure import miou_by_depth
from cupola.cli import main
from cupola.correspondence import ClassicalCorrespondence
from cupola.data.synthetic import render
from cupola.errors import CheckpointError, ConfigError, DataError, StoreError
from cupola.io import write_ids
from cupola.pseudo_labels import LabelStore, pseudo_label
from cupola.pseudo_labels.detail import AS_FOUND, DetailSettings
from cupola.scoring import evaluate

STREETS, FRAMES, HEIGHT, WIDTH = 2, 3, 80, 160
PAIRS = STREETS * (FRAMES - 1)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "street"
    return render(out, seed=3, frames=FRAMES, sequences=STREETS, height=HEIGHT, width=WIDTH, workers=1).out


@pytest.fixture(scope="module")
def computed():
    return Counter()


@pytest.fixture(scope="module")
def ablation(street, tmp_path_factory, computed):
    inner = ClassicalCorrespondence.__call__

    def counting(self, clip):
        computed[clip.key, clip.first.size] += 1
        return inner(self, clip)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassicalCorrespondence, "__call__", counting)
        return ablate_pseudo_labels(street, out=tmp_path_factory.mktemp("runs") / "ablation", workers=1)


def row(ablation, table, name):
    (found,) = [one for one in ablation.rows if (one.row.table, one.row.name) == (table, name)]
    return found


def test_every_frame_is_matched_once_for_all_stores(ablation, computed):
    """Small images once more, enlarged."""
    assert len({one.row.store for one in ablation.rows if not one.row.missing}) == 6
    assert len({key for key, _ in computed}) == PAIRS
    assert {size for _, size in computed} == {(HEIGHT, WIDTH), (DetailSettings().rows, DetailSettings().rows * 2)}
    assert len(computed) == 2 * PAIRS
    assert set(computed.values()) == {1}
    assert not (ablation.out / "kept").exists()


def test_rows_without_their_files_are_told_and_not_measured(ablation):
    smurf = row(ablation, 9, "SMURF")
    assert (smurf.evaluation, smurf.figures()) == (None, {})
    assert "not run: needs --weights.smurf FILE" in ablation.table()
    content = json.loads((ablation.out / "ablation.json").read_text())
    missing = {one["name"]: one for one in content["rows"] if one["not_run"]}
    assert {"SMURF", "RAFT", "SEA-RAFT", "BrightFlow", "depth-guided", "high", "MaskCut"} <= missing.keys()
    assert all(one["figures"] == {} and one["store"] is None for one in missing.values())
    assert all(one["figures"]["pq"] is not None for one in content["rows"] if not one["not_run"])
    html = (ablation.out / "report.html").read_text()
    assert html.count("not run: needs") == len(missing)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (6, "0.04"),
        (6, "0.14"),
        (5, "ego-motion, not aligned"),
        (5, "ego-motion, fused as cupola does"),
        (0, "all of it"),
        (0, "small images not enlarged"),
    ],
)
def test_a_row_equals_a_direct_run_with_its_settings(ablation, street, tmp_path_factory, table, name):
    """Figures, and every unfused file of the store that several rows share."""
    measured = row(ablation, table, name)
    detail = measured.row.detail
    out = tmp_path_factory.getbasetemp() / f"direct-{detail}"  # one store a detail, fused anew for each row
    direct = pseudo_label(
        street, out=out, motion=measured.row.motion.part, detail=detail, fusion=measured.row.fusion, seed=0, workers=1
    )
    assert evaluate(out, street).to_dict() == measured.evaluation.to_dict()
    store = ablation.out / "stores" / measured.row.store
    assert LabelStore.open(store).run["parts"] == direct.run["parts"]
    for folder in ("instances", "semantics", "parts"):
        for key in direct.keys:
            name = Path(folder) / f"{key}.png"
            assert (store / name).read_bytes() == (out / name).read_bytes()


def test_a_stopped_run_goes_on_to_the_same_result(ablation, street, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(ablation.out, out)
    whole = (out / "ablation.json").read_bytes()
    for file in ("ablation.json", "report.html"):
        (out / file).unlink()
    shutil.rmtree(out / "depth")
    damaged = sorted((out / "stores").iterdir())[1]
    lines = (damaged / "frames.jsonl").read_text().splitlines()
    (damaged / "frames.jsonl").write_text("\n".join(lines[:1]) + "\n")
    (damaged / "panoptic.json").unlink()
    shutil.rmtree(sorted((out / "stores").iterdir())[2])
    ablate_pseudo_labels(street, out=out, workers=1)
    assert (out / "ablation.json").read_bytes() == whole


def test_a_finished_run_is_only_scored_again(ablation, street, monkeypatch):
    def never(*_):
        raise AssertionError("computed again")

    whole = (ablation.out / "ablation.json").read_bytes()
    monkeypatch.setattr(ClassicalCorrespondence, "__call__", never)
    monkeypatch.setattr(ClassicalCorrespondence, "disparity", never)
    ablate_pseudo_labels(street, out=ablation.out, workers=1)
    assert (ablation.out / "ablation.json").read_bytes() == whole


@pytest.fixture(scope="module")
def depthg(tmp_path_factory):
    """A small random network as a file of DepthG's."""
    from cupola.semantics.backbones import random_backbone
    from cupola.semantics.depthg.checkpoint import save_depthg
    from cupola.semantics.depthg.head import ClusterProbe, DepthgHead

    path = tmp_path_factory.mktemp("weights") / "depthg.safetensors"
    backbone = random_backbone("dino_vits8", 0, width=64, depth=1, heads=1, grid=4)
    save_depthg(path, backbone, DepthgHead(backbone.channels, 6), ClusterProbe(5, 6), {})
    return path


def test_rows_of_one_network_share_its_passes(street, depthg, tmp_path, monkeypatch):
    """One pass at the high and two at the low scale (one mirrored) for six ways to read a frame; each row is what a
    direct run gives."""
    from cupola.semantics.depthg import inference

    passes = Counter()
    for name in ("low_scores", "high_scores"):

        def counting(*arguments, inner=getattr(inference, name), name=name):
            passes[name] += 1
            return inner(*arguments)

        counting.__name__ = name
        monkeypatch.setattr(inference, name, counting)
    run = {"limit": 1, "workers": 1}
    found = ablate_pseudo_labels(street, out=tmp_path / "out", table=10, weights=AblationWeights(depthg=depthg), **run)
    assert passes == {"low_scores": 2, "high_scores": 1}
    measured = [one for one in found.rows if one.row.name in ("low", "depth-guided, without CRF")]
    for one in measured:
        direct = tmp_path / one.row.semantics.name
        part = one.row.semantics.part
        pseudo_label(street, out=direct, semantics=part, detail=AS_FOUND, fusion=one.row.fusion, **run)
        assert evaluate(direct, street).to_dict() == one.evaluation.to_dict()
    assert len({one.by_depth["all"] for one in measured}) == 2


def test_depths_do_not_matter_where_all_is_equally_far(ablation, tmp_path):
    store = LabelStore.open(ablation.out / "stores" / row(ablation, 10, "offline (cupola's own)").row.store)
    for key in store.keys:
        write_ids(tmp_path / f"{key}.png", np.full((HEIGHT, WIDTH), 2), bits=8)
    found = miou_by_depth(store, tmp_path)
    assert found["all"] == found["10 to 30 m"] > 0
    assert np.isnan([found["to 10 m"], found["from 30 m"]]).all()


def test_mistakes_are_told_before_any_work(ablation, street, tmp_path, capsys):
    def fails(error, sentence, data=street, out=tmp_path / "out", **arguments):
        with pytest.raises(error, match=sentence):
            ablate_pseudo_labels(data, out=out, workers=1, **arguments)

    fails(ConfigError, "table must be one of 5, 6, 9, 10, 11, 0, not 7", table=7)
    fails(CheckpointError, "nothing.ckpt", weights=AblationWeights(depthg=tmp_path / "nothing.ckpt"), data=None)
    (tmp_path / "fields").mkdir()
    fails(DataError, "has no file for frame", weights=AblationWeights(sea_raft=tmp_path / "fields"))
    fails(ConfigError, "limit must be at least 1", limit=0)
    assert not (tmp_path / "out" / "stores").exists()
    fails(StoreError, "holds an ablation with other keys", out=ablation.out, limit=2)
    fails(StoreError, "holds an ablation with other seed", out=ablation.out, seed=1)

    shutil.copytree(street, tmp_path / "blind", ignore=shutil.ignore_patterns("truth"))
    assert main(["ablate", "pseudo-labels", str(tmp_path / "blind"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert "holds no frame that has both truth and a successor" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out" / "stores").exists()
