"""`cupola self-train`: stage 3, a network teaches itself on images without labels (paper; spec-network 3)."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cupola.diagnosis import installed_versions
from cupola.errors import ConfigError
from cupola.models import PanopticNetwork, load_network, save_network
from cupola.models.checkpoint import CARD
from cupola.runs.directory import claim
from cupola.runs.metrics import read_metrics
from cupola.training.bootstrap import LAST_STEPS, NO_LOSS
from cupola.training.data import require_same_data
from cupola.training.frames import open_frames
from cupola.training.loop import Plan, run_training
from cupola.training.processes import Device, main_first, make_fabric, require_equal_shares
from cupola.training.self_training_settings import SelfTrainingSettings
from cupola.training.self_training_task import SelfTrainingTask, trained_parameters
from cupola.training.state import remove_state

TEACHER = "teacher"
"""Folder of the teacher inside that of the student."""

MAY_DIFFER = ("images", "model", "out", "device", "time_limit")
"""Arguments that may change between two parts of a run: what images and model hold is compared instead."""


@dataclass(frozen=True)
class SelfTrainingResult:
    """What `self_train` left in `out`. teacher: its directory; steps, seconds: of training; frames: learnt from;
    losses: means over the last steps."""

    out: Path
    teacher: Path
    steps: int
    seconds: float
    frames: int
    losses: dict[str, float]


def self_train(
    images: Path,
    *,
    model: Path,
    out: Path,
    steps: int = 400,
    settings: SelfTrainingSettings = SelfTrainingSettings(),
    seed: int = 0,
    device: Device = "auto",
    time_limit: float | None = None,
) -> SelfTrainingResult:
    """Lets a trained network teach itself on images without labels.

    A teacher, which begins as a copy of the network and follows it slowly, labels images from several views; the
    network, its student, learns those labels from varied crops. Run again with the same arguments, it goes on where it
    was stopped, with the weights of an unbroken run.

    Args:
        images: a data set (its left images), a label store (its images), or a folder of images; labels are not read.
        model: directory that `cupola train` wrote.
        out: directory for the student (model.safetensors, model.json), teacher/, metrics.jsonl, config.yaml.
        steps: training steps.
        settings: how it learns.
        seed: another seed draws other images and views.
        device: where it runs; auto takes a GPU if there is one.
        time_limit: end after this many seconds of training at the latest, with the schedule shortened to fit. Where
            it takes effect, results depend on the machine's speed.

    Returns:
        What was learnt, and where it is.

    Raises:
        CheckpointError: there is no usable network at `model`.
        DataError: there is no image at `images`.
        StoreError: `out` holds a run of other settings.
        TrainingError: a loss is not finite.
        ConfigError: a setting is out of range, or the device is not there.
        DiskError: writing failed; the state saved before is kept.
    """
    if steps < 1:
        raise ConfigError(f"training needs at least one step, not {steps}")
    if time_limit is not None and not time_limit > 0:
        raise ConfigError(f"the time limit must be positive, but is {time_limit} s")
    if out.resolve() == model.resolve():
        raise ConfigError(f"--out would overwrite the network it learns from ({model}); choose another directory")
    fabric = make_fabric(device, settings.precision)
    require_equal_shares(settings.batch, fabric.world_size, 1)
    given, card = load_network(model)
    if not isinstance(given, PanopticNetwork):
        raise ConfigError(f"{model} is no cascade but a {type(given).__name__}; only cascades can teach themselves")
    frames = open_frames(images)
    with main_first(fabric):
        claim(
            out, MAY_DIFFER, images=images, model=model, out=out, steps=steps, settings=settings, seed=seed,
            device=device, time_limit=time_limit,
        )  # fmt: skip
    name = hashlib.sha256((frames.fingerprint + fingerprint(given)).encode()).hexdigest()
    if (out / CARD).is_file():
        facts = dict(load_network(out)[1]["training"])
        require_same_data(out, facts["fingerprint"], name)
        return _result(out, facts)
    student = with_negatives(given, settings.negatives)
    teacher = copy.deepcopy(student).to(fabric.device)
    task = SelfTrainingTask(teacher, frames, settings, seed, name, fabric)
    plan = Plan(steps, time_limit, settings.saving_share, seed, settings.optimizer)
    done = run_training(fabric, student, task, out, plan)
    facts = {
        "stage": 3,
        "fingerprint": name,
        "frames": len(frames),
        "images": str(images),
        "steps": done.step,
        "seconds": round(done.seconds, 1),
        "seed": seed,
        "trained": [parameter for parameter, _ in trained_parameters(student, settings.trained)],
        "versions": installed_versions(),
        "began_as": card.get("training", {}),
    }
    with main_first(fabric):
        for role, network, directory in (("teacher", teacher, out / TEACHER), ("student", student, out)):
            network.settings = given.settings
            if fabric.is_global_zero:
                save_network(directory, network, {**card, "training": {"role": role, **facts}})
        if fabric.is_global_zero:
            remove_state(out)
    return _result(out, facts)


def with_negatives(network: PanopticNetwork, rule: Any) -> PanopticNetwork:
    """A copy of a network that learns from background by another rule (`NegativeSettings.rule`)."""
    settings = replace(network.settings, negatives=replace(network.settings.negatives, rule=rule))
    changed = PanopticNetwork(settings, network.num_things, network.num_stuff)
    changed.load_state_dict(network.state_dict())
    return changed


def fingerprint(network: nn.Module) -> str:
    """Of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _result(out: Path, facts: dict[str, Any]) -> SelfTrainingResult:
    last = read_metrics(out)[-LAST_STEPS:]
    names = [name for name in (last[-1] if last else {}) if name not in NO_LOSS]
    losses = {name: float(np.mean([line[name] for line in last])) for name in names}
    return SelfTrainingResult(
        out, out / TEACHER, int(facts["steps"]), float(facts["seconds"]), int(facts["frames"]), losses
    )
