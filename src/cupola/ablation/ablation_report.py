"""The report of an ablation: each table beside the paper's, plots, the labels of single frames, what made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cupola.ablation.measure import DEPTH_NAMES, DEPTH_TABLE, Measured
from cupola.ablation.plots import plot_bars, plot_depths, plot_thresholds
from cupola.ablation.rows import OWN_TABLE, TITLES
from cupola.pseudo_labels import LabelStore
from cupola.pseudo_labels.detail import AS_FOUND
from cupola.pseudo_labels.fuse import PAPER_FUSION
from cupola.pseudo_labels.label_report import shrink, spread
from cupola.report import Figure, Gallery, Page, Table, write_page
from cupola.taxonomy import CITYSCAPES_19
from cupola.types import PanopticMap
from cupola.visualize import matched_palette, panoptic_overlay

NOTE = (
    "The paper's figures are PQ on the 500 frames of Cityscapes val, with 27 pseudo classes, the weights of SMURF and "
    "DepthG, and its own scoring, which forgives pixels that a label leaves void (here: PQ, void forgiven; all other "
    "figures are standard). Data, classes and parts differ: compare the order of rows and the steps between them, not "
    "single figures. Thing classes come from the statistics of the very frames that are scored."
)

NOTES: dict[int, str] = {
    5: "Not aligned: the pixels of a mask keep their own classes, and classes are counted before alignment.",
    6: "A pseudo class is of things where its share is above the threshold; all rows are one label store, fused anew.",
    9: "The paper's RAFT and SEA-RAFT were trained with true flow; SMURF and BrightFlow without.",
    10: "mIoU by depth: of the pseudo classes alone, before fusion, with one matching for all depths; depth from the "
    "stereo of these rows, pixels where it is unknown (the sky) are left out.",
    11: "moving: share of the true moving things of at least 100 px found at IoU > 0.5; false: objects that are none.",
    OWN_TABLE: "Each row leaves out one thing of the first; the last is the paper's way.",
}

FIGURES = {
    "PQ, void forgiven": "pq_published",
    "PQ": "pq",
    "SQ": "sq",
    "RQ": "rq",
    "PQ things": "pq_things",
    "PQ stuff": "pq_stuff",
    "mIoU": "miou",
    "moving": "moving_share",
}

PICTURES = 4
"""Frames shown."""

Palette = Sequence[tuple[int, int, int]]


def numbers(rows: Sequence[Measured]) -> list[int]:
    """The tables that these rows are of."""
    return [number for number in TITLES if of_table(number, rows)]


def of_table(number: int, rows: Sequence[Measured]) -> list[Measured]:
    """The rows of one table."""
    return [one for one in rows if one.row.table == number]


def table_of(number: int, rows: Sequence[Measured]) -> Table:
    """A table of the paper beside ours; figures in percent."""
    depths = ("all", *DEPTH_NAMES) if number == DEPTH_TABLE else ()
    columns = ["", "PQ, paper", *FIGURES, "false", *(f"mIoU {name}" for name in depths), "made with"]
    cells = []
    for one in of_table(number, rows):
        figures, by_depth = one.figures(), one.by_depth or {}
        cells.append(
            [
                one.row.name,
                "-" if one.row.paper is None else f"{one.row.paper:.1f}",
                *(percent(figures.get(name)) for name in FIGURES.values()),
                str(figures.get("false_objects", "-")),
                *(percent(by_depth.get(name)) for name in depths),
                f"not run: {one.row.missing}" if one.row.missing else made_with(one),
            ]
        )
    return Table(TITLES[number], columns, cells, NOTES[number])


def percent(share: float | None) -> str:
    """A share in percent, - where there is none."""
    return "-" if share is None or np.isnan(share) else f"{100 * share:.1f}"


def made_with(one: Measured) -> str:
    """The parts of a row, and which settings of detail and fusion are not the paper's."""
    names = [option.name for option in one.row.options]
    settings = vars(one.row.detail) | vars(one.row.fusion)
    usual = vars(AS_FOUND) | vars(PAPER_FUSION)
    return ", ".join([*names, *(f"{name} {value}" for name, value in settings.items() if value != usual[name])])


def as_text(table: Table) -> str:
    """A table for the terminal."""
    lines = [list(table.columns), *(list(row) for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    last = len(widths) - 1
    rows = [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *rows])


def write_ablation_report(path: Path, rows: Sequence[Measured], stores: Path, facts: Mapping[str, str]) -> None:
    """Writes the page. Raises `DiskError`, `ImageError`."""
    blocks: list[Table | Figure | Gallery] = []
    for number in numbers(rows):
        chosen = of_table(number, rows)
        blocks.append(table_of(number, rows))
        plots = [plot_thresholds(chosen) if number == 6 else plot_bars(chosen)]
        if number == DEPTH_TABLE and any(one.by_depth for one in chosen):
            plots.append(plot_depths(chosen))
        blocks += [Figure(f"{TITLES[number].partition(':')[0]}, drawn", plot) for plot in plots]
    measured = [one for one in rows if one.evaluation is not None]
    if measured:
        blocks.append(_pictures(measured, stores))
    missing = len(rows) - len(measured)
    lead = f"{len(measured)} rows were measured (frames: {facts['frames']}), {missing} could not be run. {NOTE}"
    write_page(path, Page("What each part of the pseudo labels is worth", lead, blocks, facts))


def _pictures(measured: Sequence[Measured], stores: Path) -> Gallery:
    """Labels of a few frames, a column for each row that differs from the others by its parts or alignment."""
    chosen = [one for one in measured if one.row.table not in (6, OWN_TABLE)] or measured
    shown = {(one.row.store, one.row.fusion): one for one in reversed(chosen)}  # the first of equal rows gives its name
    shown = dict(reversed(shown.items()))
    labelled = [LabelStore.open(stores / store).fused_with(fusion) for store, fusion in shown]
    palettes = [
        matched_palette(one.evaluation.matched.assignment.tolist(), CITYSCAPES_19)
        for one in shown.values()
        if one.evaluation is not None
    ]
    keys = [key for key in labelled[0].keys if all(key in store.keys for store in labelled)]
    rows: list[tuple[str, Sequence[np.ndarray | None]]] = []
    for key in [keys[i] for i in spread(len(keys), PICTURES)]:
        image = labelled[0].image(key)
        truth = labelled[0].dataset.truth(labelled[0].record(key), CITYSCAPES_19)
        painted = [
            _overlay(image, store.label(key), palette) for store, palette in zip(labelled, palettes, strict=True)
        ]
        known = None if truth is None else _overlay(image, truth, CITYSCAPES_19.colors)
        rows.append((key, [shrink(image, 384), known, *painted]))
    present = sorted({int(c) for one in shown.values() for c in _assigned(one)})
    return Gallery(
        "Labels of single frames",
        ["input", "truth", *(f"T{one.row.table} {one.row.name}" for one in shown.values())],
        rows,
        "Colours: the class that each pseudo class was matched to; grey where it stands for none; black is ignored.",
        [(CITYSCAPES_19.names[c], CITYSCAPES_19.colors[c]) for c in present],
    )


def _overlay(image: np.ndarray, label: PanopticMap, palette: Palette) -> np.ndarray:
    return shrink(panoptic_overlay(image, label, palette), 384)


def _assigned(one: Measured) -> list[int]:
    return [] if one.evaluation is None else [c for c in one.evaluation.matched.assignment.tolist() if c >= 0]
