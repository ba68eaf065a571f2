"""Small stand-ins for the parts of stage 1, and a small data set. What they give depends on the image alone."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import yaml

from cupola.correspondence import ClassicalCorrespondence
from cupola.io import content_hash
from cupola.motion import EgoMotionSegmenter
from cupola.pseudo_labels import FusionSettings, LabelStore, Parts, label_with
from cupola.semantics import OfflineSemantics
from cupola.types import Correspondence, Instances, SemanticMap

HEIGHT, WIDTH = 24, 40
CLASSES = 5


@dataclass(frozen=True)
class FlatCorrespondence:
    """No motion, one disparity."""

    value: float = 4.0

    def __call__(self, clip):
        height, width = clip.first.size
        flow, known = np.zeros((2, height, width), np.float32), np.ones((height, width), bool)
        disparity = np.full((height, width), self.value, np.float32)
        return Correspondence(flow, flow, disparity, disparity, known, known, known)

    def disparity(self, frame):
        return np.full(frame.size, self.value, np.float32), np.ones(frame.size, bool)


@dataclass(frozen=True)
class LearntCorrespondence(FlatCorrespondence):
    """As flat, but with a file of weights, whose content alone counts, and a device that changes nothing."""

    weights: Path = Path()
    device: str = "auto"

    may_differ: ClassVar[tuple[str, ...]] = ("device",)

    def hashes(self):
        return {"weights": content_hash(self.weights)}


@dataclass(frozen=True)
class BrightObjects:
    """An object where the image is bright: the square that `write_dataset` paints. The seed decides the score."""

    threshold: int = 200
    stop_at: str = ""
    """Ends the process at this frame, as a kill would."""

    may_differ: ClassVar[tuple[str, ...]] = ("stop_at",)

    def __call__(self, clip, correspondence, seed):
        if clip.key == self.stop_at:
            os._exit(9)
        mask = clip.first.left.min(-1) > self.threshold
        if not mask.any():
            return Instances.empty(*clip.first.size)
        rng = np.random.default_rng([seed, zlib.crc32(clip.key.encode())])
        return Instances(mask[None], rng.random(1).astype(np.float32))


@dataclass(frozen=True)
class GreySemantics:
    """Classes are levels of grey, parts are two halves of each level; the fitted model knows the brightest value that
    it was shown."""

    classes: int = CLASSES
    give_scores: bool = False

    def choose(self, count):
        return [0, count - 1] if count > 1 else [0]

    def describe(self, frame, disparity, valid, seed):
        return int(frame.left.max())

    def fit_described(self, frames, seed):
        return GreyModel(self.classes, max(frames), self.give_scores)

    def load(self, path):
        return GreyModel.load(path)


@dataclass(frozen=True)
class KnownSemantics(GreySemantics):
    """Needs no fitting, as a trained network."""

    def choose(self, count):
        return []

    def fit_described(self, frames, seed):
        return GreyModel(self.classes, 240, self.give_scores)


@dataclass(frozen=True)
class GreyModel:
    num_classes: int
    brightest: int
    give_scores: bool

    def __call__(self, frame, disparity, valid):
        halves = frame.left[..., 0].astype(np.int32) * 2 * self.num_classes // (self.brightest + 1)
        halves = np.minimum(halves, 2 * self.num_classes - 1)
        parts = np.where(frame.valid, halves, -1).astype(np.int16)
        classes = np.where(frame.valid, halves // 2, -1).astype(np.int16)
        scores = np.eye(self.num_classes, dtype=np.float16)[classes].transpose(2, 0, 1) if self.give_scores else None
        return SemanticMap(classes, None if scores is None else np.ascontiguousarray(scores), parts)

    def save(self, path):
        np.savez(path, values=np.array([self.num_classes, self.brightest, self.give_scores]))

    @staticmethod
    def load(path):
        with np.load(path, allow_pickle=False) as file:
            num_classes, brightest, give_scores = file["values"].tolist()
        return GreyModel(num_classes, brightest, bool(give_scores))


def write_dataset(root: Path, frames: int = 6, empty: tuple[int, ...] = (2,), seed: int = 0) -> Path:
    """A folder data set: grey stripes and a bright square that wanders, absent from the `empty` frames."""
    rng = np.random.default_rng(seed)
    for side in ("left", "right"):
        (root / side).mkdir(parents=True)
    stripes = np.repeat(np.array([20, 60, 110, 150], np.uint8), HEIGHT // 4)[:, None, None]
    for number in range(frames):
        image = np.broadcast_to(stripes, (HEIGHT, WIDTH, 3)) + rng.integers(0, 8, (HEIGHT, WIDTH, 1), np.uint8)
        if number not in empty:
            image[8:16, 3 * number + 2 : 3 * number + 10] = 240
        for side in ("left", "right"):
            cv2.imwrite(str(root / side / f"{number:06d}.png"), image.astype(np.uint8))
    calibration = {"fx": 40.0, "fy": 40.0, "cx": 19.5, "cy": 11.5, "baseline": 0.5}
    (root / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    return root


def arguments(data: Path, out: Path, **changed):
    """The arguments of `pseudo_label`, its defaults where nothing else is told."""
    defaults = {
        "data": data,
        "out": out,
        "layout": "auto",
        "scale": 1.0,
        "correspondence": ClassicalCorrespondence(),
        "motion": EgoMotionSegmenter(),
        "semantics": OfflineSemantics(),
        "fusion": FusionSettings(sizes=0),
        "limit": None,
        "every": 1,
        "classes_from": None,
        "seed": 0,
        "workers": 1,
        "keep_scores": False,
    }
    return defaults | changed


def run(data: Path, out: Path, parts: Parts | None = None, **changed) -> LabelStore:
    """Stage 1 with the stand-ins."""
    return label_with(parts or double_parts(), arguments(data, out, **changed))


def double_parts(**changed) -> Parts:
    parts = {
        "correspondence": FlatCorrespondence(),
        "motion": BrightObjects(),
        "semantics": GreySemantics(),
    }
    return Parts(**(parts | changed))


def contents(out: Path) -> dict[str, bytes]:
    """All files of a store that depend on its input alone."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in (".lock", "timings.jsonl", "config.yaml", "manifest.json")
    }
