"""Stage 1 from a data set to a label store: the only file that knows all of its parts.

semantics.fit      on frames spread over the data                           -> semantics_model.npz
for every pair     correspondence -> motion -> semantics                    -> instances/, semantics/, frames.jsonl
once               sum the class counts, split things from stuff            -> statistics.json
for every frame    fuse                                                     -> panoptic/, panoptic.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cupola import __version__
from cupola.config import indifferent, plain, save_config
from cupola.correspondence import AnyCorrespondence, ClassicalCorrespondence, CorrespondenceProvider, NeedsFiles
from cupola.data import StereoDataset, every_kth, open_dataset
from cupola.engines import Engine, choose_engine, in_order
from cupola.errors import DataError, StoreError
from cupola.motion import AnyMotion, EgoMotionSegmenter, ImageSegmenter, MotionSegmenter
from cupola.pseudo_labels.completion import finished_frames, fuse_frames, mapped
from cupola.pseudo_labels.detail import AS_FOUND, DetailSettings
from cupola.pseudo_labels.fuse import FusionSettings
from cupola.pseudo_labels.journal import (
    TIMINGS,
    FrameDone,
    FrameFailed,
    append_frame,
    append_line,
    begin,
    read_frames,
    read_json,
    sole_writer,
    write_frames,
)
from cupola.pseudo_labels.label_report import REPORT, is_outdated, write_label_report
from cupola.pseudo_labels.rule import FusionRule
from cupola.pseudo_labels.store import (
    MODEL,
    PANOPTIC_INDEX,
    STATISTICS,
    LabelStore,
    relative_data,
)
from cupola.pseudo_labels.tasks import DescribeFrame, LabelFrame, Pair
from cupola.semantics import AnySemantics, OfflineSemantics, SemanticMethod, SemanticModel

MAX_FAILED_SHARE = 0.5
"""A run of which a larger share of frames fails is given up: its input is wrong, not single frames."""


FUSED_IN_PASSING = 100
"""Fusing so many frames takes about as long as starting one more worker (20 ms against 2 s)."""


@runtime_checkable
class HasHashes(Protocol):
    """A part whose results depend on the content of files."""

    def hashes(self) -> dict[str, str]:
        """Setting that names a file -> SHA-256 of its content."""
        ...


@runtime_checkable
class Wraps(Protocol):
    """A part that only remembers what another one finds: that other one is what is written down."""

    @property
    def inner(self) -> Any:
        """The other part."""
        ...


@dataclass(frozen=True)
class Parts:
    """What stage 1 is put together from. detail: by default masks stay as the motion finds them."""

    correspondence: CorrespondenceProvider
    motion: MotionSegmenter
    semantics: SemanticMethod
    detail: DetailSettings = AS_FOUND

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raises, before any work, the error of a part that lacks its files (weights, fields)."""
        keys = [(first.key, second.key) for first, second in pairs]
        for part in (self.correspondence, self.motion, self.semantics):
            if isinstance(part, NeedsFiles):
                part.check(keys)

    def _named(self) -> dict[str, Any]:
        parts = {"correspondence": self.correspondence, "motion": self.motion, "semantics": self.semantics}
        return {part: value.inner if isinstance(value, Wraps) else value for part, value in parts.items()}

    def may_differ(self) -> frozenset[str]:
        """Dotted names, as in `described`, of what the results do not depend on: where a file lies that has a hash, and
        settings such as the device."""
        named = self._named()
        hashed = {
            f"{part}.{name}" for part, one in named.items() if isinstance(one, HasHashes) for name in one.hashes()
        }
        return indifferent(named) | hashed

    def described(self) -> dict[str, Any]:
        """Class names, settings and hashes of files, as the manifest keeps them."""
        return {
            part: {
                **plain(value),
                "name": type(value).__name__,
                **({"sha256": value.hashes()} if isinstance(value, HasHashes) else {}),
            }
            for part, value in self._named().items()
        }


def pseudo_label(
    data: Path,
    *,
    out: Path,
    layout: str = "auto",
    scale: float = 1.0,
    correspondence: AnyCorrespondence = ClassicalCorrespondence(),
    motion: AnyMotion = EgoMotionSegmenter(),
    semantics: AnySemantics = OfflineSemantics(),
    detail: DetailSettings = DetailSettings(),
    fusion: FusionSettings = FusionSettings(),
    limit: int | None = None,
    every: int = 1,
    classes_from: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    keep_scores: bool = False,
) -> LabelStore:
    """Stage 1: panoptic pseudo labels from stereo video, without a single human label.

    Run the same command again to go on after a stop; frames that failed are tried again. With other fusion settings a
    finished store is only fused anew, in seconds.

    Args:
        data: directory of a data set (`cupola inspect DATA` tells what is in it).
        out: directory of the label store.
        layout: layout of the data set; `auto` finds out.
        scale: factor for the image size.
        correspondence: method of flow and disparity, by name, and its settings.
        motion: method of the moving objects, by name, and its settings.
        semantics: method of the pseudo classes, by name, and its settings.
        detail: how small moving things are kept.
        fusion: which classes are things and what is ignored.
        limit: at most this many frames, the first ones.
        every: take every K-th pair of frames.
        classes_from: a finished label store whose pseudo classes and thing/stuff split to take over, so that its
            labels and these mean the same. Of imported labels there is the split alone: name the network that made
            them as `semantics`.
        seed: of all random draws.
        workers: processes; 0 takes as many as there are cores.
        keep_scores: also keep the class scores of every pixel (27 classes: about 25 MB a frame).

    Returns:
        The finished label store; report.html in it shows what each step saw.

    Raises:
        DataError: no stereo pair is found, or more than half of the frames cannot be read.
        StoreError: `out` was made with other settings, or another run is writing to it.
        CheckpointError: weights of a method are missing or cannot be used.
        DiskError: the disk is full; what was finished is kept.
    """
    arguments = dict(locals())
    store = label_with(Parts(correspondence, motion, semantics, detail), arguments)
    report = out / REPORT
    if is_outdated(report, store):
        dataset = open_dataset(data, layout, scale)
        pairs = chosen_pairs(dataset, video=not isinstance(motion, ImageSegmenter))
        write_label_report(report, store, dataset, pairs, correspondence)
    return store


def label_with(parts: Parts, arguments: Mapping[str, Any]) -> LabelStore:
    """`pseudo_label` with any parts that fulfil the protocols; `arguments` are those of `pseudo_label`."""
    dataset = open_dataset(arguments["data"], arguments["layout"], arguments["scale"])
    video = not isinstance(parts.motion, ImageSegmenter)
    pairs = chosen_pairs(dataset, arguments["every"], arguments["limit"], video=video)
    return label_pairs(parts, dataset, pairs, arguments)


def label_pairs(
    parts: Parts, dataset: StereoDataset, pairs: Sequence[Pair], arguments: Mapping[str, Any]
) -> LabelStore:
    """`label_with` of these pairs of a data set that is open."""
    out = arguments["out"]
    parts.check(pairs)
    other = None if arguments["classes_from"] is None else LabelStore.open(arguments["classes_from"])
    with sole_writer(out):
        begin(out, _manifest(parts, dataset, pairs, arguments), {f"parts.{name}" for name in parts.may_differ()})
        save_config(out / "config.yaml", **arguments)
        finished = finished_frames(out, [first.key for first, _ in pairs])
        missing = [pair for pair in pairs if pair[0].key not in finished]
        with choose_engine(arguments["workers"], max(len(missing), len(pairs) // FUSED_IN_PASSING)) as engine:
            unread = replace(dataset, records=())  # the frames travel with the pairs
            model = _fitted(parts, unread, pairs, arguments, other, engine)
            task = LabelFrame(
                unread, parts.correspondence, parts.motion, model, parts.detail, out,
                arguments["seed"], arguments["keep_scores"],
            )  # fmt: skip
            entries = finished | _label_frames(task, missing, engine, len(pairs))
            _require_most(entries)
            if missing:
                write_frames(out, [entries[first.key] for first, _ in pairs])
            entries = read_frames(out)  # as written, in order: a run in one piece and a resumed one fuse the same
            if missing or not _is_fused(out, arguments["fusion"]):
                done = {key: entry for key, entry in entries.items() if isinstance(entry, FrameDone)}
                frames = done if other is None else other.entries
                rule = FusionRule.of(frames.values(), model.num_classes, arguments["fusion"])
                if other is not None and other.imported:
                    rule = replace(rule, counts=other.rule.counts)  # its files may count more than its frames
                fuse_frames(out, dataset, rule, done, "this store" if other is None else str(other.path), engine)
    return LabelStore.open(out)


def chosen_pairs(
    dataset: StereoDataset, every: int = 1, limit: int | None = None, *, video: bool = True
) -> tuple[Pair, ...]:
    """Every `every`-th pair of the data set, at most the first `limit` of these. Raises `DataError` without any.

    video: a frame goes with the next one, as motion needs it; else with itself, for what looks at single images.
    """
    chosen = every_kth(dataset.pairs() if video else tuple((one, one) for one in dataset.records), every, limit)
    if not chosen:
        raise DataError(
            f"{dataset.root} ({dataset.layout}) holds {len(dataset.records)} stereo frames but no two that follow each "
            "other in time; motion needs video"
        )
    return chosen


def _manifest(
    parts: Parts, dataset: StereoDataset, pairs: Sequence[Pair], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """What tells one run from another: all that the unfused results depend on."""
    other = arguments["classes_from"]
    run = {
        "data": str(dataset.root.resolve()),
        "data_from_here": relative_data(dataset.root, arguments["out"]),
        "layout": dataset.layout,
        "scale": dataset.scale,
        "limit": arguments["limit"],
        "every": arguments["every"],
        "seed": arguments["seed"],
        "classes_from": None if other is None else str(other.resolve()),
        "keep_scores": arguments["keep_scores"],
        "parts": parts.described(),
        "detail": plain(parts.detail),
    }
    return {"cupola": __version__, "run": run, "keys": [first.key for first, _ in pairs]}


def _fitted(
    parts: Parts,
    dataset: StereoDataset,
    pairs: Sequence[Pair],
    arguments: Mapping[str, Any],
    other: LabelStore | None,
    engine: Engine,
) -> SemanticModel:
    """The pseudo classes: read from the store where an earlier run fitted them, taken from another store, or fitted.

    A frame that cannot be read is left out. Raises `DataError` where none can.
    """
    path, seed = arguments["out"] / MODEL, arguments["seed"]
    if path.exists():
        return parts.semantics.load(path)
    if other is not None:
        model = _taken_over(parts.semantics, other, seed)
        model.save(path)
        return model
    numbers = parts.semantics.choose(len(pairs))
    items = [(position, pairs[number][0]) for position, number in enumerate(numbers)]
    task = DescribeFrame(dataset, parts.correspondence, parts.semantics, seed)
    done = mapped(engine, task, items, "fitting pseudo classes", len(items))
    described = [one for one in in_order((item[0], one) for item, one in done) if one is not None]
    if items and not described:
        raise DataError(f"none of {len(items)} frames of {dataset.root} can be read; `cupola inspect` tells more")
    model = parts.semantics.fit_described(described, seed)
    model.save(path)
    return model


def _taken_over(semantics: SemanticMethod, other: LabelStore, seed: int) -> SemanticModel:
    """The pseudo classes of another store. Raises `StoreError` where they cannot be had."""
    if not other.imported:
        return semantics.load(other.path / MODEL)
    if semantics.choose(1):
        raise StoreError(
            f"{other.path} holds imported labels, whose classes cannot be fitted to other frames; name the network "
            "that made them (--semantics depthg --semantics.weights FILE), or leave --classes_from out"
        )
    model = semantics.fit_described([], seed)
    if model.num_classes != other.rule.counts.num_classes:
        raise StoreError(
            f"the labels in {other.path} have {other.rule.counts.num_classes} pseudo classes, but these semantics have "
            f"{model.num_classes}; name the network that made the labels"
        )
    return model


def _label_frames(
    task: LabelFrame, missing: Sequence[Pair], engine: Engine, total: int
) -> dict[str, FrameDone | FrameFailed]:
    """Labels the missing frames, each written down as soon as it is done. Raises `DataError` once so many have failed
    that the run can no longer succeed."""
    entries: dict[str, FrameDone | FrameFailed] = {}
    failed = 0
    for _, (entry, seconds) in mapped(engine, task, missing, "labelling frames", total):
        append_frame(task.out, entry)
        if isinstance(entry, FrameFailed):
            failed += 1
            if failed > MAX_FAILED_SHARE * total:
                _require_most(entries | {entry.key: entry}, total)
        else:
            _append_seconds(task.out, entry.key, seconds)
        entries[entry.key] = entry
    return entries


def _append_seconds(out: Path, key: str, seconds: Mapping[str, float]) -> None:
    import json

    append_line(out / TIMINGS, json.dumps({"key": key, **seconds}))


def _require_most(entries: Mapping[str, FrameDone | FrameFailed], total: int | None = None) -> None:
    """Raises `DataError` where too many frames have failed."""
    failures = [entry for entry in entries.values() if isinstance(entry, FrameFailed)]
    total = total or len(entries)
    if len(failures) > MAX_FAILED_SHARE * total:
        raise DataError(
            f"{len(failures)} of {total} frames failed, the first because {failures[0].reason}; mend the data and run "
            "the same command again"
        )


def _is_fused(out: Path, settings: FusionSettings) -> bool:
    """Whether the store's panoptic files are there and of these settings."""
    if not (out / PANOPTIC_INDEX).exists():
        return False
    return bool(read_json(out / STATISTICS).get("fusion") == plain(settings))
