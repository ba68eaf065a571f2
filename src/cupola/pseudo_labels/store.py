"""The label store: what stage 1 leaves on disk, read back.

config.yaml            the command that made it
manifest.json          data set, parts, settings, the keys of all frames
frames.jsonl           a line a finished (or failed) frame
timings.jsonl          seconds each part took, a line a frame
semantics_model.npz    the fitted pseudo classes
instances/KEY.png      16 bit: 0 = none, 1.. = moving objects
semantics/KEY.png      8 bit: pseudo class, 255 = unknown (before alignment)
parts/KEY.png          16 bit: the finer class that each pixel's pseudo class is made of, 65535 = unknown
scores/KEY.npz         class scores, float16, only on request
statistics.json        counts of each class and part, the thing/stuff split and the fusion settings
panoptic/KEY.png, panoptic.json    COCO panoptic: the labels, for every tool that reads it
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Int16, Int32, UInt8

from cupola.config import plain
from cupola.data import FrameRecord, StereoDataset, open_dataset
from cupola.errors import ConfigError, DataError, StoreError
from cupola.io import read_ids, write_ids, write_json
from cupola.pseudo_labels.fuse import FusionSettings, fuse
from cupola.pseudo_labels.journal import (
    FORMAT,
    MANIFEST,
    TIMINGS,
    FrameDone,
    FrameFailed,
    counts_from_json,
    counts_to_json,
    parts_from_json,
    parts_to_json,
    read_frames,
    read_json,
)
from cupola.pseudo_labels.statistics import ClassStatistics, PartStatistics, ThingStuffSplit, movable_parts
from cupola.types import VOID, PanopticMap

UNKNOWN = 255
"""Value of a pixel without a class in semantics/KEY.png, so there can be at most 255 classes."""

UNKNOWN_PART = 65535
"""Value of a pixel without a part in parts/KEY.png."""

MODEL, STATISTICS, PANOPTIC, PANOPTIC_INDEX = "semantics_model.npz", "statistics.json", "panoptic", "panoptic.json"


def write_semantic(path: Path, classes: Int16[np.ndarray, "h w"]) -> None:
    """Writes classes 0..254 and `VOID` as an 8-bit PNG, atomically. Raises `DiskError`."""
    write_ids(path, np.where(classes == VOID, UNKNOWN, classes), bits=8)


def read_semantic(path: Path) -> Int16[np.ndarray, "h w"]:
    """The inverse of `write_semantic`: an integer read, no conversion (spec-stage1 S9). Raises `ImageError`."""
    classes = read_ids(path).astype(np.int16)
    return np.where(classes == UNKNOWN, np.int16(VOID), classes)


def write_parts(path: Path, parts: Int16[np.ndarray, "h w"]) -> None:
    """Writes parts and `VOID` as a 16-bit PNG, atomically. Raises `DiskError`."""
    write_ids(path, np.where(parts == VOID, UNKNOWN_PART, parts.astype(np.int32)), bits=16)


def read_movable(path: Path, movable: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Pixels of the given parts. Raises `ImageError`."""
    table = np.zeros(UNKNOWN_PART + 1, bool)
    table[list(movable)] = True
    movable_pixels: np.ndarray = table[read_ids(path)]
    return movable_pixels


def write_statistics(
    path: Path,
    counts: ClassStatistics,
    parts: PartStatistics,
    split: ThingStuffSplit,
    settings: FusionSettings,
    frames: int,
    source: str,
) -> None:
    """Writes statistics.json, atomically. source: the store whose counts made the split. Raises `DiskError`."""
    write_json(
        path,
        {
            "frames": frames,
            "counts": counts_to_json(counts),
            "parts": parts_to_json(parts),
            "counts_of": source,
            "share": [round(float(value), 6) for value in counts.share],
            "ratio": [round(float(value), 6) for value in counts.ratio],
            "things": list(split.things),
            "stuff": list(split.stuff),
            "fusion": plain(settings),
        },
    )


@dataclass(frozen=True)
class LabelStore:
    """A finished label store. keys: frames that have a label, in the order of the data set; counts: class statistics
    and parts that the split is made of; run: the settings that made the unfused results."""

    path: Path
    keys: tuple[str, ...]
    failures: tuple[FrameFailed, ...]
    split: ThingStuffSplit
    fusion: FusionSettings
    counts: ClassStatistics
    parts: PartStatistics
    run: Mapping[str, Any]

    @staticmethod
    def open(path: Path) -> LabelStore:
        """Opens the store in a directory. Raises `StoreError` where it is missing, unfinished or damaged."""
        if not (path / MANIFEST).is_file():
            raise StoreError(f"{path} holds no label store; make one with `cupola pseudo-label DATA --out {path}`")
        manifest = read_json(path / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise StoreError(f"{path} is in store format {manifest.get('format')}, not {FORMAT}; make it again")
        if not (path / PANOPTIC_INDEX).is_file():
            raise StoreError(f"{path} is not finished; run its `cupola pseudo-label` command again")
        statistics = read_json(path / STATISTICS)
        entries = read_frames(path)
        try:
            keys = tuple(key for key in manifest["keys"] if isinstance(entries.get(key), FrameDone))
            failed = [entries[key] for key in manifest["keys"] if key in entries]
            return LabelStore(
                path=path,
                keys=keys,
                failures=tuple(entry for entry in failed if isinstance(entry, FrameFailed)),
                split=ThingStuffSplit(tuple(statistics["things"]), tuple(statistics["stuff"])),
                fusion=FusionSettings(**statistics["fusion"]),
                counts=counts_from_json(statistics["counts"]),
                parts=parts_from_json(statistics["parts"]),
                run=manifest["run"],
            )
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}); make it again") from error

    @property
    def num_classes(self) -> int:
        """Number of pseudo classes K."""
        return self.counts.num_classes

    @property
    def things(self) -> tuple[int, ...]:
        """Pseudo classes of things, by descending share."""
        return self.split.things

    @property
    def stuff(self) -> tuple[int, ...]:
        """Pseudo classes of stuff, by descending share."""
        return self.split.stuff

    @cached_property
    def movable(self) -> tuple[int, ...]:
        """Parts that are ignored where they are stuff: they move too often (`FusionSettings.movable`)."""
        return movable_parts(self.parts, self.counts, self.split, self.fusion.movable)

    @cached_property
    def dataset(self) -> StereoDataset:
        """The data set that the labels are of. Raises `DataError` where it has gone."""
        root = Path(self.run["data"])
        if not root.exists():
            root = (self.path / self.run["data_from_here"]).resolve()
        try:
            return open_dataset(root, self.run["layout"], self.run["scale"])
        except DataError as error:
            raise DataError(f"the images of the label store {self.path} are no longer readable: {error}") from error

    @cached_property
    def _records(self) -> dict[str, FrameRecord]:
        return {record.key: record for record in self.dataset.records}

    @cached_property
    def entries(self) -> Mapping[str, FrameDone]:
        """What frames.jsonl tells of every key."""
        return {key: entry for key, entry in read_frames(self.path).items() if isinstance(entry, FrameDone)}

    def record(self, key: str) -> FrameRecord:
        """Where the frame lies in the data set. Raises `DataError` where it is no longer there."""
        if key not in self._records:
            raise DataError(f"{self.dataset.root} no longer holds the frame {key} of the label store {self.path}")
        return self._records[key]

    def image(self, key: str) -> UInt8[np.ndarray, "h w 3"]:
        """The left image, RGB, at the size of the labels. Raises `DataError`, `ImageError`."""
        return self.dataset.left(self.record(key))

    def semantic(self, key: str) -> Int16[np.ndarray, "h w"]:
        """Pseudo class of each pixel as stage 1b gave it (before alignment). Raises `ImageError`."""
        return read_semantic(self.path / "semantics" / f"{key}.png")

    def instance_map(self, key: str) -> Int32[np.ndarray, "h w"]:
        """Moving objects: 0 = none. Raises `ImageError`."""
        return read_ids(self.path / "instances" / f"{key}.png").astype(np.int32)

    def scores(self, key: str) -> Float16[np.ndarray, "k h w"] | None:
        """Class scores, where the run kept them (`--keep_scores`)."""
        path = self.path / "scores" / f"{key}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as content:
            scores: np.ndarray = content["scores"]
        return scores

    def label(self, key: str) -> PanopticMap:
        """The fused label: pseudo class (`VOID` = ignore) and instance. Raises `ImageError`.

        Fused from the one-channel images; panoptic/KEY.png is the same label for other tools.
        """
        movable = read_movable(self.path / "parts" / f"{key}.png", self.movable) if self.movable else None
        return fuse(self.semantic(key), self.instance_map(key), self.split, self.fusion, movable)

    def seconds(self) -> dict[str, float]:
        """Median seconds of computing a frame, by part (a worker's first one also compiles); {} if not timed."""
        path = self.path / TIMINGS
        if not path.exists():
            return {}
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        parts = [name for name in (lines[0] if lines else {}) if name != "key"]
        return {part: float(np.median([line.get(part, 0.0) for line in lines])) for part in parts}

    def facts(self) -> dict[str, str]:
        """What made the labels, in words, for reports."""
        run = self.run
        facts = {"data": f"{run['data']} ({run['layout']}, scale {run['scale']})", "frames": str(len(self.keys))}
        facts |= {part: str(run["parts"][part]["name"]) for part in run["parts"]}
        facts["seed"] = str(run["seed"])
        facts["fusion"] = ", ".join(f"{name} {value}" for name, value in plain(self.fusion).items())
        if self.failures:
            facts["failed frames"] = ", ".join(f"{failure.key}: {failure.reason}" for failure in self.failures[:5])
        return facts


def relative_data(data: Path, out: Path) -> str:
    """Where the data lies as seen from the store, for stores that are moved together with their data."""
    return os.path.relpath(data.resolve(), out.resolve())
