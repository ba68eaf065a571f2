"""The report of a fine-tuning: PQ against the number of images (the paper's Fig. 5), figures, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cupola.finetuning.annotated import Annotated
from cupola.finetuning.scored import Figures, Spread, Tuned
from cupola.prediction import Predictor, load
from cupola.report import Figure, Gallery, Page, Table, picture_of, write_page
from cupola.visualize import panoptic_overlay

SHOWN = 5
"""Validation images shown, evenly spread."""

COLOR, BEFORE_COLOR = "#1f5fa8", "#9aa3ad"


def write_curve_report(
    path: Path,
    networks: Sequence[Tuned],
    before: Figures | None,
    pq: Mapping[int, Spread],
    validate: Annotated,
    source: Predictor | None,
    facts: Mapping[str, str],
) -> None:
    """Writes the HTML report. source: the network before. Raises `DiskError`, `ImageError`."""
    most = max(pq)
    best = pq[most]
    lead = f"With {most} annotated images PQ is {_percent(best.mean)}" + (
        f" (standard deviation {_percent(best.deviation)} over the subsets)" if best.deviation else ""
    )
    lead += f", class by class on {len(validate.keys)} images." + (
        "" if before is None else f" The network as it came: {_percent(before.pq)}."
    )
    blocks: list[Table | Figure | Gallery] = [
        Figure("PQ against the number of annotated images", plot_curve(networks, before, pq)),
        _table(networks, before),
        _gallery(validate, source, next(one.path for one in networks if one.images == most)),
    ]
    write_page(path, Page("Fine-tuning on true labels", lead, blocks, dict(facts)))


def plot_curve(
    networks: Sequence[Tuned], before: Figures | None, pq: Mapping[int, Spread]
) -> UInt8[np.ndarray, "h w 3"]:
    """Each network as a point, the means as a line, the network before as a level."""
    from matplotlib.figure import Figure as Plot

    plot = Plot(figsize=(7.5, 3.6), layout="constrained")
    axes = plot.subplots()
    points = [(one.images, 100 * one.figures.pq) for one in networks if one.figures is not None]
    axes.plot(*zip(*points, strict=True), "o", color=COLOR, alpha=0.45, label="a subset")
    sizes, means = list(pq), [100 * spread.mean for spread in pq.values()]
    deviations = [100 * spread.deviation for spread in pq.values()]
    axes.errorbar(sizes, means, deviations, color=COLOR, capsize=4, label="mean and standard deviation")
    if before is not None:
        axes.axhline(100 * before.pq, color=BEFORE_COLOR, ls="--", label="before")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="annotated images", ylabel="PQ [%]", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return picture_of(plot)


def _table(networks: Sequence[Tuned], before: Figures | None) -> Table:
    rows = [["before", *_cells(before)]] if before is not None else []
    for one in networks:
        name = f"{one.images} images" + ("" if one.subset is None else f", subset {one.subset}")
        if one.figures is not None:
            rows.append([name, *_cells(one.figures)])
    note = (
        "In percent, standard protocol. Subsets of one size have no image in common. Before: the network as it came, "
        "its pseudo classes matched to the true ones as in the paper; the others are not matched."
    )
    return Table("Figures", ["", "PQ", "SQ", "RQ", "things", "stuff", "mIoU"], rows, note)


def _gallery(validate: Annotated, source: Predictor | None, tuned: Path) -> Gallery:
    """Images with what the network said before and says now, beside the truth."""
    places = {int(place) for place in np.linspace(0, len(validate.keys) - 1, min(SHOWN, len(validate.keys))).round()}
    keys = [validate.keys[place] for place in sorted(places)]
    images, truths = zip(*(validate.read(key) for key in keys), strict=True)
    colors = validate.taxonomy.colors
    columns: list[list[np.ndarray | None]] = [list(images)]
    if source is not None:
        columns.append([prediction.overlay() for prediction in source.batch(images)])
    tuned_maps = [prediction.panoptic for prediction in load(tuned).batch(images)]
    columns.append([panoptic_overlay(image, found, colors) for image, found in zip(images, tuned_maps, strict=True)])
    columns.append([panoptic_overlay(image, truth, colors) for image, truth in zip(images, truths, strict=True)])
    names = ["image", *(["before (colours of its own)"] if source is not None else []), "now", "truth"]
    rows = list(zip(keys, zip(*columns, strict=True), strict=True))
    legend = list(zip(validate.taxonomy.names, colors, strict=True))
    return Gallery("Validation images", names, rows, "Dark: nothing was recognised.", legend)


def _cells(figures: Figures) -> list[str]:
    values = figures.pq, figures.sq, figures.rq, figures.pq_things, figures.pq_stuff, figures.miou
    return [_percent(value) for value in values]


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
