"""`cupola train`: stage 2, the panoptic network from a label store (paper; spec-network 2; findings-demo)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning_fabric import Fabric

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
)
from cupola.pseudo_labels import LabelStore
from cupola.training.augment import AugmentSettings
from cupola.training.bootstrap_task import BootstrapTask
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.data import TrainingData, load_data
from cupola.training.discoveries import DiscoverySettings
from cupola.training.loop import OptimizerSettings, Plan, run_training
from cupola.training.processes import Device, Precision, make_fabric, require_equal_shares
from cupola.training.record import Log, require_log
from cupola.training.run_directory import (
    claim_together,
    facts_of,
    finished_facts,
    is_finished,
    last_losses,
    save_trained,
)
from cupola.training.sampler import BatchSettings, make_batch
from cupola.training.self_labels import SelfLabelSettings
from cupola.training.watching import SHOWN, Monitoring, Observer, Pictures

MAY_DIFFER = ("labels", "out", "device", "time_limit", "validate", "validate_every", "pictures", "log")
"""Arguments that may change between two parts of a run: the labels' content is compared instead of their place, the
time left may be another, and who watches changes nothing."""


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
        precision: of the forward pass; auto is bfloat16 where the device computes in it, and float32 else.
        saving_share: share of the time that may go into saving the state. Where saving costs less, as it does for the
            small network, every step is saved, and a kill loses only the one that it falls into.
        optimizer: AdamW and its schedule.
        augment: how frames are varied.
        copy_paste: how objects are pasted.
        self_labels: when and what the network labels itself; never by default, for it costs a small network more than
            it brings (docs/ablations.md).
        discoveries: when and which of its own discoveries are pasted.
    """

    batch: int = 4
    accumulate: int = 1
    crop: tuple[int, int] = (256, 512)
    skip_empty: bool = False
    left_over: Literal["ignore", "thing"] = "ignore"
    precision: Precision = "auto"
    saving_share: float = 0.15
    optimizer: OptimizerSettings = OptimizerSettings()  # noqa: RUF009 - frozen
    augment: AugmentSettings = AugmentSettings()  # noqa: RUF009 - frozen
    copy_paste: CopyPasteSettings = CopyPasteSettings()  # noqa: RUF009 - frozen
    self_labels: SelfLabelSettings = SelfLabelSettings(at=())  # noqa: RUF009 - frozen
    discoveries: DiscoverySettings = DiscoverySettings()  # noqa: RUF009 - frozen

    may_differ: ClassVar[tuple[str, ...]] = ("saving_share",)

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
        network: a preset (docs/networks.md), or settings of its own: small learns from nothing in minutes on a CPU;
            tiny is for tests; paper is the published ResNet-50; vit-b has its heads on a ViT-B/16; mask2former is
            another architecture on a ResNet-50, and needs the extra of that name.
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
    plan = Plan(steps, time_limit, settings.saving_share, seed, settings.optimizer, settings.accumulate)
    shape = PRESETS[network]() if isinstance(network, str) else network
    _check(out, shape, backbone, validate_every, pictures, log)
    fabric = make_fabric(device, settings.precision)
    require_equal_shares(settings.batch, fabric.world_size, settings.accumulate)
    store = LabelStore.open(labels)
    claim_together(
        fabric, out, MAY_DIFFER, labels=labels, out=out, network=network, backbone=backbone, steps=steps,
        settings=settings, seed=seed, device=device, time_limit=time_limit, validate=validate,
        validate_every=validate_every, pictures=pictures, log=log,
    )  # fmt: skip
    data = _data(store, settings, seed)
    facts = finished_facts(out, data.fingerprint)
    if facts is None:
        batches = _batches(fabric, data, settings, seed)
        task = BootstrapTask(fabric, data, batches, settings.self_labels, settings.discoveries, out)
        model, began_as = _initial(shape, store, backbone, seed)
        observers = _observers(out, data, batches, pictures, validate, validate_every)
        done = run_training(fabric, model, task, out, plan, observers, log)
        facts = facts_of(fabric, task.fingerprint, done, seed) | {
            "frames": len(data),
            "objects": data.objects,
            "self_labels": task.added,
            "backbone": began_as,
            "image_size": list(batches.canvas),
            "labels": store.facts(),
        }
        save_trained(fabric, out, model, {"things": store.things, "stuff": store.stuff, "training": facts})
    return _result(out, store, facts)


def _check(
    out: Path, shape: ModelSettings, backbone: Path | None, validate_every: int, pictures: int, log: Log
) -> None:
    """Raises `ConfigError` for arguments that make no sense, `CheckpointError` for a file of weights that does not fit:
    before any work, and before `out` is taken."""
    trunk = shape.trunk
    if backbone is None and isinstance(trunk, VitSettings) and trunk.frozen:
        raise ConfigError(f"the trunk {trunk.architecture} is frozen, so it needs weights: name a file as --backbone")
    if validate_every < 1 or pictures < 0:
        raise ConfigError(f"validate_every must be at least 1 and pictures 0, not {validate_every} and {pictures}")
    require_log(log)
    if backbone is not None and not is_finished(out):
        load_backbone_weights(build_network(shape, 1, 1), backbone)


def _data(store: LabelStore, settings: BootstrapSettings, seed: int) -> TrainingData:
    return load_data(
        store,
        skip_empty=settings.skip_empty,
        min_side=settings.copy_paste.min_side,
        bank_size=settings.copy_paste.bank,
        seed=seed,
        left_over=settings.left_over,
    )


def _batches(fabric: Fabric, data: TrainingData, settings: BootstrapSettings, seed: int) -> BatchSettings:
    """This process's share of each batch."""
    canvas, rank, ranks = data.canvas(settings.crop), fabric.global_rank, fabric.world_size
    return BatchSettings(settings.batch, canvas, seed, settings.augment, settings.copy_paste, rank, ranks)


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


def _initial(
    settings: ModelSettings, store: LabelStore, backbone: Path | None, seed: int
) -> tuple[PanopticModel, dict[str, str] | None]:
    """The network before training, and which file its trunk comes from; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(settings, len(store.things), len(store.stuff))
    return model, None if backbone is None else load_backbone_weights(model, backbone).card()


def _result(out: Path, store: LabelStore, facts: Mapping[str, Any]) -> TrainingResult:
    return TrainingResult(
        out=out,
        steps=int(facts["steps"]),
        seconds=float(facts["seconds"]),
        frames=int(facts["frames"]),
        objects=int(facts["objects"]),
        self_labels=int(facts["self_labels"]),
        losses=last_losses(out),
        things=store.things,
        stuff=store.stuff,
    )
