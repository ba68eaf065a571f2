"""Several processes, and several passes, learn what one does with the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_doubles import write_store

from cupola.errors import ConfigError
from cupola.models import load_network
from cupola.runs.metrics import read_metrics
from cupola.training.processes import require_equal_shares

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
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "waiting")}
        for line in read_metrics(out)
    ]


def assert_same_losses(lines, others, tolerance: float) -> None:
    assert len(lines) == len(others) == 4
    for line, other in zip(lines, others, strict=True):
        for name in line:
            assert other[name] == pytest.approx(line[name], rel=tolerance, abs=tolerance), (line["step"], name)


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


def test_two_passes_of_two_processes_give_the_losses_of_one_where_norms_are_frozen(labels, tmp_path):
    whole = run(labels, tmp_path / "whole", frozen=True)
    assert_same_losses(whole, run(labels, tmp_path / "parts", 2, frozen=True, accumulate=2), FROZEN)


def test_uneven_shares_are_refused():
    require_equal_shares(16, 4, 2)
    with pytest.raises(ConfigError, match="batch of 6 images cannot be shared evenly by 4 processes with 1 passes"):
        require_equal_shares(6, 4, 1)
