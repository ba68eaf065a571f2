"""What stage 1 does with one frame, as picklable tasks that an engine spreads over frames."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

from cupola.correspondence import CorrespondenceProvider, FileCorrespondence
from cupola.data import FrameRecord, StereoDataset, VideoFrame
from cupola.errors import ConfigError, DataError, ImageError
from cupola.io import atomic_path, read_ids, write_ids
from cupola.io.coco_panoptic import Annotation, to_segments, write_map
from cupola.motion import ImageSegmenter, MotionSegmenter
from cupola.pseudo_labels.align import align
from cupola.pseudo_labels.detail import DetailSettings
from cupola.pseudo_labels.journal import FrameDone, FrameFailed
from cupola.pseudo_labels.rule import FusionRule
from cupola.pseudo_labels.sizes import extents
from cupola.pseudo_labels.statistics import PartStatistics, count_classes, count_parts
from cupola.pseudo_labels.store import PANOPTIC, read_parts, read_semantic, write_parts, write_semantic
from cupola.semantics import SemanticMethod, SemanticModel
from cupola.types import Instances, SemanticMap, StereoClip

Pair = tuple[FrameRecord, FrameRecord]
"""A frame and the next; twice the same where single images are looked at."""

Seen = tuple[Instances, Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]
"""The objects of a frame, its disparity [px], and where that is known."""


@dataclass
class Stopwatch:
    """Seconds of each part of a frame's work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times the block under this name."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 4)


@dataclass(frozen=True)
class DescribeFrame:
    """Item: (number, record); result: what the semantics need of it to be fitted, None where it cannot be read."""

    dataset: StereoDataset
    correspondence: CorrespondenceProvider
    semantics: SemanticMethod
    seed: int

    def __call__(self, item: tuple[int, FrameRecord]) -> Any:
        try:
            frame = self.dataset.frame(item[1])
        except DataError:
            return None  # recorded with its reason when the frame's own turn comes
        return self.semantics.describe(frame, *self.correspondence.disparity(frame), self.seed)


@dataclass(frozen=True)
class LabelFrame:
    """Item: a pair of records; writes the first frame's instances and classes and gives its line and seconds.

    A frame that cannot be read is a `FrameFailed` (spec-stage1 S8); everything else that goes wrong is raised.
    """

    dataset: StereoDataset
    correspondence: CorrespondenceProvider
    motion: MotionSegmenter
    model: SemanticModel
    detail: DetailSettings
    out: Path
    seed: int
    keep_scores: bool

    def __call__(self, pair: Pair) -> tuple[FrameDone | FrameFailed, dict[str, float]]:
        watch = Stopwatch()
        try:
            with watch.part("reading"):
                clip = self.dataset.clip(pair)
        except DataError as error:
            return FrameFailed(pair[0].key, str(error)), {}
        frame = clip.first
        look = self._at_image if isinstance(self.motion, ImageSegmenter) else self._at_clip
        instances, disparity, valid = look(clip, watch)
        with watch.part("semantics"):
            semantic = self.model(frame, disparity, valid)
        with watch.part("writing"):
            ids = instances.id_map()
            sizes = self._write(frame.key, ids, semantic)
            done = FrameDone(
                key=frame.key,
                scores=tuple(float(score) for score in instances.scores),
                extents=extents(ids, len(instances), disparity, valid, frame.calibration),
                aligned=count_classes(align(semantic.classes, ids), ids, self.model.num_classes),
                raw=count_classes(semantic.classes, ids, self.model.num_classes),
                parts=PartStatistics.zero() if semantic.parts is None else count_parts(semantic.parts, ids),
                sizes=sizes,
            )
        return done, watch.seconds

    def _at_clip(self, clip: StereoClip, watch: Stopwatch) -> Seen:
        """What moves, in the enlarged clip if it is small."""
        seen = clip if isinstance(self.correspondence, FileCorrespondence) else self.detail.enlarged(clip)
        with watch.part("correspondence"):
            fields = self.correspondence(seen)
            known = fields.disparity, fields.disparity_valid
            disparity, valid = known if seen is clip else self.correspondence.disparity(clip.first)
        with watch.part("motion"):
            instances = self.detail.finished(self.motion(seen, fields, self.seed), clip.first)
        return instances, disparity, valid

    def _at_image(self, clip: StereoClip, watch: Stopwatch) -> Seen:
        """What the first frame alone shows; no flow is computed."""
        assert isinstance(self.motion, ImageSegmenter)
        with watch.part("correspondence"):
            disparity, valid = self.correspondence.disparity(clip.first)
        with watch.part("motion"):
            instances = self.motion.objects(clip.first)
        return instances, disparity, valid

    def _write(self, key: str, ids: Int32[np.ndarray, "h w"], semantic: SemanticMap) -> dict[str, int]:
        """Writes the frame's images and gives the size of each [bytes]."""
        files = {
            "instances": self.out / "instances" / f"{key}.png",
            "semantics": self.out / "semantics" / f"{key}.png",
        }
        write_ids(files["instances"], ids, bits=16)
        write_semantic(files["semantics"], semantic.classes)
        if semantic.parts is not None:
            files["parts"] = self.out / "parts" / f"{key}.png"
            write_parts(files["parts"], semantic.parts)
        if self.keep_scores:
            files["scores"] = self.out / "scores" / f"{key}.npz"
            _write_scores(files["scores"], semantic.scores)
        return {name: path.stat().st_size for name, path in files.items()}


def _write_scores(path: Path, scores: np.ndarray | None) -> None:
    if scores is None:
        raise ConfigError("keep_scores: these semantics give classes but no scores; leave the option out")
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, scores=scores.astype(np.float16))


@dataclass(frozen=True)
class FuseFrame:
    """Item: (number, record, its line); writes the panoptic PNG of the frame and gives its entry in the index.

    Raises `ImageError` where an image of the store is damaged.
    """

    out: Path
    root: Path
    rule: FusionRule

    def __call__(self, item: tuple[int, FrameRecord, FrameDone]) -> Annotation:
        _, record, done = item
        name = f"{record.key}.png"
        try:
            semantic, ids = read_semantic(self.out / "semantics" / name), read_ids(self.out / "instances" / name)
            parts = read_parts(self.out / "parts" / name) if self.rule.movable else None
        except ImageError as error:
            raise ImageError(f"{error} (delete it and run the same command again)") from error
        label = self.rule.label(semantic, ids.astype(np.int32), parts, done.extents)
        segment_ids, segments = to_segments(label, self.rule.things, dict(enumerate(done.scores, 1)))
        write_map(self.out / PANOPTIC / name, segment_ids)
        height, width = ids.shape
        return Annotation(record.key, name, _image_name(record, self.root), height, width, segments)


def _image_name(record: FrameRecord, root: Path) -> str:
    """The left image, relative to the data set."""
    if isinstance(record.left, VideoFrame):
        return f"{os.path.relpath(record.left.path, root)}#{record.left.index}"
    return os.path.relpath(record.left, root)
