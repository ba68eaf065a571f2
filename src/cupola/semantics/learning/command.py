"""`cupola learn semantics`: DepthG's head and probe from stereo images alone (spec-stage1 5.5)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cupola.config import plain
from cupola.correspondence import AnyCorrespondence, ClassicalCorrespondence, CorrespondenceProvider
from cupola.data import FrameRecord, StereoDataset, every_kth, open_dataset
from cupola.devices import pick_device
from cupola.diagnosis import installed_versions
from cupola.errors import ConfigError, DataError, StoreError
from cupola.io import write_json
from cupola.runs.directory import claim
from cupola.runs.metrics import read_metrics
from cupola.runs.state import StateFiles
from cupola.semantics.backbones import BackboneSettings, load_backbone, random_backbone
from cupola.semantics.depthg.checkpoint import save_depthg
from cupola.semantics.learning.batches import Batches
from cupola.semantics.learning.loop import STATE, largest_share, new_learner, one_thread, run_learning
from cupola.semantics.learning.pairing import nearest_views
from cupola.semantics.learning.settings import CROPS, AnyRecipe, SmallRecipe
from cupola.semantics.learning.store import Eye, ViewStore, prepare_views

if TYPE_CHECKING:
    from cupola.semantics.backbones.networks import Backbone

WEIGHTS, CARD, VIEWS = "depthg.safetensors", "card.json", "views"

MAY_DIFFER = ("out", "device", "workers")
"""Arguments that may change between two parts of a run."""

LAST_STEPS = 50
"""The losses told at the end are means over this many last steps."""

NO_TRUTH = (
    "No ground truth was used in learning: not for the weights, and not to choose a step; the weights are those of the "
    "last step. The numbers of the recipes were not found without truth: those of small and cityscapes were searched "
    "by their authors with the true mIoU on Cityscapes, those of depth-only were chosen on a rendered street "
    "with truth."
)
"""Said on the card. The published weights are those of the step with the best true mIoU (spec-stage1 5.5, defect
S53)."""

RANDOM = (
    "the backbone has random weights (no --backbone.weights given): its features know colour and texture but nothing "
    "of what DINO knows; expect pseudo classes of that kind, and take --settings depth-only (docs/learn-semantics.md)"
)


COLLAPSED = 0.9
"""One pseudo class with a larger share of the cells than this is told of."""

ONE_CLASS = (
    "nearly everything is of one pseudo class: the codes have become alike, as happens where all features "
    "are (try --settings.standardise true, larger shifts, or another backbone)"
)


@dataclass(frozen=True)
class LearnedSemantics:
    """What `learn_semantics` left in `out`. weights: for `--semantics depthg --semantics.weights`; steps, seconds: of
    learning; images, views: learnt from; classes: pseudo classes; losses: means over the last steps; failed: what was
    wrong with each image that is left out; notes: what a user should know of the result."""

    out: Path
    weights: Path
    steps: int
    seconds: float
    images: int
    views: int
    classes: int
    losses: dict[str, float]
    failed: dict[str, str]
    notes: tuple[str, ...]


def learn_semantics(
    data: Path,
    *,
    out: Path,
    layout: str = "auto",
    scale: float = 1.0,
    backbone: BackboneSettings = BackboneSettings(),
    correspondence: AnyCorrespondence = ClassicalCorrespondence(),
    settings: AnyRecipe = SmallRecipe(),
    limit: int | None = None,
    every: int = 1,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
) -> LearnedSemantics:
    """Learns pseudo classes on the features of a frozen backbone, from stereo images without any label.

    DepthG: a small head turns the features of every cell into a code, such that codes are alike where features are, or
    where the depth is; a probe finds clusters of the codes. OUT/depthg.safetensors then serves as
    `--semantics depthg --semantics.weights OUT/depthg.safetensors`. What the backbone says of every image is found
    first and kept in OUT/views until the end. Run the same command again to go on after a stop.

    Args:
        data: directory of a data set (`cupola inspect DATA` tells what is in it).
        out: directory for depthg.safetensors, card.json, metrics.jsonl, config.yaml.
        layout: layout of the data set; `auto` finds out.
        scale: factor for the image size.
        backbone: the frozen network, and the file of its weights; without a file it has random weights, which is good
            for trying things out only.
        correspondence: method of the disparity, by name, and its settings.
        settings: the recipe, small (minutes on a laptop), cityscapes (the published one) or depth-only (for a backbone
            of random weights), and what differs from it.
        limit: at most this many images, the first ones.
        every: take every K-th image.
        seed: of all random draws.
        device: where it runs; auto takes a GPU if there is one.
        workers: threads that look at images; 0 takes as many as there are cores.

    Returns:
        What was learnt, and where it is.

    Raises:
        DataError: there are too few readable images, or no known depth to learn from.
        ConfigError: a setting is out of range, or the device is not there.
        CheckpointError: the backbone's weights are missing or of another architecture.
        StoreError: `out` holds a run of other settings or images.
        TrainingError: a loss is not finite.
        DiskError: writing failed; the state saved before is kept.
    """
    arguments = dict(locals())
    on = pick_device(device)
    dataset = open_dataset(data, layout, scale)
    records = _chosen(dataset, every, limit)
    require_enough(records, settings)
    notes: tuple[str, ...] = () if backbone.weights is not None else (RANDOM,)
    if (out / CARD).is_file():
        claim(out, MAY_DIFFER, **arguments)
        return _result(out)
    # Whatever can be wrong is found before `out` is taken, so that the mended command may use it.
    network = _backbone(backbone, seed).to(on)
    eye = Eye(dataset, correspondence, network, on, cells_of_view(settings, network), out / VIEWS)
    require_depth(dataset, records, correspondence, settings)
    claim(out, MAY_DIFFER, **arguments)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    facts = learn_from(eye, records, settings, out, seed, workers or os.cpu_count() or 1)
    if facts["largest_class"] > COLLAPSED:
        notes += (ONE_CLASS,)
    finish(out, facts | {"notes": list(notes), "arguments": plain(arguments)})
    return _result(out)


def learn_from(
    eye: Eye, records: Sequence[FrameRecord], settings: SmallRecipe, out: Path, seed: int, workers: int
) -> dict[str, Any]:
    """Learns from the views that `eye` sees of `records`, and writes OUT/depthg.safetensors.

    Returns what is worth telling of it, as plain values. Raises what `learn_semantics` raises.
    """
    with one_thread():
        store = prepare_views(eye, records, settings.cache_gigabytes, workers)
        require_enough(store.records, settings)
        descriptors = store.means
        if settings.standardise:
            descriptors = (store.means - store.centre) / store.deviation
        neighbours = nearest_views(descriptors, np.array(sources(store.records, settings)), settings.neighbours)
        learner = new_learner(store, settings, seed)
        batches = Batches(store, neighbours, settings, seed)
        seconds = run_learning(learner, batches, out, eye.device, fingerprint(store))
        largest = largest_share(learner, batches, eye.device)
    last = read_metrics(out)[-LAST_STEPS:]
    names = [name for name in last[-1] if name not in ("step", "seconds", "loss")]
    facts = {
        "truth": NO_TRUTH,
        "steps": settings.steps,
        "seconds": round(seconds, 1),
        "images": len(store.records),
        "views": len(store),
        "known_depth": round(float(np.isfinite(store.points[:, 2]).mean()), 4),
        "classes": settings.classes,
        "largest_class": round(largest, 4),
        "losses": {name: float(np.mean([line[name] for line in last if name in line])) for name in names},
        "failed": store.failed,
        "seed": seed,
        "versions": installed_versions(),
    }
    save_depthg(out / WEIGHTS, eye.backbone, learner.folded(), learner.probe, facts)
    return facts


def finish(out: Path, facts: dict[str, Any]) -> None:
    """Writes the card, which says that the run is over, and removes what was needed to get there."""
    write_json(out / CARD, facts)
    StateFiles(out, STATE).remove()
    shutil.rmtree(out / VIEWS, ignore_errors=True)


def sources(records: Sequence[FrameRecord], settings: SmallRecipe) -> list[int]:
    """What each view is cut from: the number of its image, or of its sequence."""
    names = sorted({record.sequence for record in records})
    by_sequence = settings.neighbours_from == "sequences"
    numbers = [names.index(record.sequence) if by_sequence else i for i, record in enumerate(records)]
    return [number for number in numbers for _ in range(CROPS)]


def require_enough(records: Sequence[FrameRecord], settings: SmallRecipe) -> None:
    """Raises `DataError` where there are too few images for positives or a batch."""
    views, cut_from = len(records) * CROPS, sources(records, settings)
    others = views - max((cut_from.count(source) for source in set(cut_from)), default=0)
    kind = "other images" if settings.neighbours_from == "images" else "other sequences"
    have = f"{len(records)} usable image{'' if len(records) == 1 else 's'} ({views} views)"
    if others < settings.neighbours:
        raise DataError(
            f"positives are the {settings.neighbours} views most like a view among those of {kind}, but {have} leave "
            f"only {others}; give more images, or lower --settings.neighbours"
        )
    if views < settings.batch:
        raise DataError(
            f"a batch holds {settings.batch} views, but there are only {have}; give more images, or lower "
            "--settings.batch"
        )


def require_depth(
    dataset: StereoDataset,
    records: Sequence[FrameRecord],
    correspondence: CorrespondenceProvider,
    settings: SmallRecipe,
) -> None:
    """Raises `DataError` unless some image has a known disparity, where one is needed: mostly a look at the first."""
    if not settings.depth.weight and settings.sampling == "random":
        return
    for record in records:
        try:
            frame = dataset.frame(record)
        except DataError:
            continue  # told with its reason when its views are due
        disparity, valid = correspondence.disparity(frame)
        if (valid & (disparity > 0)).any():
            return
    raise DataError(
        f"no image of {dataset.root} has a known disparity, so that there is no depth to learn from; see "
        f"`cupola inspect {dataset.root}`, or learn without it by --settings.depth.weight 0"
    )


def cells_of_view(settings: SmallRecipe, network: Backbone) -> int:
    """Cells of the backbone on each side of a view. Raises `ConfigError` for fewer than two."""
    cells = settings.side // network.patch
    if cells < 2:
        raise ConfigError(
            f"a view of {settings.side} px has {cells} cells of the backbone ({network.patch} px each) on a side, "
            f"where at least 2 are needed; take --settings.side {2 * network.patch} or more"
        )
    return cells


def fingerprint(store: ViewStore) -> str:
    """Of the images that a run learns from, and of how much is known of them."""
    digest = hashlib.sha256()
    for record in store.records:
        digest.update(f"{record.key}\n".encode())
    digest.update(store.means.tobytes())
    return digest.hexdigest()[:16]


def _chosen(dataset: StereoDataset, every: int, limit: int | None) -> tuple[FrameRecord, ...]:
    chosen = every_kth(dataset.records, every, limit)
    if not dataset.records:
        raise DataError(f"{dataset.root} ({dataset.layout}) holds no stereo frame")
    return chosen


def _backbone(settings: BackboneSettings, seed: int) -> Backbone:
    if settings.weights is None:
        return random_backbone(settings.architecture, seed, settings.level)
    return load_backbone(settings, torch.device("cpu"))


def _result(out: Path) -> LearnedSemantics:
    """What the card of a finished run tells. Raises `StoreError` where it is damaged."""
    path = out / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return LearnedSemantics(
            out=out,
            weights=out / WEIGHTS,
            steps=card["steps"],
            seconds=card["seconds"],
            images=card["images"],
            views=card["views"],
            classes=card["classes"],
            losses=card["losses"],
            failed=card["failed"],
            notes=tuple(card["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged; remove {out} and learn again") from error
