"""Several processes, and several passes, learn what one does with the same batch, in every stage."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_doubles import decided, write_store, write_truth

from cupola.cli import main
from cupola.errors import ConfigError
from cupola.models import PanopticNetwork, load_network, save_network, tiny
from cupola.models.settings import SemanticHeadSettings
from cupola.runs.metrics import read_metrics
from cupola.training.processes import make_fabric, precision_of, require_equal_shares

RUN = Path(__file__).parent / "run_small.py"
FROZEN, LEARNING = 1e-5, 5e-3
"""Relative differences of losses, over four steps: with frozen norms an image's outputs do not depend on the others;
norms that learn add up in another order, which changes a proposal here and there and what is drawn from them."""


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("street"))


def run(labels: Path, out: Path, processes: int = 1, **options) -> list[dict[str, float]]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(RUN), str(labels), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, json.dumps(options)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return metrics(out)


def metrics(out: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "waiting")}
        for line in read_metrics(out)
    ]


def assert_same_losses(lines, others, tolerance: float) -> None:
    assert len(lines) == len(others) == 4
    for line, other in zip(lines, others, strict=True):
        for name in line:
            assert other[name] == pytest.approx(line[name], rel=tolerance, abs=tolerance), (line["step"], name)


@pytest.mark.parametrize(
    ("able", "asked", "expected"),
    [
        (True, "auto", "bfloat16"),
        (False, "auto", "float32"),
        (True, "float32", "float32"),
        (False, "bfloat16", "bfloat16"),
    ],
)
def test_precision_is_what_the_processor_computes_in_unless_it_is_asked_for(monkeypatch, able, asked, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    assert precision_of(make_fabric("cpu", asked)) == expected


def test_two_processes_give_the_losses_of_one(labels, tmp_path):
    """Norms learn and are shared. Self-labels are made half way."""
    alone, together = run(labels, tmp_path / "one"), run(labels, tmp_path / "two", processes=2)
    assert_same_losses(alone, together, LEARNING)
    one, two = (load_network(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        if "running_mean" in name:
            assert torch.allclose(tensor, two[name], rtol=1e-2, atol=1e-3), name
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )


def test_two_processes_give_nearly_the_losses_of_one_in_bfloat16(labels, tmp_path):
    """Rounding so coarse moves proposals, so only the first step, and only its sum, can be compared."""
    alone, together = (
        run(labels, tmp_path / str(count), count, precision="bfloat16", steps=1)[0]["loss"] for count in (1, 2)
    )
    assert together == pytest.approx(alone, rel=0.02)


def test_two_passes_of_two_processes_give_the_losses_of_one_where_norms_are_frozen(labels, tmp_path):
    whole = run(labels, tmp_path / "whole", frozen=True)
    assert_same_losses(whole, run(labels, tmp_path / "parts", 2, frozen=True, accumulate=2), FROZEN)


# Stages 3 and fine-tuning, as a user starts them. Their norms are frozen, so that losses agree to the last digits.


def started_by_torchrun(words: list[str]) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "cupola.cli"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    summaries = re.findall("^(?:student|report): ", done.stdout, re.MULTILINE)
    assert len(summaries) == 1, f"one process speaks for both: {done.stdout}"


def files(out: Path) -> set[Path]:
    return {path.relative_to(out) for path in out.rglob("*")}


def test_two_processes_teach_themselves_what_one_does(labels, tmp_path):
    """Each labels and learns its share of the images; the first alone writes."""
    save_network(tmp_path / "net", decided(), {"things": [0, 1], "stuff": [2, 3]})
    words = ["self-train", str(labels), "--model", str(tmp_path / "net"), "--device", "cpu", "--steps", "4"]
    words += ["--settings.batch", "2", "--settings.batches", "2", "--settings.uses", "1", "--settings.views.scales"]
    words += ["[1.0]", "--settings.precision", "float32"]
    words += ["--settings.labels.score", "0.3", "--settings.labels.doubt", "0.2"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    started_by_torchrun([*words, "--out", str(tmp_path / "two")])
    assert_same_losses(metrics(tmp_path / "one"), metrics(tmp_path / "two"), FROZEN)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    one, two = (load_network(tmp_path / name / "teacher")[0].state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-4), name


def test_two_processes_are_fine_tuned_as_one_is(tmp_path):
    """Only the heads learn, whose norms are of each image by itself (the paper's semantic head); the trunk's are
    frozen. Both networks of the run, and their figures."""
    heads = replace(tiny(), semantic=SemanticHeadSettings(channels=32, loss_stride=2))
    torch.manual_seed(0)
    save_network(tmp_path / "net", PanopticNetwork(heads, 1, 2), {"things": [2], "stuff": [1, 0]})
    data, held_out = write_truth(tmp_path / "data", 4), write_truth(tmp_path / "held_out", 1, 100)
    words = ["finetune", str(tmp_path / "net"), str(data), "--validate", str(held_out), "--images", "2"]
    words += ["--subsets", "2", "--steps", "4", "--settings.batch", "2", "--settings.precision", "float32"]
    words += ["--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    started_by_torchrun([*words, "--out", str(tmp_path / "two")])
    for subset in range(2):
        alone, together = (tmp_path / name / f"images-2-subset-{subset}" for name in ("one", "two"))
        assert_same_losses(metrics(alone), metrics(together), FROZEN)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one["pq"]["2"]["mean"] == pytest.approx(two["pq"]["2"]["mean"], abs=1e-3)


def test_uneven_shares_are_refused():
    require_equal_shares(16, 4, 2)
    with pytest.raises(ConfigError, match="batch of 6 images cannot be shared evenly by 4 processes with 1 passes"):
        require_equal_shares(6, 4, 1)
