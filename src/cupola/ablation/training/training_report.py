"""The report of an ablation of training: the table beside the paper's, a plot, and single frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from cupola.ablation.ablation_report import as_text
from cupola.ablation.training.measured import FIGURES, MeasuredRow, figures_of, mean_and_spread
from cupola.evaluation import Evaluation
from cupola.experiment import HELD_OUT_LABELS
from cupola.io.coco_panoptic import read_index, read_map
from cupola.pseudo_labels import LabelStore
from cupola.pseudo_labels.label_report import shrink, spread
from cupola.report import Figure, Gallery, Page, Table, picture_of, write_page
from cupola.taxonomy import CITYSCAPES_19
from cupola.visualize import matched_palette, panoptic_overlay

__all__ = ["NOTE", "as_text", "table_of", "write_training_report"]

NOTE = (
    "In percent, mean over the seeds and standard deviation; standard PQ with the paper's matching, careful: pairs "
    "of classes that hardly overlap are refused. moving, standing, small: share of true things of at least 100 px "
    "found at IoU > 0.5; small are standing ones below 200 px. false: predicted objects that are none. gain: PQ "
    "above the row that it adds to, on the same streets. Each DropLoss adds to plain training, copy-paste to the "
    "last DropLoss; all below it to copy-paste; longer takes about as long as self-training. The paper's "
    "figures are of Cityscapes val, with its own scoring, networks and length of training: compare the order of rows, "
    "not single figures."
)

PICTURES, WIDTH = 4, 320
"""Held-out frames of the first seed in the report, and their width [px]."""

COLOR, FADED = "#1f5fa8", "#9aa3ad"


def table_of(labels: Sequence[Evaluation], rows: Sequence[MeasuredRow]) -> Table:
    """The table: pseudo labels first, then every row."""
    columns = ["", "PQ, paper", *FIGURES, "false", *GAINS]
    of_labels = [figures_of(result) for result in labels]
    cells = [["pseudo labels", "-", *_cells([np.array([one[f] for one in of_labels]) for f in _NAMES]), *"--"]]
    for one in rows:
        paper = "-" if one.row.paper is None else f"{one.row.paper:.1f}"
        gains = [one.gains(figure) for figure in GAINS.values()]
        added = ["-" if gain is None else _percent(gain, sign="+") for gain in gains]
        cells.append([one.row.name, paper, *_cells([one.values(figure) for figure in _NAMES]), *added])
    return Table("Table 7c: what the parts of training add", columns, cells, NOTE)


_NAMES = (*FIGURES.values(), "false")

GAINS = {"gain": "pq", "gain, careful": "pq_careful"}
"""Columns of what a row adds, and of which figure."""


def _cells(values: Sequence[Float64[np.ndarray, "seeds"]]) -> list[str]:
    mean, deviation = mean_and_spread(values[-1])
    return [*(_percent(one) for one in values[:-1]), f"{mean:.0f} ± {deviation:.0f}"]


def _percent(values: Float64[np.ndarray, "seeds"], sign: str = "") -> str:
    mean, deviation = mean_and_spread(values)
    return "-" if np.isnan(mean) else f"{100 * mean:{sign}.1f} ± {100 * deviation:.1f}"


def write_training_report(
    path: Path,
    out: Path,
    numbers: Sequence[int],
    labels: Sequence[Evaluation],
    rows: Sequence[MeasuredRow],
    facts: Mapping[str, str],
) -> None:
    """Writes the page. Raises `DiskError`, `ImageError`."""
    lead = (
        f"{len(rows)} ways of training a network on the pseudo labels of rendered streets, {len(numbers)} times each, "
        f"judged on {len(labels[0].keys)} frames of other streets."
    )
    plot = Figure(
        "What the parts add", plot_rows(rows), "Points: single seeds; strokes: their mean. Axes need not begin at 0."
    )
    blocks: list[Table | Figure | Gallery] = [
        table_of(labels, rows),
        plot,
        _pictures(out / f"seed-{numbers[0]}", labels[0], rows),
    ]
    write_page(path, Page("What each part of training is worth", lead, blocks, facts))


def plot_rows(rows: Sequence[MeasuredRow]) -> UInt8[np.ndarray, "h w 3"]:
    """PQ by both matchings, recall of standing things, and false objects of each row, the first row on top."""
    from matplotlib.figure import Figure as Plot

    panels = (
        ("pq", "PQ [%]", 100),
        ("pq_careful", "careful PQ [%]", 100),
        ("standing", "standing found [%]", 100),
        ("false", "false objects", 1),
    )
    plot = Plot(figsize=(11, 1.4 + 0.4 * len(rows)), layout="constrained")
    places = np.arange(len(rows))
    for number, (axes, (figure, title, factor)) in enumerate(zip(plot.subplots(1, len(panels)), panels, strict=True)):
        values = [factor * one.values(figure) for one in rows]
        axes.plot([v.mean() for v in values], places, "|", color=FADED, markersize=18, markeredgewidth=4)
        for place, points in zip(places, values, strict=True):
            axes.plot(points, np.full(len(points), place), "o", color=COLOR, markersize=4)
        axes.set(xlabel=title, ylim=(len(rows) - 0.5, -0.5))
        axes.set_xlim(*_limits(values))
        axes.set_yticks(places, [one.row.name for one in rows] if number == 0 else [""] * len(rows))
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return picture_of(plot)


def _limits(values: Sequence[Any]) -> tuple[float, float]:
    """From 0 where values come near it, else from well below the smallest, so that differences can be seen."""
    known = np.concatenate(values)
    known = known[~np.isnan(known)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = max(high - low, 1e-3 * max(abs(high), 1))
    return max(0.0, low - 1.5 * room), high + 0.3 * room


def _pictures(streets: Path, labels: Evaluation, rows: Sequence[MeasuredRow]) -> Gallery:
    store = LabelStore.open(streets / HELD_OUT_LABELS)
    folders = [streets / "rows" / one.row.folder / "predictions" for one in rows]
    indexes = [{a.key: a for a in read_index(folder / "panoptic.json")[0]} for folder in folders]
    palettes = [matched_palette(one.results[0].careful.assignment.tolist(), CITYSCAPES_19) for one in rows]
    label_palette = matched_palette(labels.careful.assignment.tolist(), CITYSCAPES_19)
    shown: list[tuple[str, Sequence[np.ndarray | None]]] = []
    for key in [store.keys[i] for i in spread(len(store.keys), PICTURES)]:
        image = store.image(key)
        truth = store.dataset.truth(store.record(key), CITYSCAPES_19)
        maps = [read_map(folder / "panoptic", index[key]) for folder, index in zip(folders, indexes, strict=True)]
        pictures = [
            image,
            None if truth is None else panoptic_overlay(image, truth, CITYSCAPES_19.colors),
            panoptic_overlay(image, store.label(key), label_palette),
            *(panoptic_overlay(image, one, palette) for one, palette in zip(maps, palettes, strict=True)),
        ]
        shown.append((key, [None if picture is None else shrink(picture, WIDTH) for picture in pictures]))
    present = sorted({int(c) for one in rows for c in one.results[0].careful.assignment if c >= 0})
    return Gallery(
        "Held-out frames",
        ["input", "truth", "pseudo label", *(one.row.name for one in rows)],
        shown,
        "Colours: the class that each pseudo class was matched to; grey where every match hardly overlaps.",
        [(CITYSCAPES_19.names[c], CITYSCAPES_19.colors[c]) for c in present],
    )
