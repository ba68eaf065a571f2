"""`cupola finetune`: heads (or all) of a network on few annotated images, over disjoint subsets (spec-network 7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning_fabric import Fabric

from cupola.diagnosis import installed_versions
from cupola.errors import ConfigError, StoreError
from cupola.finetuning.adapting import class_names, class_order, knows
from cupola.finetuning.annotated import Annotated, open_annotated
from cupola.finetuning.curve_report import write_curve_report
from cupola.finetuning.scored import Figures, Spread, Tuned, judge, require_comparable
from cupola.finetuning.source import Source
from cupola.finetuning.subsets import draw_subset, read_list
from cupola.finetuning.task import Trainable, TruthTask
from cupola.finetuning.truth import truth_data
from cupola.io import write_json
from cupola.models import load_network
from cupola.prediction import Predictor
from cupola.prediction.classes import class_system
from cupola.training import AugmentSettings, CopyPasteSettings, OptimizerSettings
from cupola.training.loop import Plan, run_training
from cupola.training.processes import Device, Precision, main_first, make_fabric, require_equal_shares
from cupola.training.run_directory import claim_together, facts_of, finished_facts, save_trained
from cupola.training.sampler import BatchSettings

RESULT, EVALUATION, REPORT, BEFORE = "result.json", "evaluation.json", "report.html", "before.json"

MAY_DIFFER = ("model", "data", "backbone", "validate", "out", "images", "subsets", "subset", "keys", "device")
"""Arguments that may change between two parts of a run: the content of network and images is compared instead of their
place, and more sizes or subsets may be added."""


@dataclass(frozen=True)
class FinetuneSettings:
    """How a network learns from true labels.

    Attributes:
        batch: images a step, of all processes together.
        crop: largest (height, width) of a training image [px]; larger ones are seen in crops.
        precision: of the forward pass; auto is bfloat16 where the device computes in it, and float32 else.
        saving_share: share of the time that may go into saving the state.
        optimizer: AdamW and its schedule.
        augment: how images are varied: by geometry alone, as the paper does (spec-network 7).
    """

    batch: int = 4
    crop: tuple[int, int] = (512, 1024)
    precision: Precision = "auto"
    saving_share: float = 0.1
    optimizer: OptimizerSettings = OptimizerSettings(warm_up=20)  # noqa: RUF009 - frozen
    augment: AugmentSettings = AugmentSettings(jitter=0.0, grey=0.0, blur=0.0)  # noqa: RUF009 - frozen

    may_differ: ClassVar[tuple[str, ...]] = ("saving_share",)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"a batch needs at least one image, not {self.batch}")
        if min(self.crop) < 32:
            raise ConfigError(f"the crop must be at least 32 x 32 px, but is {self.crop[0]} x {self.crop[1]}")
        if not self.saving_share > 0:
            raise ConfigError(f"saving_share must be positive, but is {self.saving_share}")


@dataclass(frozen=True)
class FinetuneResult:
    """All networks of a run. before: figures of the network as it was, its pseudo classes matched; pq: mean and spread
    over the subsets, by number of images; report: with the plot, where there was something to validate on."""

    out: Path
    networks: tuple[Tuned, ...]
    before: Figures | None
    pq: dict[int, Spread]
    report: Path | None


@dataclass(frozen=True)
class _Choice:
    """Which images one network learns from; name: of its directory."""

    name: str
    keys: tuple[str, ...]
    subset: int | None


def finetune(
    model: Path,
    data: Path,
    *,
    out: Path,
    backbone: Path | None = None,
    validate: Path | None = None,
    images: int | list[int] | None = None,
    subsets: int = 1,
    subset: int | None = None,
    keys: Path | None = None,
    trainable: Trainable = "heads",
    classes: Literal[19, 27] = 19,
    layout: str = "auto",
    scale: float = 1.0,
    steps: int = 600,
    settings: FinetuneSettings = FinetuneSettings(),
    seed: int = 0,
    device: Device = "auto",
) -> FinetuneResult:
    """Trains a network on annotated images: label-efficient fine-tuning, or the supervised upper bound.

    Each network lies in a directory of its own under `out`. Run again with the same arguments it goes on where it was
    stopped; further sizes and subsets are added to what is there. With torchrun, several processes share each batch.

    Args:
        model: a network as `cupola predict --model` takes it, or the name of an untrained one (`cupola train
            --network`), such as paper.
        data: annotated images: a data set with truth, or a folder with panoptic.json, panoptic/ and images/.
        out: directory for the networks, result.json and report.html.
        backbone: file of weights that the trunk of an untrained network starts from (`cupola train --backbone`).
        validate: annotated images to score the networks on; class by class, without any matching.
        images: how many images to learn from, one number or several ([5,20,60]); by default all.
        subsets: so many disjoint subsets of each size, a network each; result.json tells mean and spread.
        subset: only the subset of this number, from 0 on.
        keys: file that lists the images to learn from, a key a line, instead of a draw.
        trainable: heads leaves trunk and pyramid as they are; all trains everything.
        classes: the 19 or the 27 Cityscapes classes; a folder with panoptic.json has its own.
        layout: layout of the data sets; `auto` finds out.
        scale: factor for the size of all images.
        steps: training steps of each network.
        settings: how it learns.
        seed: of the draws and of all that is random in the training.
        device: where it runs; auto takes a GPU if there is one.

    Raises:
        CheckpointError: there is no usable network at `model`.
        DataError: there is no truth, or training and validation differ in classes or are the same images.
        ConfigError: a setting is out of range, such as more images than there are.
        StoreError: `out` holds a run of other settings, images or of another network.
        TrainingError: a loss is not finite.
        DiskError: writing failed; the state saved before is kept.
    """
    plan = Plan(steps, None, settings.saving_share, seed, settings.optimizer)
    source = Source.open(model, backbone, trainable)
    train = open_annotated(data, layout, scale, classes)
    judged = None if validate is None else open_annotated(validate, layout, scale, classes)
    if judged is not None:
        require_comparable(train, judged)
    choices = _choices(train, images, subsets, subset, keys, seed)
    fabric = make_fabric(device, settings.precision)
    require_equal_shares(settings.batch, fabric.world_size, 1)
    claim_together(
        fabric, out, MAY_DIFFER, model=model, data=data, out=out, backbone=backbone, validate=validate, images=images,
        subsets=subsets, subset=subset, keys=keys, trainable=trainable, classes=classes, layout=layout, scale=scale,
        steps=steps, settings=settings, seed=seed, device=device,
    )  # fmt: skip
    run = _Run(fabric, out, source, train, judged, trainable, settings, plan)
    before = run.before()
    return _finish(run, tuple(run.network(choice) for choice in choices), before)


def _choices(
    train: Annotated, images: int | list[int] | None, subsets: int, subset: int | None, keys: Path | None, seed: int
) -> list[_Choice]:
    """The images of each network. Raises `ConfigError` where the arguments contradict each other or ask too much."""
    if keys is not None:
        if images is not None or subsets != 1 or subset is not None:
            raise ConfigError("--keys names the images to learn from; leave --images, --subsets and --subset out")
        return [_Choice("list", read_list(keys, train.keys), None)]
    if images is None:
        if subsets != 1 or subset is not None:
            raise ConfigError("all images make one set only; say with --images how many a subset has")
        return [_Choice("all", train.keys, None)]
    sizes = [images] if isinstance(images, int) else images
    if not sizes or len(set(sizes)) < len(sizes):
        raise ConfigError(f"--images must be one number or several different ones, not {images}")
    if subsets < 1:
        raise ConfigError(f"there must be at least one subset, not {subsets}")
    numbers = range(subsets) if subset is None else [subset]
    for size in sizes:  # before any work
        draw_subset(train.keys, size, max(numbers), seed)
    return [
        _Choice(f"images-{size}-subset-{number}", draw_subset(train.keys, size, number, seed), number)
        for size in sizes
        for number in numbers
    ]


@dataclass(frozen=True)
class _Run:
    """Everything that the networks of a run share."""

    fabric: Fabric
    out: Path
    source: Source
    train: Annotated
    validate: Annotated | None
    trainable: Trainable
    settings: FinetuneSettings
    plan: Plan

    def before(self) -> Figures | None:
        """How good the network is as it comes; None where it is untrained or there is nothing to validate on."""
        if self.source.predictor is None:
            return None
        with main_first(self.fabric):
            return self._scored(self.source.predictor, self.source.card, self.out / BEFORE)

    def network(self, choice: _Choice) -> Tuned:
        """Trains (or finds) one network and scores it."""
        path = self.out / choice.name
        task = self._task(choice)
        if finished_facts(path, task.fingerprint) is None:
            self._train(path, choice, task)
        network, card = load_network(path)
        predictor = Predictor(network, class_system(card), torch.device("cpu"))
        with main_first(self.fabric):
            figures = self._scored(predictor, card, path / EVALUATION)
        return Tuned(path, len(choice.keys), choice.subset, figures)

    def _task(self, choice: _Choice) -> TruthTask:
        data = truth_data(self.train, choice.keys)
        canvas, unpasted = data.canvas(self.settings.crop), CopyPasteSettings(pastes=(0, 0))
        rank, ranks, seed = self.fabric.global_rank, self.fabric.world_size, self.plan.seed
        batches = BatchSettings(self.settings.batch, canvas, seed, self.settings.augment, unpasted, rank, ranks)
        return TruthTask(data, batches, self.trainable, self.source.stamp)

    def _train(self, path: Path, choice: _Choice, task: TruthTask) -> None:
        model = self.source.network(self.train, self.plan.seed)
        done = run_training(self.fabric, model, task, path, self.plan)
        facts = facts_of(self.fabric, task.fingerprint, done, self.plan.seed) | {
            "from": self.source.name,
            "truth": str(self.train.path),
            "keys": choice.keys,
            "trainable": self.trainable,
        }
        things, stuff = class_order(self.train.taxonomy)
        names = class_names(self.train.taxonomy)
        card = {"things": things, "stuff": stuff, "class_names": names, "training": facts}
        save_trained(self.fabric, path, model, card)

    def _scored(self, predictor: Predictor, card: Mapping[str, Any], path: Path) -> Figures | None:
        """Figures of a network, kept in `path` with what they are of: only the first process that asks for them
        predicts. Raises `StoreError` where they cannot be read back."""
        if self.validate is None:
            return None
        stamp = [predictor.fingerprint(), str(self.validate.path.resolve()), list(self.validate.keys)]
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if content["of"] == stamp:
                    return Figures.of(content)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path} is damaged ({error}); delete it and run the same command again") from error
        place = self.fabric.device
        there = replace(predictor, network=predictor.network.to(place), device=place)
        content = judge(there, self.validate, matched=not knows(card, self.validate.taxonomy)).to_dict()
        write_json(path, {"of": stamp} | content)
        return Figures.of(content)


def _finish(run: _Run, networks: tuple[Tuned, ...], before: Figures | None) -> FinetuneResult:
    """The result of all networks, which the first process writes: result.json and, where there are figures, the
    report."""
    by_size: dict[int, list[float]] = {}
    for one in networks:
        if one.figures is not None:
            by_size.setdefault(one.images, []).append(one.figures.pq)
    pq = {size: Spread.of(values) for size, values in sorted(by_size.items())}
    report = run.out / REPORT if pq and run.validate is not None else None
    result = FinetuneResult(run.out, networks, before, pq, report)
    if run.fabric.is_global_zero:
        _write(run, result)
    return result


def _write(run: _Run, result: FinetuneResult) -> None:
    before, pq = result.before, result.pq
    content: dict[str, Any] = {
        "from": run.source.name,
        "trainable": run.trainable,
        "classes": list(run.train.taxonomy.names),
        "before": None if before is None else asdict(before),
        "networks": [
            {
                "path": one.path.name,
                "images": one.images,
                "subset": one.subset,
                "figures": None if one.figures is None else asdict(one.figures),
            }
            for one in result.networks
        ],
        "pq": {str(size): asdict(spread) for size, spread in pq.items()},
        "versions": installed_versions(),
    }
    write_json(run.out / RESULT, content)
    if result.report is not None and run.validate is not None:
        predictor = run.source.predictor
        write_curve_report(result.report, result.networks, before, pq, run.validate, predictor, _facts(run))


def _facts(run: _Run) -> dict[str, str]:
    assert run.validate is not None
    return {
        "network before": run.source.name,
        "trained": run.trainable,
        "truth": f"{run.train.path} ({len(run.train.keys)} images)",
        "validated on": f"{run.validate.path} ({len(run.validate.keys)} images)",
        "steps": str(run.plan.steps),
        "seed": str(run.plan.seed),
        **installed_versions(),
    }
