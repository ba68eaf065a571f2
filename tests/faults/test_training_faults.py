"""Training that is killed at random moments, also while a state is written, and on a disk that is full."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cupola.models import load_network
from cupola.runs.metrics import read_metrics
from cupola.runs.state import read_state

TRAINING = Path(__file__).parents[1] / "training"
STEPS = 8


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    sys.path.insert(0, str(TRAINING))
    try:
        from training_doubles import write_store

        return write_store(tmp_path_factory.mktemp("street"))
    finally:
        sys.path.remove(str(TRAINING))


def start(labels: Path, out: Path, **options) -> subprocess.Popen[str]:
    options = {"steps": STEPS, "batch": 2, **options}
    command = [sys.executable, str(TRAINING / "run_small.py"), str(labels), str(out), json.dumps(options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def losses(out: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "waiting")}
        for line in read_metrics(out)
    ]


def last_saved(out: Path) -> int:
    """The step after which the run will go on."""
    states = [read_state(path) for path in out.glob("training.*.safetensors")]
    return max(state.facts["step"] for state in states if state is not None)


def kill_after(run: subprocess.Popen[str], out: Path, steps: int, delay: float) -> None:
    """Kills the run some time after it wrote so many lines; fails if it ends before."""
    limit = time.monotonic() + 240
    while len(read_metrics(out)) < steps:
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.005)
    time.sleep(delay)
    run.send_signal(signal.SIGKILL)
    run.wait()


def test_killed_at_random_moments_it_goes_on_bit_for_bit(labels, tmp_path):
    """And loses at most the step it was in. States are written slowly, so that some kills fall into the middle of one.
    Self-labels are made and discoveries pasted on the way."""
    whole = start(labels, tmp_path / "whole")
    draw = random.Random(time.time_ns())
    moments = sorted(draw.sample(range(1, STEPS), 2))
    for steps, delay in zip(moments, (0.03, draw.uniform(0, 0.12)), strict=True):
        kill_after(start(labels, tmp_path / "killed", slow_states=True), tmp_path / "killed", steps, delay)
        assert not (tmp_path / "killed" / "model.safetensors").exists()
        assert last_saved(tmp_path / "killed") >= len(read_metrics(tmp_path / "killed")) - 1, moments
    last = start(labels, tmp_path / "killed")
    for run in (whole, last):
        assert run.wait(240) == 0, run.stderr.read()
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole"), moments
    one, two = (load_network(tmp_path / name)[0].state_dict() for name in ("whole", "killed"))
    assert all(one[name].equal(two[name]) for name in one)
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
