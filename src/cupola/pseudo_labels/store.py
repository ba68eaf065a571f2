"""The label store: what stage 1 leaves on disk, read back.

config.yaml            the command that made it
manifest.json          data set, parts, settings, the keys of all frames
frames.jsonl           a line a finished (or failed) frame
timings.jsonl          seconds each part took, a line a frame
semantics_model.npz    the fitted pseudo classes, or which file of weights holds them (not of imported labels)
instances/KEY.png      16 bit: 0 = none, 1.. = moving objects
semantics/KEY.png      8 bit: pseudo class, 255 = unknown (before alignment)
parts/KEY.png          16 bit: the finer class that each pixel's pseudo class is made of, 65535 = unknown
scores/KEY.npz         class scores, float16, only on request
statistics.json        counts of classes and parts, sizes of objects, thing/stuff split, fusion settings
panoptic/KEY.png, panoptic.json    COCO panoptic: the labels, for every tool that reads it
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Int16, Int32, UInt8

from cupola.config import plain
from cupola.data import FrameRecord, StereoDataset, open_dataset
from cupola.errors import ConfigError, DataError, StoreError
from cupola.io import read_ids, write_ids
from cupola.pseudo_labels.fuse import FusionSettings
from cupola.pseudo_labels.journal import (
    FORMAT,
    MANIFEST,
    TIMINGS,
    FrameDone,
    FrameFailed,
    read_frames,
    read_json,
)
from cupola.pseudo_labels.rule import FusionRule
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


def read_parts(path: Path) -> Int32[np.ndarray, "h w"] | None:
    """The inverse of `write_parts`, unknown as 65535; None where there is no such file. Raises `ImageError`."""
    return read_ids(path).astype(np.int32) if path.exists() else None


@dataclass(frozen=True)
class LabelStore:
    """A finished label store. keys: frames that have a label, in the order of the data set; rule: how all frames
    together say that each is fused; run: the settings that made the unfused results."""

    path: Path
    keys: tuple[str, ...]
    failures: tuple[FrameFailed, ...]
    rule: FusionRule
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
            raise StoreError(f"{path} is not finished; run the command that was making it again")
        statistics = read_json(path / STATISTICS)
        entries = read_frames(path)
        try:
            keys = tuple(key for key in manifest["keys"] if isinstance(entries.get(key), FrameDone))
            failed = [entries[key] for key in manifest["keys"] if key in entries]
            return LabelStore(
                path=path,
                keys=keys,
                failures=tuple(entry for entry in failed if isinstance(entry, FrameFailed)),
                rule=FusionRule.from_json(statistics),
                run=manifest["run"],
            )
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}); make it again") from error

    def fused_with(self, settings: FusionSettings) -> LabelStore:
        """This store with the labels that other fusion settings give; nothing is computed anew, nothing written."""
        rule = FusionRule.of(self.entries.values(), self.rule.counts.num_classes, settings)
        return replace(self, rule=rule)

    @property
    def imported(self) -> bool:
        """Whether the labels are somebody else's (`cupola import-labels`): then no model of their classes is known."""
        return "labels" in self.run["parts"]

    @property
    def num_classes(self) -> int:
        """Number of classes that labels may hold, unused ones included."""
        return self.rule.num_classes

    @property
    def things(self) -> tuple[int, ...]:
        """Classes of things: groups of sizes, most frequent first, or pseudo classes by descending share."""
        return self.rule.things

    @property
    def stuff(self) -> tuple[int, ...]:
        """Pseudo classes of stuff, by descending share."""
        return self.rule.split.stuff

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

    def instances(self, key: str) -> int:
        """Number of moving objects, by the index alone: no image is opened."""
        return len(self.entries[key].scores)

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
        parts = read_parts(self.path / "parts" / f"{key}.png") if self.rule.movable else None
        return self.rule.label(self.semantic(key), self.instance_map(key), parts, self.entries[key].extents)

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
        facts |= {"seed": str(run["seed"])} if "seed" in run else {}
        facts["fusion"] = ", ".join(f"{name} {value}" for name, value in plain(self.rule.settings).items())
        if self.failures:
            facts["failed frames"] = ", ".join(f"{failure.key}: {failure.reason}" for failure in self.failures[:5])
        return facts


def relative_data(data: Path, out: Path) -> str:
    """Where the data lies as seen from the store, for stores that are moved together with their data."""
    return os.path.relpath(data.resolve(), out.resolve())
