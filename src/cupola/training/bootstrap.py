"""`cupola train`: stage 2, the panoptic network from a label store (paper; spec-network 2; findings-demo)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cupola.diagnosis import installed_versions
from cupola.errors import ConfigError
from cupola.models import (
    PRESETS,
    Mask2FormerSettings,
    ModelSettings,
    NetworkSettings,
    PanopticModel,
    PresetName,
    VitSettings,
    build_network,
    load_backbone_weights,
    load_network,
    save_network,
)
from cupola.models.checkpoint import CARD
from cupola.pseudo_labels import LabelStore
from cupola.runs.directory import claim
from cupola.runs.metrics import read_metrics
from cupola.training.augment import AugmentSettings
from cupola.training.bootstrap_task import BootstrapTask
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.data import TrainingData, load_data, require_same_data
from cupola.training.discoveries import DiscoverySettings
from cupola.training.loop import OptimizerSettings, Plan, run_training
from cupola.training.processes import Device, Precision, main_first, make_fabric, require_equal_shares
from cupola.training.record import Log, require_log
from cupola.training.sampler import BatchSettings, make_batch
from cupola.training.self_labels import SelfLabelSettings
from cupola.training.state import remove_state
from cupola.training.watching import SHOWN, Monitoring, Observer, Pictures

LAST_STEPS = 50
"""The losses told at the end are means over this many last steps."""

MAY_DIFFER = ("labels", "out", "device", "time_limit", "validate", "validate_every", "pictures", "log")
"""Arguments that may change between two parts of a run: the labels' content is compared instead of their place, the
time left may be another, and who watches changes nothing."""
NO_LOSS = ("step", "gradient", "learning_rate", "seconds", "waiting")
"""Entries of a line of metrics.jsonl that are no losses."""


@dataclass(frozen=True)
class BootstrapSettings:
    """How stage 2 learns; the defaults train a small network from nothing in minutes (findings-demo, "Recipe").

    Attributes:
        batch: images a step, of all processes together.
        accumulate: passes in which each process sends its images through the network: less memory, the same losses, a
            third more time. (Batch norms see the images of one pass.)
        crop: largest (height, width) of a training image [px]; larger frames are seen in crops.
        skip_empty: leave out frames without an object, as the published code does. By default they stay: they teach
            semantics, take pastes, and where labels are ignore-aware they do not speak against objects.
        left_over: a thing class without object is ignored (paper), or learnt as "some thing" in the semantics (the
            published code).
        precision: of the forward pass; auto is bfloat16 on a GPU that has it and float32 else.
        saving_share: share of the time that may go into saving the state. A kill loses the steps since it was saved
            last: two seconds or so of the small network's; each step is saved where that costs less than this.
        optimizer: AdamW and its schedule.
        augment: how frames are varied.
        copy_paste: how objects are pasted.
        self_labels: when and what the network labels itself.
        discoveries: when and which of its own discoveries are pasted.
    """

    batch: int = 4
    accumulate: int = 1
    crop: tuple[int, int] = (256, 512)
    skip_empty: bool = False
    left_over: Literal["ignore", "thing"] = "ignore"
    precision: Precision = "auto"
    saving_share: float = 0.05
    optimizer: OptimizerSettings = OptimizerSettings()  # noqa: RUF009 - frozen
    augment: AugmentSettings = AugmentSettings()  # noqa: RUF009 - frozen
    copy_paste: CopyPasteSettings = CopyPasteSettings()  # noqa: RUF009 - frozen
    self_labels: SelfLabelSettings = SelfLabelSettings()  # noqa: RUF009 - frozen
    discoveries: DiscoverySettings = DiscoverySettings()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"a batch needs at least one image, not {self.batch}")
        if self.accumulate < 1:
            raise ConfigError(f"accumulate counts passes, from 1 on, but is {self.accumulate}")
        if not self.saving_share > 0:
            raise ConfigError(f"saving_share must be positive, but is {self.saving_share}")
        if min(self.crop) < 32:
            raise ConfigError(f"the crop must be at least 32 x 32 px, but is {self.crop[0]} x {self.crop[1]}")


@dataclass(frozen=True)
class TrainingResult:
    """What `train` left in `out`. steps, seconds: of training; frames, objects: learnt from; self_labels: objects the
    network labelled itself; losses: means over the last steps; things, stuff: pseudo classes in the network's order."""

    out: Path
    steps: int
    seconds: float
    frames: int
    objects: int
    self_labels: int
    losses: dict[str, float]
    things: tuple[int, ...]
    stuff: tuple[int, ...]


def train(
    labels: Path,
    *,
    out: Path,
    network: PresetName | NetworkSettings | Mask2FormerSettings = "small",
    steps: int = 1500,
    backbone: Path | None = None,
    settings: BootstrapSettings = BootstrapSettings(),
    seed: int = 0,
    device: Device = "auto",
    time_limit: float | None = None,
    validate: Path | None = None,
    validate_every: int = 200,
    pictures: int = 10,
    log: Log = "none",
) -> TrainingResult:
    """Trains the panoptic network on a label store.

    Run again with the same arguments, it goes on where it was stopped, with the losses of an unbroken run.

    Args:
        labels: a finished label store, as `cupola pseudo-label` makes it.
        out: directory for model.safetensors, model.json, metrics.jsonl, config.yaml.
        network: one of the presets (docs/networks.md), or settings of its own: small (2 million parameters) learns
            from nothing in minutes on a CPU; tiny (0.2 million) is for tests; paper (73 million) is the published
            ResNet-50; vit-b (138 million) has its heads on a ViT-B/16, for weights of DINO and its successors;
            mask2former (44 million) is another architecture on a ResNet-50, and needs the extra of that name.
        backbone: file of weights that the trunk of the network starts from, as its publisher gives it
            (docs/weights.md); by default it starts from nothing.
        steps: training steps.
        settings: how it learns.
        seed: another seed gives another network.
        device: where it runs; auto takes a GPU if there is one.
        time_limit: end after this many seconds of training at the latest, with the schedule shortened to fit. Where
            it takes effect, results depend on the machine's speed.
        validate: data set with truth, to monitor PQ and mIoU on (monitoring.jsonl); nothing is selected by them.
        validate_every: steps between two such looks.
        pictures: times that images, targets and predictions of one batch are drawn (pictures/); 0 = never.
        log: tensorboard or wandb (kept offline unless WANDB_MODE says else) get the measures as well.

    Returns:
        What was learnt, and where it is.

    Raises:
        StoreError: `labels` is no finished label store, or `out` holds a run of other settings.
        TrainingError: there is nothing to learn from, or a loss is not finite.
        ConfigError: a setting is out of range, or the device is not there.
        CheckpointError: `backbone` is missing, damaged, unsafe or of another architecture.
        DiskError: writing failed; the state saved before is kept.
    """
    shape = PRESETS[network]() if isinstance(network, str) else network
    _check(steps, time_limit, shape, backbone, validate_every, pictures)
    require_log(log)
    if backbone is not None and not (out / CARD).is_file():
        load_backbone_weights(build_network(shape, 1, 1), backbone)  # a wrong file is said before `out` is taken
    fabric = make_fabric(device, settings.precision)
    require_equal_shares(settings.batch, fabric.world_size, settings.accumulate)
    store = LabelStore.open(labels)
    with main_first(fabric):
        claim(
            out, MAY_DIFFER, labels=labels, out=out, network=network, backbone=backbone, steps=steps,
            settings=settings, seed=seed, device=device, time_limit=time_limit, validate=validate,
            validate_every=validate_every, pictures=pictures, log=log,
        )  # fmt: skip
    paste = settings.copy_paste
    data = load_data(
        store,
        skip_empty=settings.skip_empty,
        min_side=paste.min_side,
        bank_size=paste.bank,
        seed=seed,
        left_over=settings.left_over,
    )
    canvas = data.canvas(settings.crop)
    if (out / CARD).is_file():
        facts = dict(load_network(out)[1]["training"])
        require_same_data(out, facts["fingerprint"], data.fingerprint)
        return _result(out, store, facts)
    model = _initial(shape, store, seed)
    started = None if backbone is None else load_backbone_weights(model, backbone).card()
    batches = BatchSettings(
        settings.batch, canvas, seed, settings.augment, paste, fabric.global_rank, fabric.world_size
    )
    task = BootstrapTask(fabric, data, batches, settings.self_labels, settings.discoveries, out)
    plan = Plan(steps, time_limit, settings.saving_share, seed, settings.optimizer, settings.accumulate)
    observers = _observers(out, data, batches, pictures, validate, validate_every)
    done = run_training(fabric, model, task, out, plan, observers, log)
    facts = {
        "fingerprint": data.fingerprint,
        "frames": len(data),
        "objects": data.objects,
        "self_labels": task.added,
        "steps": done.step,
        "seconds": round(done.seconds, 1),
        "seed": seed,
        "backbone": started,
        "image_size": list(canvas),
        "labels": store.facts(),
        "versions": installed_versions(),
    }
    with main_first(fabric):
        if fabric.is_global_zero:
            save_network(out, model, {"things": store.things, "stuff": store.stuff, "training": facts})
            remove_state(out)
    return _result(out, store, facts)


def _check(
    steps: int,
    time_limit: float | None,
    shape: ModelSettings,
    backbone: Path | None,
    validate_every: int,
    pictures: int,
) -> None:
    """Raises `ConfigError` for arguments that make no sense."""
    if steps < 1:
        raise ConfigError(f"training needs at least one step, not {steps}")
    if time_limit is not None and not time_limit > 0:
        raise ConfigError(f"the time limit must be positive, but is {time_limit} s")
    trunk = shape.trunk
    if backbone is None and isinstance(trunk, VitSettings) and trunk.frozen:
        raise ConfigError(f"the trunk {trunk.architecture} is frozen, so it needs weights: name a file as --backbone")
    if validate_every < 1 or pictures < 0:
        raise ConfigError(f"validate_every must be at least 1 and pictures 0, not {validate_every} and {pictures}")


def _observers(
    out: Path, data: TrainingData, batches: BatchSettings, pictures: int, validate: Path | None, validate_every: int
) -> list[Observer]:
    """What watches the run: pictures of its first batch, and scores on a data set with truth."""
    observers: list[Observer] = []
    if pictures:
        shown = replace(batches, size=min(batches.size, SHOWN), rank=0, ranks=1)
        observers.append(Pictures(out, make_batch(data, 0, shown), pictures))
    if validate is not None:
        observers.append(Monitoring(out, validate, validate_every))
    return observers


def _initial(settings: ModelSettings, store: LabelStore, seed: int) -> PanopticModel:
    """The untrained network; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(settings, len(store.things), len(store.stuff))


def _result(out: Path, store: LabelStore, facts: dict[str, Any]) -> TrainingResult:
    last = read_metrics(out)[-LAST_STEPS:]
    names = [name for name in (last[-1] if last else {}) if name not in NO_LOSS]
    return TrainingResult(
        out=out,
        steps=int(facts["steps"]),
        seconds=float(facts["seconds"]),
        frames=int(facts["frames"]),
        objects=int(facts["objects"]),
        self_labels=int(facts["self_labels"]),
        losses={name: float(np.mean([line[name] for line in last])) for name in names},
        things=store.things,
        stuff=store.stuff,
    )
