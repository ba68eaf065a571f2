"""The tables as plots: the paper in grey, ours in colour. Each gives a uint8 RGB picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cupola.ablation.measure import DEPTH_NAMES, Measured
from cupola.report import picture_of

PAPER, STANDARD, FORGIVEN = "#9aa3ad", "#1f5fa8", "#7fb2e5"
"""Colours of the paper's PQ, of ours, and of ours where void is forgiven."""

SERIES = (("pq_published", "PQ here, void forgiven", FORGIVEN), ("pq", "PQ here", STANDARD))


def plot_bars(rows: Sequence[Measured]) -> UInt8[np.ndarray, "h w 3"]:
    """PQ of each row as bars, the first row on top."""
    plot, axes = _axes(1.2 + 0.55 * len(rows))
    places = np.arange(len(rows))
    papers = [np.nan if one.row.paper is None else one.row.paper for one in rows]
    axes.barh(places - 0.27, papers, 0.25, color=PAPER, label="PQ in the paper")
    for number, (name, label, color) in enumerate(SERIES):
        axes.barh(places + 0.27 * number, [_percent(one, name) for one in rows], 0.25, color=color, label=label)
    for place, one in zip(places, rows, strict=True):
        if one.row.missing:
            axes.text(0.4, place + 0.14, f"not run: {one.row.missing}", fontsize=8, color="#5c6675", va="center")
    axes.set_yticks(places, [one.row.name for one in rows])
    axes.set(xlabel="PQ [%]", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    return _finished(plot, axes)


def plot_thresholds(rows: Sequence[Measured]) -> UInt8[np.ndarray, "h w 3"]:
    """PQ against the threshold of things."""
    plot, axes = _axes(3.4)
    thresholds = [one.row.fusion.threshold for one in rows]
    axes.plot(thresholds, [one.row.paper for one in rows], "o-", color=PAPER, label="PQ in the paper")
    for name, label, color in (*SERIES, ("pq_things", "PQ of things here", "#c8553d")):
        axes.plot(thresholds, [_percent(one, name) for one in rows], "o-", color=color, label=label)
    axes.set(xlabel="threshold of a class's share", ylabel="PQ [%]", ylim=(0, None))
    axes.grid(alpha=0.3)
    return _finished(plot, axes)


def plot_depths(rows: Sequence[Measured]) -> UInt8[np.ndarray, "h w 3"]:
    """mIoU of the pseudo classes in each range of depths."""
    plot, axes = _axes(3.4)
    for one in rows:
        if one.by_depth is not None:
            axes.plot(DEPTH_NAMES, [100 * one.by_depth[name] for name in DEPTH_NAMES], "o-", label=one.row.name)
    axes.set(xlabel="depth", ylabel="mIoU [%]", ylim=(0, None))
    axes.grid(alpha=0.3)
    return _finished(plot, axes)


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    plot = Figure(figsize=(10.5, height), layout="constrained")
    return plot, plot.subplots()


def _finished(plot: Any, axes: Any) -> UInt8[np.ndarray, "h w 3"]:
    axes.set_axisbelow(True)
    plot.legend(loc="outside right upper", fontsize=8)
    return picture_of(plot)


def _percent(one: Measured, name: str) -> float:
    return 100 * one.figures().get(name, float("nan"))
