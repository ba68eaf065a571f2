"""The demo's report: the table, the learning curve, and every step of held-out frames as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cupola.config import plain
from cupola.correspondence import ClassicalCorrespondence
from cupola.data import StereoDataset
from cupola.diagnosis import installed_versions
from cupola.evaluation import Evaluation
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


def write_demo_report(
    path: Path,
    out: Path,
    dataset: StereoDataset,
    store: LabelStore,
    labels: Evaluation,
    network: Evaluation,
    scores: tuple[Sequence[str], Sequence[Sequence[str]]],
    seconds: Mapping[str, float],
    warning: str = "",
) -> None:
    """Writes the report of a finished demo at `out`; `scores` are the columns and rows of its table, `warning` is what
    a reader should know before trusting them."""
    columns, rows = scores
    results = Table(
        "Pseudo labels and network on the same held-out frames",
        columns,
        rows,
        "In percent; standard PQ with the paper's matching of pseudo classes. moving, standing: share of true things "
        f"of at least {labels.settings.recall_area} pixels found at IoU > 0.5. false: predicted objects that are none. "
        "No pseudo label marks a standing thing: what the network finds there, it inferred. With pairs of classes that "
        f"hardly overlap refused, PQ is {100 * labels.careful.standard.all.pq:.1f} for the pseudo labels and "
        f"{100 * network.careful.standard.all.pq:.1f} for the network.",
    )
    blocks: list[Table | Figure | Gallery] = [
        results, _frames(out, dataset, store, labels, network), _curve(out / "network"),
        _classes(labels, network), class_gallery(store),
    ]  # fmt: skip
    found = network.objects.standing
    lead = (
        "A stereo street was rendered, labelled from its motion and geometry, and a network trained on these labels. "
        f"On streets it had never seen it found {found.found if found else 0} of {found.total if found else 0} "
        f"standing things, though no label ever marked one. {warning}"
    ).strip()
    facts = {
        "time": ", ".join(f"{part} {value:.0f} s" for part, value in seconds.items()),
        **store.facts(),
        "versions": ", ".join(f"{name} {version}" for name, version in installed_versions().items()),
        "evaluation": json.dumps(plain(labels.settings)),
    }
    write_page(path, Page("cupola demo: from stereo video to a panoptic network", lead, blocks, facts))


def _frames(out: Path, dataset: StereoDataset, store: LabelStore, labels: Evaluation, network: Evaluation) -> Gallery:
    pairs = {pair[0].key: pair for pair in dataset.pairs()}
    predictions = {annotation.key: annotation for annotation in read_index(out / "predictions" / "panoptic.json")[0]}
    label_colors = matched_palette(labels.careful.assignment.tolist(), CITYSCAPES_19)
    network_colors = matched_palette(network.careful.assignment.tolist(), CITYSCAPES_19)
    semantic_colors = matched_palette(labels.careful.semantic_assignment.tolist(), CITYSCAPES_19)
    correspondence = ClassicalCorrespondence()
    rows: list[tuple[str, Sequence[np.ndarray | None]]] = []
    for key in [store.keys[i] for i in spread(len(store.keys), FRAMES)]:
        clip = dataset.clip(pairs[key])
        image, fields = clip.first.left, correspondence(clip)
        truth = dataset.truth(pairs[key][0], CITYSCAPES_19)
        prediction = read_map(out / "predictions" / "panoptic", predictions[key])
        rows.append(
            (
                key,
                [
                    image,
                    flow_image(fields.flow, fields.flow_valid),
                    disparity_image(fields.disparity, fields.disparity_valid),
                    instance_overlay(image, store.instance_map(key)),
                    class_image(store.semantic(key), semantic_colors),
                    panoptic_overlay(image, store.label(key), label_colors),
                    panoptic_overlay(image, prediction, network_colors),
                    None if truth is None else _truth_overlay(image, truth, dataset.moving(pairs[key][0])),
                ],
            )
        )
    present = sorted({int(c) for c in (*labels.careful.assignment, *network.careful.assignment) if c >= 0})
    return Gallery(
        "Held-out frames, step by step",
        ["input", "flow", "disparity", "moving objects", "semantics", "pseudo label", "network", "truth"],
        [(key, [None if p is None else shrink(p, 384) for p in pictures]) for key, pictures in rows],
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


def _classes(labels: Evaluation, network: Evaluation) -> Table:
    """PQ of each class that the truth or a prediction holds."""
    rows = []
    for number, name in enumerate(CITYSCAPES_19.names):
        values = [result.matched.standard.pq[number] for result in (labels, network)]
        if not np.isnan(values).all():
            kind = "thing" if CITYSCAPES_19.is_thing[number] else "stuff"
            rows.append([f"{name} ({kind})", *(f"{100 * value:.1f}" for value in values)])
    return Table("PQ of each class", ["class", "pseudo labels", "network"], rows)


def _curve(network: Path) -> Figure:
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
    return Figure("Learning curve", picture_of(plot), f"Mean over {width} steps.")
