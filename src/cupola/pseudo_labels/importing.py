"""`cupola import-labels`: the published code's pseudo labels become a label store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cupola import __version__
from cupola.config import save_config
from cupola.data import StereoDataset, kitti_raw, open_dataset
from cupola.data.resizing import scaled_size
from cupola.engines import Engine, choose_engine
from cupola.errors import ConfigError, DataError, ImageError, StoreError
from cupola.io import image_size, write_ids
from cupola.progress import progress
from cupola.pseudo_labels.align import align
from cupola.pseudo_labels.completion import finished_frames, fuse_frames, mapped
from cupola.pseudo_labels.fuse import PAPER_FUSION, FusionSettings
from cupola.pseudo_labels.journal import (
    FrameDone,
    append_frames,
    begin,
    read_json,
    sole_writer,
    write_frames,
)
from cupola.pseudo_labels.label_report import REPORT, is_outdated, write_label_report
from cupola.pseudo_labels.published import (
    SPLIT,
    SPLIT_SUFFIX,
    LabelFiles,
    Size,
    centred,
    labels_of_frames,
    list_labels,
    list_statistics,
    read_classes,
    read_objects,
    read_statistics,
    whole_frame_scale,
)
from cupola.pseudo_labels.rule import FusionRule
from cupola.pseudo_labels.statistics import ClassStatistics, PartStatistics, count_classes, summed
from cupola.pseudo_labels.store import (
    PANOPTIC_INDEX,
    STATISTICS,
    UNKNOWN,
    LabelStore,
    relative_data,
    write_semantic,
)
from cupola.types import VOID

READ_IN_PASSING = 20
"""Labels that are read in about the time that one more worker takes to start."""

WRITTEN_TOGETHER = 100
"""Lines of frames.jsonl that are written at once: to wait for the disk may take longer than to read a label. A kill
loses at most so many labels."""

Counted = Literal["auto", "files", "images"]


def import_labels(
    labels: Path,
    *,
    data: Path,
    out: Path,
    layout: str = "auto",
    scale: float | None = None,
    classes: int | None = None,
    statistics: Counted = "auto",
    classes_from: Path | None = None,
    fusion: FusionSettings = PAPER_FUSION,
    workers: int = 0,
) -> LabelStore:
    """Turns pseudo labels of the published CUPS code into a label store, for `cupola train` and all other commands.

    Reads STEM_semantic.png, STEM_instance.png and pseudo_classes_split_*.pt. STEM is the name of the left image in
    Cityscapes (CITY_SEQUENCE_FRAME_leftImg8bit), DRIVE_sync_FRAME in KITTI raw, and the key of the frame elsewhere.
    Ids of masks are numbered anew without gaps. Run the same command again to go on after a stop; with other fusion
    settings or statistics a finished store is only fused anew. Scores and sizes in metres are not known of such
    labels: every score is 1.

    Args:
        labels: directory of the label files.
        data: the data set that they are of; its images are read in training.
        out: directory of the label store.
        layout: layout of the data set; `auto` finds out.
        scale: factor by which the images were resized before they were labelled (published: 0.625 for Cityscapes, 1
            for KITTI); labels smaller than that are a centre crop, and the rest of the frame is unknown. Left out, it
            is found where labels are of whole frames, and KITTI raw is taken as published.
        classes: number of pseudo classes; left out, the files of statistics tell it.
        statistics: what things and stuff are told apart by. `auto`: pseudo_classes_split_*.pt if there are any, and
            an error if these do not count exactly these images; `files`: they, whatever they count, for instance where
            you have a part of the images; `images`: the images are counted anew and the files are left alone.
        classes_from: a finished label store of the same pseudo classes, such as an import of the training labels, whose
            thing/stuff split to take over; no statistics are then looked for.
        fusion: which classes are things and what is ignored; the paper's rules unless told otherwise (the published
            Cityscapes configuration has --fusion.ignore_thing_without_instance false).
        workers: processes; 0 takes as many as there are cores.

    Returns:
        The finished label store; report.html in it shows some of the labels and what each pseudo class looks like.

    Raises:
        DataError: the labels do not fit together, or do not fit the data set; or one of them is damaged (`ImageError`).
        CheckpointError: a file of statistics is damaged or unsafe.
        ConfigError: scale or classes must be told, or are impossible.
        StoreError: the statistics are not of these labels, or `out` is of other labels.
        DiskError: the disk is full; what was finished is kept.
    """
    arguments = dict(locals())
    dataset = open_dataset(data, layout)
    files = labels_of_frames(list_labels(labels), dataset)
    other = None if classes_from is None else LabelStore.open(classes_from)
    counted = _counts_of_files(labels, statistics) if other is None else other.rule.counts
    num_classes = _number_of_classes(labels, classes, counted)
    sizes = _sizes(dataset, files)
    dataset = replace(dataset, scale=_scale(dataset, sizes, scale))
    items = [LabelItem(key, files[key], scaled_size(*frame, dataset.scale)) for key, (_, frame) in sizes.items()]
    with sole_writer(out):
        begin(out, _manifest(labels, dataset, num_classes, out, list(files)))
        save_config(out / "config.yaml", **arguments)
        with choose_engine(workers, len(items) // READ_IN_PASSING) as engine:
            done, is_new = _read_labels(ImportLabel(out, num_classes), items, engine)
            if other is None and counted is not None and statistics == "auto":
                _require_same_counts(labels, counted, summed((entry.raw for entry in done.values()), num_classes))
            rule = FusionRule.of(done.values(), num_classes, fusion)
            if counted is not None:
                rule = replace(rule, counts=counted)
            if is_new or not _is_fused(out, rule):
                source = "this store" if counted is None else str(labels if other is None else other.path)
                fuse_frames(out, dataset, rule, done, source, engine)
    store = LabelStore.open(out)
    if is_outdated(out / REPORT, store):
        write_label_report(out / REPORT, store, dataset, [(record, record) for record in dataset.records], None)
    return store


@dataclass(frozen=True)
class LabelItem:
    """A frame to read. size: (height, width) [px] of the frame as the store has it."""

    key: str
    files: LabelFiles
    size: Size


@dataclass(frozen=True)
class ImportLabel:
    """Item: a frame to read; writes its instances and classes to the store and gives its line. Raises `ImageError`."""

    out: Path
    num_classes: int

    def __call__(self, item: LabelItem) -> FrameDone:
        semantic = centred(read_classes(item.files.semantic, self.num_classes), item.size, VOID)
        ids = centred(read_objects(item.files.instance), item.size, 0)
        files = {folder: self.out / folder / f"{item.key}.png" for folder in ("instances", "semantics")}
        write_ids(files["instances"], ids, bits=16)
        write_semantic(files["semantics"], semantic)
        objects = int(ids.max(initial=0))
        return FrameDone(
            key=item.key,
            scores=(1.0,) * objects,
            extents=np.full((objects, 2), np.nan, np.float32),
            aligned=count_classes(align(semantic, ids), ids, self.num_classes),
            raw=count_classes(semantic, ids, self.num_classes),
            parts=PartStatistics.zero(),
            sizes={folder: path.stat().st_size for folder, path in files.items()},
        )


def _read_labels(task: ImportLabel, items: Sequence[LabelItem], engine: Engine) -> tuple[dict[str, FrameDone], bool]:
    """Every frame's line in the order of the items, and whether there was one to read."""
    finished = finished_frames(task.out, [item.key for item in items])
    missing = [item for item in items if item.key not in finished]
    unwritten: list[FrameDone] = []
    try:
        for _, entry in mapped(engine, task, missing, "reading labels", len(items)):
            finished[entry.key] = entry
            unwritten.append(entry)
            if len(unwritten) == WRITTEN_TOGETHER:
                append_frames(task.out, unwritten)
                unwritten = []
    finally:
        append_frames(task.out, unwritten)
    done = {item.key: finished[item.key] for item in items}
    if missing:
        write_frames(task.out, list(done.values()))
    return done, bool(missing)


def _counts_of_files(labels: Path, statistics: Counted) -> ClassStatistics | None:
    """What the files of statistics say, None without any or where they are not asked for."""
    if statistics == "images":
        return None
    counts = read_statistics(list_statistics(labels))
    if counts is None and statistics == "files":
        raise DataError(f"{labels} holds no {SPLIT}*{SPLIT_SUFFIX}; leave --statistics out to count the images instead")
    return counts


def _number_of_classes(labels: Path, told: int | None, counted: ClassStatistics | None) -> int:
    number = told if counted is None else counted.num_classes
    if number is None:
        raise ConfigError(
            f"nothing in {labels} tells how many pseudo classes there are; tell it with --classes (27 in the paper)"
        )
    if told is not None and told != number:
        raise ConfigError(f"the statistics of {labels} count {number} classes, not {told}; leave --classes out")
    if not 1 <= number <= UNKNOWN:
        raise ConfigError(f"labels of 8 bits hold 1 to {UNKNOWN} classes, not {number}")
    return number


def _sizes(dataset: StereoDataset, files: Mapping[str, LabelFiles]) -> dict[str, tuple[Size, Size]]:
    """(height, width) [px] of each label and of its frame on disk, from their headers.

    Raises `ImageError` where one cannot be read or the two images of a label differ in size.
    """
    records = [record for record in dataset.records if record.key in files]
    found = {}
    for record in progress(records, "looking at sizes"):
        pair = files[record.key]
        size, other = image_size(pair.semantic), image_size(pair.instance)
        if size != other:
            raise ImageError(
                f"{pair.semantic} is {size[1]} x {size[0]} pixels but {pair.instance.name} is {other[1]} x {other[0]}; "
                "they are of different runs: copy both again"
            )
        found[record.key] = size, dataset.source_size(record)
    return found


def _scale(dataset: StereoDataset, sizes: Mapping[str, tuple[Size, Size]], told: float | None) -> float:
    """The factor that the labelled images were resized by. Raises `ConfigError` where it must be told."""
    if told is not None:
        return told
    kinds = sorted(set(sizes.values()))
    found = whole_frame_scale(kinds)
    if found is not None:
        return found
    if dataset.layout in (kitti_raw.LAYOUT.name, kitti_raw.PAPER_LAYOUT.name):
        return 1.0
    (height, width), (full_height, full_width) = kinds[0]
    raise ConfigError(
        f"labels of {width} x {height} pixels are not of whole frames of {full_width} x {full_height}; if they are of "
        "the centre, tell with --scale by how much the frames were resized before (1: not at all)"
    )


def _manifest(labels: Path, dataset: StereoDataset, num_classes: int, out: Path, keys: Sequence[str]) -> dict[str, Any]:
    """What tells one import from another."""
    run = {
        "data": str(dataset.root.resolve()),
        "data_from_here": relative_data(dataset.root, out),
        "layout": dataset.layout,
        "scale": dataset.scale,
        "parts": {
            "labels": {"name": "published files", "directory": str(labels.resolve()), "classes": num_classes},
        },
    }
    return {"cupola": __version__, "run": run, "keys": list(keys)}


def _require_same_counts(labels: Path, counted: ClassStatistics, seen: ClassStatistics) -> None:
    """Raises `StoreError` unless the files of statistics count the images' pixels (spec-stage1 S9, S46)."""
    if np.array_equal(counted.total, seen.total) and np.array_equal(counted.inside, seen.inside):
        return
    raise StoreError(
        f"{SPLIT}*{SPLIT_SUFFIX} in {labels} count {counted.total.sum():,} pixels, {counted.inside.sum():,} of them in "
        f"masks, but its images hold {seen.total.sum():,} and {seen.inside.sum():,}, or other classes: is one left of "
        "an earlier run? Take them all the same with --statistics files, or count anew with --statistics images"
    )


def _is_fused(out: Path, rule: FusionRule) -> bool:
    """Whether the store's panoptic files are there and of this rule."""
    if not (out / PANOPTIC_INDEX).exists():
        return False
    there = read_json(out / STATISTICS)
    return all(there.get(name) == value for name, value in json.loads(json.dumps(rule.to_json())).items())
