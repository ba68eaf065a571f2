"""The demo's report: the table, the learning curve, and every step of held-out frames as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cupola.config import plain
from cupola.correspondence import ClassicalCorrespondence
from cupola.data import StereoDataset
from cupola.diagnosis import installed_versions
from cupola.evaluation import Evaluation
from cupola.evaluation.object_recall import SMALL
from cupola.io.coco_panoptic import read_index, read_map
from cupola.pseudo_labels import LabelStore
from cupola.pseudo_labels.label_report import class_gallery, shrink, spread
from cupola.report import Figure, Gallery, Page, Table, picture_of, write_page
from cupola.runs.metrics import read_metrics
from cupola.taxonomy import CITYSCAPES_19
from cupola.types import PanopticMap
from cupola.visualize import (
    class_image,
    disparity_image,
    flow_image,
    instance_overlay,
    matched_palette,
    panoptic_overlay,
)

FRAMES = 10
"""Held-out frames shown."""

SMOOTHING = 25
"""Steps over which the learning curve is averaged."""


NOT_LOSSES = ("step", "loss", "gradient", "learning_rate", "seconds", "waiting")
"""Entries of metrics.jsonl beside the single losses."""


@dataclass(frozen=True)
class Stage:
    """What a stage says of the held-out frames. predictions: folder of its COCO panoptic files; result: its scores."""

    name: str
    predictions: Path
    result: Evaluation


COLUMNS = ("PQ", "SQ", "RQ", "PQ things", "PQ stuff", "mIoU", "moving", "standing", "small", "false")


def score_table(stages: Sequence[Stage]) -> Table:
    """A row for each stage, figures in percent."""
    area = stages[0].result.settings.recall_area
    careful = ", ".join(f"{100 * s.result.careful.standard.all.pq:.1f} ({s.name})" for s in stages)
    return Table(
        "Every stage on the same held-out frames",
        ["held-out frames", *COLUMNS],
        [[stage.name, *_figures(stage.result)] for stage in stages],
        "In percent; standard PQ with the paper's matching of pseudo classes. moving, standing: share of true things "
        f"of at least {area} pixels found at IoU > 0.5; small: of standing ones below {SMALL * area} pixels. false: "
        "predicted objects that are none. No pseudo label marks a standing thing: what a network finds there, it "
        f"inferred. With pairs of classes that hardly overlap refused, PQ is {careful}.",
    )


def _figures(result: Evaluation) -> list[str]:
    scores, objects = result.matched.standard, result.objects
    shares = [
        scores.all.pq, scores.all.sq, scores.all.rq, scores.things.pq, scores.stuff.pq,
        result.matched.semantic_standard.miou,
        *(r.share if r else float("nan") for r in (objects.moving, objects.standing, objects.small)),
    ]  # fmt: skip
    return [f"{100 * share:.1f}" for share in shares] + [str(objects.false_objects)]


def write_demo_report(
    path: Path,
    dataset: StereoDataset,
    store: LabelStore,
    stages: Sequence[Stage],
    networks: Sequence[Path],
    seconds: Mapping[str, float],
    warning: str = "",
) -> None:
    """Writes the report of a finished demo. dataset, store: the held-out frames and what stage 1 says of them; stages:
    the pseudo labels first; networks: of the other stages; warning: what a reader should know before trusting it."""
    found = stages[-1].result.objects.standing
    lead = (
        "Stereo streets were rendered, labelled from their motion and geometry, and a network trained on these labels, "
        f"which then taught itself. On streets it had never seen it finds {found.found if found else 0} of "
        f"{found.total if found else 0} standing things, though no label ever marked one. {warning}"
    ).strip()
    blocks: list[Table | Figure | Gallery] = [
        score_table(stages), _frames(dataset, store, stages),
        *(_curve(stage.name, network) for stage, network in zip(stages[1:], networks, strict=True)),
        _classes(stages), class_gallery(store),
    ]  # fmt: skip
    facts = {
        "time": ", ".join(f"{part} {value:.0f} s" for part, value in seconds.items()),
        **store.facts(),
        "versions": ", ".join(f"{name} {version}" for name, version in installed_versions().items()),
        "evaluation": json.dumps(plain(stages[0].result.settings)),
    }
    write_page(path, Page("cupola demo: from stereo video to a panoptic network", lead, blocks, facts))


def _frames(dataset: StereoDataset, store: LabelStore, stages: Sequence[Stage]) -> Gallery:
    pairs = {pair[0].key: pair for pair in dataset.pairs()}
    indexes = [{a.key: a for a in read_index(stage.predictions / "panoptic.json")[0]} for stage in stages]
    palettes = [matched_palette(stage.result.careful.assignment.tolist(), CITYSCAPES_19) for stage in stages]
    semantic_colors = matched_palette(stages[0].result.careful.semantic_assignment.tolist(), CITYSCAPES_19)
    correspondence = ClassicalCorrespondence()
    rows: list[tuple[str, Sequence[np.ndarray | None]]] = []
    for key in [store.keys[i] for i in spread(len(store.keys), FRAMES)]:
        clip = dataset.clip(pairs[key])
        image, fields = clip.first.left, correspondence(clip)
        truth = dataset.truth(pairs[key][0], CITYSCAPES_19)
        maps = [
            read_map(stage.predictions / "panoptic", index[key]) for stage, index in zip(stages, indexes, strict=True)
        ]
        pictures = [
            image,
            flow_image(fields.flow, fields.flow_valid),
            disparity_image(fields.disparity, fields.disparity_valid),
            instance_overlay(image, store.instance_map(key)),
            class_image(store.semantic(key), semantic_colors),
            *(panoptic_overlay(image, one, palette) for one, palette in zip(maps, palettes, strict=True)),
            None if truth is None else _truth_overlay(image, truth, dataset.moving(pairs[key][0])),
        ]
        rows.append((key, [None if picture is None else shrink(picture, 384) for picture in pictures]))
    present = sorted({int(c) for stage in stages for c in stage.result.careful.assignment if c >= 0})
    return Gallery(
        "Held-out frames, step by step",
        ["input", "flow", "disparity", "moving objects", "semantics", *(stage.name for stage in stages), "truth"],
        rows,
        "Colours: the class that each pseudo class was matched to; grey where every match hardly overlaps. Black in a "
        "pseudo label is ignored in training: a thing class where nothing was seen to move. In the truth, moving "
        "things are yellow.",
        [(CITYSCAPES_19.names[c], CITYSCAPES_19.colors[c]) for c in present],
    )


def _truth_overlay(image: np.ndarray, truth: PanopticMap, moving: frozenset[int] | None) -> np.ndarray:
    """The truth over its image; objects that move are yellow."""
    painted = panoptic_overlay(image, truth, CITYSCAPES_19.colors)
    movers = np.isin(truth.instances, list(moving or ()))
    painted[movers] = (0.45 * image[movers] + 0.55 * np.array([255, 225, 0])).astype(np.uint8)
    return painted


def _classes(stages: Sequence[Stage]) -> Table:
    """PQ of each class that the truth or a prediction holds."""
    rows = []
    for number, name in enumerate(CITYSCAPES_19.names):
        values = [stage.result.matched.standard.pq[number] for stage in stages]
        if not np.isnan(values).all():
            kind = "thing" if CITYSCAPES_19.is_thing[number] else "stuff"
            rows.append([f"{name} ({kind})", *(f"{100 * value:.1f}" for value in values)])
    return Table("PQ of each class", ["class", *(stage.name for stage in stages)], rows)


def _curve(name: str, network: Path) -> Figure:
    """Losses by step, smoothed."""
    from matplotlib.figure import Figure as Plot

    records = read_metrics(network)
    steps = np.array([record["step"] for record in records])
    plot = Plot(figsize=(9, 3.2), layout="constrained")
    axes = plot.subplots()
    names = [name for name in records[0] if name not in NOT_LOSSES]
    width = min(SMOOTHING, len(records))
    kernel = np.ones(width) / width
    for name in names:
        values = np.array([record[name] for record in records])
        axes.plot(np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid"), label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    return Figure(f"Learning curve, {name}", picture_of(plot), f"Mean over {width} steps.")
