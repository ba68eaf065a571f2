"""`cupola self-train`: stage 3, a network teaches itself on images without labels (paper; spec-network 3)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from cupola.errors import ConfigError
from cupola.models import PanopticNetwork, load_network
from cupola.training.frames import open_frames
from cupola.training.loop import Plan, run_training
from cupola.training.processes import Device, make_fabric, require_equal_shares
from cupola.training.run_directory import claim_together, facts_of, finished_facts, last_losses, save_trained
from cupola.training.self_training_settings import SelfTrainingSettings
from cupola.training.self_training_task import SelfTrainingTask

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
    plan = Plan(steps, time_limit, settings.saving_share, seed, settings.optimizer)
    if out.resolve() == model.resolve():
        raise ConfigError(f"--out would overwrite the network it learns from ({model}); choose another directory")
    fabric = make_fabric(device, settings.precision)
    require_equal_shares(settings.batch, fabric.world_size, 1)
    given, card = _load_cascade(model)
    frames = open_frames(images)
    claim_together(
        fabric, out, MAY_DIFFER, images=images, model=model, out=out, steps=steps, settings=settings, seed=seed,
        device=device, time_limit=time_limit,
    )  # fmt: skip
    learnt_from = hashlib.sha256((frames.fingerprint + fingerprint(given)).encode()).hexdigest()
    facts = finished_facts(out, learnt_from)
    if facts is None:
        student = with_negatives(given, settings.negatives)
        teacher = copy.deepcopy(student).to(fabric.device)
        task = SelfTrainingTask(teacher, frames, settings, seed, learnt_from, fabric)
        done = run_training(fabric, student, task, out, plan)
        facts = facts_of(fabric, task.fingerprint, done, seed) | {
            "stage": 3,
            "frames": len(frames),
            "images": str(images),
            "trained": [name for name, _ in task.parameters(student)],
            "began_as": card.get("training", {}),
        }
        enlarged = replace(given.settings, rows=settings.student_rows(given.settings.rows))
        for role, network, directory in (("teacher", teacher, out / TEACHER), ("student", student, out)):
            network.settings = enlarged
            save_trained(fabric, directory, network, {**card, "training": {"role": role, **facts}})
    return _result(out, facts)


def _load_cascade(model: Path) -> tuple[PanopticNetwork, dict[str, Any]]:
    """The network to begin with, and its card. Raises `CheckpointError`, and `ConfigError` for another architecture."""
    network, card = load_network(model)
    if not isinstance(network, PanopticNetwork):
        raise ConfigError(f"{model} is no cascade but a {type(network).__name__}; only cascades can teach themselves")
    return network, card


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


def _result(out: Path, facts: Mapping[str, Any]) -> SelfTrainingResult:
    return SelfTrainingResult(
        out=out,
        teacher=out / TEACHER,
        steps=int(facts["steps"]),
        seconds=float(facts["seconds"]),
        frames=int(facts["frames"]),
        losses=last_losses(out),
    )
