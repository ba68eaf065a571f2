"""What every way to a label store ends with: which frames are finished, and fusing all of them into panoptic files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from cupola import __version__
from cupola.data import StereoDataset
from cupola.engines import Engine, in_order
from cupola.io import write_json
from cupola.io.coco_panoptic import Category, write_index
from cupola.progress import progress
from cupola.pseudo_labels.journal import FrameDone, read_frames, remove_temporary, write_frames
from cupola.pseudo_labels.rule import FusionRule
from cupola.pseudo_labels.store import PANOPTIC, PANOPTIC_INDEX, STATISTICS
from cupola.pseudo_labels.tasks import FuseFrame
from cupola.visualize import class_palette

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(
    engine: Engine, task: Callable[[Item], Result], items: Sequence[Item], title: str, total: int
) -> Iterable[tuple[Item, Result]]:
    """Results as they are done, with a progress bar; whatever ends the loop ends the workers."""
    if not items:
        return
    with closing(engine.map(task, items)) as done:
        yield from progress(done, title, total, total - len(items))


def finished_frames(out: Path, keys: Sequence[str]) -> dict[str, FrameDone]:
    """Frames that are finished. What a killed run left half done is cleared away, and a frame whose files are missing
    or cut short counts as not done."""
    for folder in (out, out / "instances", out / "semantics", out / "parts", out / "scores", out / PANOPTIC):
        remove_temporary(folder)
    written = read_frames(out)
    done = {
        key: entry for key in keys if isinstance(entry := written.get(key), FrameDone) and _files_are_whole(out, entry)
    }
    if written:
        write_frames(out, list(done.values()))
    return done


def _files_are_whole(out: Path, entry: FrameDone) -> bool:
    for folder, size in entry.sizes.items():
        path = out / folder / f"{entry.key}{'.npz' if folder == 'scores' else '.png'}"
        if not path.is_file() or path.stat().st_size != size:
            return False
    return True


def fuse_frames(
    out: Path, dataset: StereoDataset, rule: FusionRule, done: Mapping[str, FrameDone], source: str, engine: Engine
) -> None:
    """Writes statistics.json and the panoptic files. panoptic.json goes first and comes last: a store without it is not
    finished. source: the store whose frames made the rule."""
    index = out / PANOPTIC_INDEX
    index.unlink(missing_ok=True)
    write_json(out / STATISTICS, {"frames": len(done), "counts_of": source, **rule.to_json()})
    records = [record for record in dataset.records if record.key in done]
    items = [(number, record, done[record.key]) for number, record in enumerate(records)]
    fused = mapped(engine, FuseFrame(out, dataset.root, rule), items, "fusing", len(items))
    annotations = list(in_order((item[0], annotation) for item, annotation in fused))
    colors, things = class_palette(rule.num_classes), set(rule.things)
    categories = [Category(k, name, k in things, colors[k]) for k, name in enumerate(rule.names)]
    info = {"description": "pseudo labels made by cupola from stereo video", "version": __version__}
    write_index(index, annotations, categories, info)
