"""`cupola export-labels`: a label store as the files that the published code trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cupola.engines import choose_engine
from cupola.errors import DiskError, StoreError
from cupola.io import read_ids, write_ids
from cupola.pseudo_labels.align import align
from cupola.pseudo_labels.completion import mapped
from cupola.pseudo_labels.journal import remove_temporary
from cupola.pseudo_labels.published import (
    INSTANCE,
    MAX_OBJECTS,
    SEMANTIC,
    SPLIT,
    SPLIT_SUFFIX,
    stem_of,
    without_gaps,
    write_classes,
    write_statistics,
)
from cupola.pseudo_labels.store import LabelStore, read_semantic

STATISTICS_FILE = f"{SPLIT}0{SPLIT_SUFFIX}"

WRITTEN_IN_PASSING = 40
"""Labels that are written in about the time that one more worker takes to start."""


@dataclass(frozen=True)
class ExportedLabels:
    """What `export_labels` wrote. frames: with two images each; num_classes: pseudo classes; things: those of them that
    are things in the store, and for any reader with its threshold."""

    out: Path
    frames: int
    num_classes: int
    things: tuple[int, ...]
    threshold: float


def export_labels(store: Path, *, out: Path, workers: int = 0) -> ExportedLabels:
    """Writes a label store as the published CUPS code keeps pseudo labels, so that its training runs on them.

    For each frame STEM_semantic.png (8 bit: pseudo class, every mask of one class; 255 where unknown, which that code
    ignores) and STEM_instance.png (8 bit: 0 = none, masks 1, 2, ..), for all of them pseudo_classes_split_0.pt, which
    its training tells things from stuff by. STEM is the name of the left image in Cityscapes, DRIVE_sync_FRAME in KITTI
    raw, and the key of the frame elsewhere. What a store knows beyond classes and masks (scores, groups of sizes, what
    fusion ignores) has no place in these files: their reader fuses by its own rules.

    Args:
        store: a finished label store.
        out: directory of the files; it must hold nothing else, since their reader adds up all statistics in it.
        workers: processes; 0 takes as many as there are cores.

    Returns:
        What was written and where.

    Raises:
        StoreError: the store is not finished, `out` holds something else, or a frame has more masks than 8 bits hold.
        ImageError: an image of the store is damaged.
        DiskError: the disk is full.
    """
    source = LabelStore.open(store)
    stems = {key: stem_of(key, source.run["layout"]) for key in source.keys}
    _require_few_objects(source)
    _claim(out, list(stems.values()))
    task = ExportLabel(store, out, source.rule.settings.align)
    with choose_engine(workers, len(stems) // WRITTEN_IN_PASSING) as engine:
        for _ in mapped(engine, task, list(stems.items()), "writing labels", len(stems)):
            pass
    rule = source.rule
    write_statistics(out / STATISTICS_FILE, rule.counts)
    return ExportedLabels(out, len(stems), rule.counts.num_classes, rule.split.things, rule.settings.threshold)


@dataclass(frozen=True)
class ExportLabel:
    """Item: (key, stem); writes the two images of the frame. Raises `ImageError`, `DiskError`."""

    store: Path
    out: Path
    align: bool

    def __call__(self, item: tuple[str, str]) -> None:
        key, stem = item
        classes = read_semantic(self.store / "semantics" / f"{key}.png")
        ids = without_gaps(read_ids(self.store / "instances" / f"{key}.png"))
        if self.align:
            classes = align(classes, ids)
        write_classes(self.out / (stem + SEMANTIC), classes)
        write_ids(self.out / (stem + INSTANCE), ids, bits=8)


def _require_few_objects(store: LabelStore) -> None:
    for key in store.keys:
        if len(store.entries[key].scores) <= MAX_OBJECTS:
            continue
        masks = int(without_gaps(store.instance_map(key)).max())
        if masks > MAX_OBJECTS:
            raise StoreError(
                f"frame {key} of {store.path} has {masks} masks, but the published files hold at most {MAX_OBJECTS}; "
                "label it again so that fewer small ones are found"
            )


def _claim(out: Path, stems: Sequence[str]) -> None:
    """Makes the directory, or checks that it holds nothing but what will be written anew.

    The statistics of an earlier export go first, so that a directory without them is not finished.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_temporary(out)
        names = {stem + suffix for stem in stems for suffix in (SEMANTIC, INSTANCE)} | {STATISTICS_FILE}
        foreign = sorted({path.name for path in out.iterdir()} - names)
        if foreign:
            raise StoreError(f"{out} holds {foreign[0]}, which is not of these labels; choose another --out")
        (out / STATISTICS_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"cannot write in {out}: {error.strerror}; choose another --out") from error
