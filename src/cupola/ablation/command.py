"""`cupola ablate pseudo-labels`: the rows of the paper's ablation tables and of our own, from nothing or on a data set
with truth.

OUT/street         the rendered street, where no data set is named
OUT/stores/NAME    a label store for each way of finding the unfused results; rows that differ in fusion share one
OUT/kept           flow, disparity, objects and class maps while stores are made; removed in the end
OUT/depth          ranges of depths for table 10
OUT/ablation.json, OUT/report.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cupola.ablation.ablation_report import NOTE, as_text, numbers, table_of, write_ablation_report
from cupola.ablation.kept import KeptCorrespondence, KeptMotion, KeptSemantics, check
from cupola.ablation.measure import DEPTH_TABLE, Measured, ScoreDepths, ScoreLabels, WriteDepth, plain_figures
from cupola.ablation.rows import TITLES, Option, Row, ablation_rows, folder_name
from cupola.ablation.settings import AblationWeights
from cupola.config import plain, save_config
from cupola.data import StereoDataset, open_dataset
from cupola.data.synthetic import render
from cupola.diagnosis import installed_versions
from cupola.engines import choose_engine
from cupola.errors import ConfigError, DataError, StoreError
from cupola.evaluation import EvaluationSettings
from cupola.io import write_json
from cupola.motion import AnyMotion, EgoMotionSegmenter
from cupola.progress import progress
from cupola.pseudo_labels import LabelStore, Parts
from cupola.pseudo_labels.completion import mapped
from cupola.pseudo_labels.fuse import PAPER_FUSION
from cupola.pseudo_labels.pipeline import chosen_pairs, label_pairs
from cupola.pseudo_labels.tasks import Pair
from cupola.semantics import DepthgSemantics

SEQUENCES, FRAMES, HEIGHT, WIDTH = 24, 3, 192, 384
"""Of the rendered street: many scenes of few frames, as in the demo, of which all but the last have a successor."""

REPORT = "report.html"

SCORED_IN_PASSING = 400
"""Scoring so many labels takes about as long as starting one more worker (5 ms against 2 s)."""


@dataclass(frozen=True)
class Ablation:
    """What `ablate_pseudo_labels` found: a row's figures or why it was not run, in the order of the tables."""

    out: Path
    rows: tuple[Measured, ...]
    report: Path

    def table(self) -> str:
        """All tables as text."""
        tables = [as_text(table_of(number, self.rows)) for number in numbers(self.rows)]
        return "\n\n".join([*tables, NOTE])


def ablate_pseudo_labels(
    data: Path | None = None,
    *,
    out: Path,
    layout: str = "auto",
    scale: float = 1.0,
    table: int | None = None,
    weights: AblationWeights = AblationWeights(),
    motion: AnyMotion = EgoMotionSegmenter(),
    settings: EvaluationSettings = EvaluationSettings(),
    limit: int | None = None,
    every: int = 1,
    seed: int = 0,
    workers: int = 0,
) -> Ablation:
    """What each part of stage 1 is worth: the paper's tables 5, 6, 9, 10 and 11, and what cupola adds, measured.

    Rows whose parts need weights that are not given are listed as not run. Run the same command again to go on after a
    stop.

    Args:
        data: a data set with truth; without one a street is rendered.
        out: directory for everything; report.html in it is the thing to open.
        layout: layout of the data set; `auto` finds out.
        scale: factor for the image size.
        table: only this table of the paper (5, 6, 9, 10 or 11), or 0, what cupola adds to the paper; all by default.
        weights: files that some rows need.
        motion: method of the moving objects in tables 6, 9, 10 and 0, by name, and its settings (paper: sf2se3).
        settings: what counts in the scores, such as the smallest area.
        limit: at most this many frames with truth, the first ones.
        every: take every K-th of them.
        seed: of all random draws, the street's too.
        workers: processes; 0 takes as many as there are cores.

    Raises:
        ConfigError: there is no such table.
        DataError: no frame with truth has a successor, or more than half of the frames cannot be read.
        CheckpointError: weights cannot be used.
        StoreError: `out` holds an ablation of other data or frames.
    """
    arguments = dict(locals())
    if table not in (None, *TITLES):
        raise ConfigError(f"table must be one of {', '.join(map(str, TITLES))}, not {table}")
    rows = tuple(row for row in ablation_rows(weights, motion) if table in (None, row.table))
    run = [row for row in rows if not row.missing]
    for row in run:
        for option in row.options:
            check(option.part, ())
    root = data if data is not None else render_street(out / "street", seed, workers)
    dataset = open_dataset(root, layout, scale)
    pairs = pairs_with_truth(dataset, every, limit)
    _claim(out, dataset, pairs, seed)
    save_config(out / "config.yaml", **arguments)
    _label(run, out, dataset, pairs, arguments | {"data": root})
    if any(row.table == DEPTH_TABLE for row in run):
        _find_depths(out, dataset, run, workers)
    measured = _score(rows, out, settings, len(pairs), workers)
    shutil.rmtree(out / "kept", ignore_errors=True)
    _write(out, dataset, measured, arguments, len(pairs))
    return Ablation(out, measured, out / REPORT)


def render_street(out: Path, seed: int, workers: int = 0) -> Path:
    """The street that is measured where there is no data set."""
    return render(out, seed=seed, frames=FRAMES, sequences=SEQUENCES, height=HEIGHT, width=WIDTH, workers=workers).out


def pairs_with_truth(dataset: StereoDataset, every: int, limit: int | None) -> tuple[Pair, ...]:
    """Pairs whose first frame has truth. Raises `DataError` where there is none, `ConfigError` for a bad number."""
    chosen_pairs(dataset, every, limit)
    pairs = [pair for pair in dataset.pairs() if pair[0].truth is not None]
    if not pairs:
        raise DataError(
            f"{dataset.root} (layout {dataset.layout}) holds no frame that has both truth and a successor, so no label "
            "can be scored; name a data set with truth, or none to render one"
        )
    return tuple(pairs[::every][:limit])


def _claim(out: Path, dataset: StereoDataset, pairs: Sequence[Pair], seed: int) -> None:
    """Refuses to mix ablations of different frames in one directory. Raises `StoreError`."""
    marker = out / "frames.json"
    keys = [first.key for first, _ in pairs]
    content = {"data": str(dataset.root.resolve()), "scale": dataset.scale, "seed": seed, "keys": keys}
    if marker.exists():
        try:
            there = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            there = {}
        differing = [name for name in content if not isinstance(there, dict) or there.get(name) != content[name]]
        if differing:
            raise StoreError(f"{out} holds an ablation with other {' and '.join(differing)}; choose another --out")
    write_json(marker, content)


def _label(
    run: Sequence[Row], out: Path, dataset: StereoDataset, pairs: Sequence[Pair], arguments: Mapping[str, Any]
) -> None:
    """Makes the label store of every row, each once. All parts are checked before the first is used."""
    stores = {row.store: row for row in run}
    parts = {name: _remembering(row, run, out / "kept") for name, row in stores.items()}
    for one in parts.values():
        one.check(pairs)
    for name, row in progress(list(stores.items()), "label stores"):
        of_store = {
            "data": arguments["data"],
            "out": out / "stores" / name,
            "layout": dataset.layout,
            "scale": dataset.scale,
            "correspondence": row.correspondence.part,
            "motion": row.motion.part,
            "semantics": row.semantics.part,
            "detail": row.detail,
            "fusion": PAPER_FUSION,
            "limit": arguments["limit"],
            "every": arguments["every"],
            "classes_from": None,
            "seed": arguments["seed"],
            "workers": arguments["workers"],
            "keep_scores": False,
        }
        label_pairs(parts[name], dataset, pairs, of_store)


def _remembering(row: Row, run: Sequence[Row], folder: Path) -> Parts:
    """The row's parts, which share what they find with those of the other rows that are run."""
    found = folder / folder_name(row.correspondence)

    def kept_semantics(option: Option, sharing: tuple[KeptSemantics, ...] = ()) -> KeptSemantics:
        return KeptSemantics(option.part, folder / folder_name(row.correspondence, option), sharing)

    others = dict.fromkeys(other.semantics for other in run if other.correspondence == row.correspondence)
    sharing = tuple(
        kept_semantics(option)
        for option in others
        if option != row.semantics and all(isinstance(one.part, DepthgSemantics) for one in (option, row.semantics))
    )
    return Parts(
        KeptCorrespondence(row.correspondence.part, found),
        KeptMotion(row.motion.part, folder / folder_name(row.correspondence, row.motion)),
        kept_semantics(row.semantics, sharing),
        row.detail,
    )


def _find_depths(out: Path, dataset: StereoDataset, run: Sequence[Row], workers: int) -> None:
    """Writes the ranges of depths of every labelled frame, where they are not there yet."""
    row = next(row for row in run if row.table == DEPTH_TABLE)
    store = LabelStore.open(out / "stores" / row.store)
    missing = [store.record(key) for key in store.keys if not (out / "depth" / f"{key}.png").exists()]
    correspondence = KeptCorrespondence(row.correspondence.part, out / "kept" / folder_name(row.correspondence))
    task = WriteDepth(replace(dataset, records=()), correspondence, out / "depth")
    with choose_engine(workers, len(missing)) as engine:
        for _ in mapped(engine, task, missing, "ranges of depths", len(store.keys)):
            pass


def _score(
    rows: Sequence[Row], out: Path, settings: EvaluationSettings, frames: int, workers: int
) -> tuple[Measured, ...]:
    """All rows with their figures. What several rows share is scored once."""
    run = [row for row in rows if not row.missing]
    labels = list(dict.fromkeys((row.store, row.fusion) for row in run))
    stores = list(dict.fromkeys(row.store for row in run if row.table == DEPTH_TABLE))
    score_labels, score_depths = ScoreLabels(out / "stores", settings), ScoreDepths(out / "stores", out / "depth")
    with choose_engine(workers, len(labels) * frames // SCORED_IN_PASSING) as engine:
        evaluations = dict(mapped(engine, score_labels, labels, "scoring labels", len(labels)))
        depths = dict(mapped(engine, score_depths, stores, "scoring by depth", len(stores)))
    return tuple(
        Measured(
            row,
            None if row.missing else evaluations[row.store, row.fusion],
            depths.get(row.store) if row.table == DEPTH_TABLE and not row.missing else None,
        )
        for row in rows
    )


def _write(
    out: Path, dataset: StereoDataset, rows: Sequence[Measured], arguments: Mapping[str, Any], frames: int
) -> None:
    """ablation.json and report.html: equal runs write equal bytes of the first. frames: that should be scored."""
    scored = max((len(one.evaluation.keys) for one in rows if one.evaluation is not None), default=0)
    content = {
        "data": str(dataset.root),
        "layout": dataset.layout,
        "scale": dataset.scale,
        "frames": scored,
        "frames_with_truth": frames,
        "seed": arguments["seed"],
        "settings": plain(arguments["settings"]),
        "note": NOTE,
        "versions": installed_versions(),
        "rows": [_plain_row(one) for one in rows],
    }
    write_json(out / "ablation.json", content)
    facts = {
        "data": f"{content['data']} ({dataset.layout}, scale {dataset.scale})",
        "frames": f"{scored} scored of {frames} with truth",
        "seed": str(arguments["seed"]),
        "weights": ", ".join(f"{name} {path}" for name, path in plain(arguments["weights"]).items() if path) or "none",
        "evaluation": json.dumps(content["settings"]),
        "versions": ", ".join(f"{name} {version}" for name, version in installed_versions().items()),
    }
    write_ablation_report(out / REPORT, rows, out / "stores", facts)


def _plain_row(one: Measured) -> dict[str, Any]:
    row = one.row
    content: dict[str, Any] = {
        "table": row.table,
        "name": row.name,
        "paper_pq": row.paper,
        "parts": {
            part: {"option": option.name, "settings": plain(option.part)}
            for part, option in zip(("correspondence", "motion", "semantics"), row.options, strict=True)
        },
        "fusion": plain(row.fusion),
        "detail": plain(row.detail),
        "not_run": row.missing or None,
        "store": None if row.missing else f"stores/{row.store}",
        "figures": plain_figures(one.figures()),
    }
    if one.by_depth is not None:
        content["miou_by_depth"] = plain_figures(one.by_depth)
    return content
