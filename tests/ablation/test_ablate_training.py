"""The ablation of training at its smallest: every row is trained, judged, told, and kept."""

import json

import numpy as np
import pytest

from cupola.ablation import ablate_training
from cupola.ablation.training import command
from cupola.ablation.training.measured import mean_and_spread
from cupola.ablation.training.rows import training_rows
from cupola.cli import main
from cupola.errors import ConfigError, StoreError
from cupola.experiment import Streets
from cupola.models import load_network

SMALLEST = command.Size(Streets(4, 4, 1, 2, 96, 192), "tiny", 3, 2, 4)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command.SIZES, "tiny", SMALLEST)
        return ablate_training(out=tmp_path_factory.mktemp("runs") / "ablation", size="tiny", seeds=2, workers=1)


def test_every_row_adds_one_thing_to_a_row_before_it():
    rows = training_rows("tiny")
    names = [row.name for row in rows]
    assert len(set(names)) == len({row.folder for row in rows}) == len(rows)
    for number, row in enumerate(rows):
        assert (row.before is None) == (number == 0)
        assert row.before is None or names.index(row.before) < number
        if row.before is not None and row.settings is not None:
            before = rows[names.index(row.before)]
            assert (row.network != before.network) + (row.settings != before.settings) + row.longer == 1


def test_rows_are_trained_as_they_say(ablation):
    for one in ablation.rows:
        network, card = load_network(ablation.out / "seed-1" / "rows" / one.row.folder / "network")
        facts = card["training"]
        if one.row.settings is None:
            assert facts["steps"] == SMALLEST.self_training
        else:
            assert network.settings == one.row.network
            steps = SMALLEST.longer if one.row.longer else SMALLEST.steps
            assert (facts["steps"], facts["seed"]) == (steps, 1)


def test_the_table_tells_every_row_and_seed(ablation):
    content = json.loads((ablation.out / "ablation.json").read_text())
    assert [row["name"] for row in content["rows"]] == [one.row.name for one in ablation.rows]
    assert all(len(values) == 2 for row in content["rows"] for values in row["figures"].values())
    table = ablation.table()
    assert all(one.row.name in table for one in ablation.rows)
    values = {one.row.name: one.values("pq") for one in ablation.rows}
    for one in ablation.rows[1:]:
        assert one.gains("pq") == pytest.approx(values[one.row.name] - values[one.row.before])
    assert (ablation.out / "report.html").read_text().count("<img") > len(ablation.rows)


def test_going_on_trains_nothing_again_and_finds_the_same(ablation, monkeypatch):
    monkeypatch.setitem(command.SIZES, "tiny", SMALLEST)
    before = (ablation.out / "ablation.json").read_bytes()
    times = {p: p.stat().st_mtime_ns for p in ablation.out.rglob("model.safetensors")}
    assert len(times) >= 2 * len(ablation.rows)
    ablate_training(out=ablation.out, size="tiny", seeds=2, workers=1)
    assert (ablation.out / "ablation.json").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in ablation.out.rglob("model.safetensors")} == times
    with pytest.raises(StoreError, match="other settings"):
        ablate_training(out=ablation.out, size="small", seeds=2)


def test_mean_and_spread():
    assert mean_and_spread(np.array([1.0, 2.0, 3.0])) == (2.0, 1.0)
    assert mean_and_spread(np.array([5.0])) == (5.0, 0.0)


def test_no_seed_is_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="at least one seed"):
        ablate_training(out=tmp_path, seeds=0)
    assert main(["ablate", "training", "--out", str(tmp_path / "x"), "--seeds", "0"]) == 2
    assert "at least one seed" in capsys.readouterr().err
