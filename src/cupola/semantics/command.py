"""`cupola semantics`: the class maps alone, for any stereo pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cupola.correspondence import AnyCorrespondence, ClassicalCorrespondence, CorrespondenceProvider, NeedsFiles
from cupola.data import FrameRecord, StereoDataset, every_kth, open_dataset
from cupola.engines import choose_engine, in_order
from cupola.errors import DataError
from cupola.io import write_ids
from cupola.progress import progress
from cupola.runs.directory import claim
from cupola.semantics import AnySemantics, OfflineSemantics, SemanticMethod, SemanticModel
from cupola.types import VOID

UNKNOWN = 255
"""Value of a pixel without a class in the written maps."""

MODEL = "model.npz"

MAY_DIFFER = ("out", "workers", "limit")
"""Arguments that may change between two parts of a run."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class SemanticMaps:
    """A directory of class maps. keys: frames with a map, OUT/KEY.png; failed: what was wrong with each frame that has
    none; num_classes: pseudo classes, 0 .. num_classes - 1."""

    out: Path
    keys: tuple[str, ...]
    failed: dict[str, str]
    num_classes: int


@dataclass(frozen=True)
class _Describe:
    """Item: (number, record); result: what fitting needs of the frame, None where it cannot be read."""

    dataset: StereoDataset
    correspondence: CorrespondenceProvider
    semantics: SemanticMethod
    seed: int

    def __call__(self, item: tuple[int, FrameRecord]) -> Any:
        try:
            frame = self.dataset.frame(item[1])
        except DataError:
            return None  # told with its reason when its map is due
        return self.semantics.describe(frame, *self.correspondence.disparity(frame), self.seed)


@dataclass(frozen=True)
class _WriteMap:
    """Item: a record; writes its class map. Result: None, or why the frame cannot be read."""

    dataset: StereoDataset
    correspondence: CorrespondenceProvider
    model: SemanticModel
    out: Path

    def __call__(self, record: FrameRecord) -> str | None:
        try:
            frame = self.dataset.frame(record)
        except DataError as error:
            return str(error)
        classes = self.model(frame, *self.correspondence.disparity(frame)).classes
        write_ids(self.out / f"{record.key}.png", np.where(classes == VOID, UNKNOWN, classes), bits=8)
        return None


def semantic_maps(
    data: Path,
    *,
    out: Path,
    layout: str = "auto",
    scale: float = 1.0,
    correspondence: AnyCorrespondence = ClassicalCorrespondence(),
    semantics: AnySemantics = OfflineSemantics(),
    limit: int | None = None,
    every: int = 1,
    seed: int = 0,
    workers: int = 0,
) -> SemanticMaps:
    """The pseudo classes of stage 1 alone, also for stereo pairs without a second frame (`cupola.semantic_maps`).

    OUT/KEY.png holds the pseudo class of every pixel (8 bit, 255 = unknown), OUT/model.npz the fitted classes. Run the
    same command again to go on after a stop: maps that are there are kept.

    Args:
        data: directory of a data set (`cupola inspect DATA` tells what is in it).
        out: directory of the class maps.
        layout: layout of the data set; `auto` finds out.
        scale: factor for the image size; the maps have the scaled size.
        correspondence: method of the disparity, by name, and its settings.
        semantics: method of the pseudo classes, by name, and its settings.
        limit: at most this many frames, the first ones.
        every: take every K-th frame.
        seed: of all random draws.
        workers: processes; 0 takes as many as there are cores.

    Returns:
        Where the maps are, of which frames, and what failed.

    Raises:
        DataError: no frame can be read.
        StoreError: `out` was made with other settings or weights.
        CheckpointError: weights of a method are missing or cannot be used.
        DiskError: the disk is full; what was finished is kept.
    """
    arguments = dict(locals())
    dataset = open_dataset(data, layout, scale)
    records = _chosen(dataset, every, limit)
    for part in (correspondence, semantics):
        if isinstance(part, NeedsFiles):
            part.check([(record.key, record.key) for record in records])
    claim(out, MAY_DIFFER, **arguments)
    unread = replace(dataset, records=())  # frames travel one by one; their list need not travel with each
    model = _model(out, _Describe(unread, correspondence, semantics, seed), records, workers)
    missing = [record for record in records if not (out / f"{record.key}.png").exists()]
    task = _WriteMap(unread, correspondence, model, out)
    results = _map(task, missing, workers, "class maps", len(records))
    failed = {record.key: reason for record, reason in results if reason is not None}
    keys = tuple(record.key for record in records if record.key not in failed)
    return SemanticMaps(out, keys, failed, model.num_classes)


def _chosen(dataset: StereoDataset, every: int, limit: int | None) -> tuple[FrameRecord, ...]:
    chosen = every_kth(dataset.records, every, limit)
    if not dataset.records:
        raise DataError(f"{dataset.root} ({dataset.layout}) holds no stereo frame")
    return chosen


def _model(out: Path, task: _Describe, records: Sequence[FrameRecord], workers: int) -> SemanticModel:
    """The model of an earlier run, or a new one, saved. Raises `DataError` where no frame can be read."""
    path = out / MODEL
    if path.exists():
        return task.semantics.load(path)
    items = [(position, records[number]) for position, number in enumerate(task.semantics.choose(len(records)))]
    done = _map(task, items, workers, "fitting pseudo classes", len(items))
    described = [one for one in in_order((item[0], one) for item, one in done) if one is not None]
    if items and not described:
        raise DataError(f"none of {len(items)} frames can be read, for instance {items[0][1].left}")
    model = task.semantics.fit_described(described, task.seed)
    model.save(path)
    return model


def _map(
    task: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str, total: int
) -> Iterable[tuple[Item, Result]]:
    """Results as they are done, with a progress bar; whatever ends the loop ends the workers."""
    if items:
        with closing(choose_engine(workers, len(items)).map(task, items)) as done:
            yield from progress(done, title, total, total - len(items))
