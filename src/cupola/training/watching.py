"""What is looked at while a network learns: pictures of a fixed batch, and scores on frames with truth.

Both only watch: nothing is chosen by them, and a run's weights are the same without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cupola.data import FrameRecord, StereoDataset, open_dataset
from cupola.errors import DataError
from cupola.evaluation import Judged, evaluate_maps
from cupola.io import write_rgb
from cupola.io.coco_panoptic import from_segments
from cupola.models import IGNORE, SOME_THING, NetworkPrediction, PanopticModel, Target
from cupola.runs.metrics import Metrics
from cupola.taxonomy import CITYSCAPES_19
from cupola.training.record import Recorder
from cupola.training.sampler import Batch, to_tensor
from cupola.types import VOID, PanopticMap
from cupola.visualize import class_palette, panoptic_overlay

PICTURES, MONITORING = "pictures", "monitoring.jsonl"
SHOWN = 4
"""Most images of the batch that is drawn."""

PREDICTED_AT_ONCE = 4
"""Frames a forward pass (spec-network 2.8)."""

FRAMES = 100
"""Most frames with truth that are predicted each time, evenly out of all of them."""


@runtime_checkable
class Observer(Protocol):
    """Called by the first process after each step (from 1 on); share: of the run that is over, 0..1."""

    def after_step(self, step: int, share: float, network: PanopticModel, recorder: Recorder) -> None: ...


def target_map(target: Target, things: int) -> PanopticMap:
    """A target in the network's order of classes: thing 0.., then stuff; what it leaves open is void."""
    semantic = target.semantic.cpu().numpy()
    classes = np.where((semantic == IGNORE) | (semantic == SOME_THING), VOID, things + semantic - 1).astype(np.int16)
    instances = np.zeros(classes.shape, np.int32)
    for number, (mask, rank) in enumerate(zip(target.masks.cpu().numpy(), target.classes.tolist(), strict=True)):
        classes[mask], instances[mask] = rank, number + 1
    return PanopticMap(classes, instances)


def predicted_map(prediction: NetworkPrediction, things: int) -> PanopticMap:
    """A prediction in the same order of classes."""
    segments = [s if s.is_thing else replace(s, category=things + s.category - 1) for s in prediction.segments]
    return from_segments(prediction.panoptic.cpu().numpy(), segments)


@dataclass
class Pictures:
    """Draws a batch's images, targets and predictions `times` times over the run, into out/pictures/STEP.png."""

    out: Path
    batch: Batch
    times: int
    drawn: int = -1

    def after_step(self, step: int, share: float, network: PanopticModel, recorder: Recorder) -> None:
        """Draws if it is time to; the first and the last step are always drawn."""
        due = int(min(share, 1.0) * self.times)
        if due <= self.drawn:
            return
        self.drawn = due
        picture = self.draw(network)
        write_rgb(self.out / PICTURES / f"{step:06d}.png", picture)
        recorder.picture(step, "images, targets, predictions", picture)

    def draw(self, network: PanopticModel) -> UInt8[np.ndarray, "h w 3"]:
        """A row an image: as it is, its target, the prediction."""
        colors = class_palette(network.num_things + network.num_stuff)
        device = next(network.parameters()).device
        images = [image.to(device) for image in self.batch.images[:SHOWN]]
        rows = []
        for image, target, prediction in zip(images, self.batch.targets, network.predict(images), strict=False):
            pixels = _pixels(image)
            maps = (target_map(target, network.num_things), predicted_map(prediction, network.num_things))
            rows.append(np.hstack([pixels, *(panoptic_overlay(pixels, found, colors) for found in maps)]))
        return np.vstack(rows)


def _pixels(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray((image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


class Monitoring:
    """Scores the network on frames with truth every `every` steps, into out/monitoring.jsonl.

    The pseudo classes are matched to the 19 Cityscapes classes anew each time, as in the paper. The truth is seen by
    the reader alone: nothing is selected by these figures (spec-network 2.8).
    """

    def __init__(self, out: Path, data: Path, every: int, layout: str = "auto") -> None:
        """Raises `DataError` where no frame of the data set has truth."""
        self._dataset: StereoDataset = open_dataset(data, layout)
        records = [record for record in self._dataset.records if record.truth is not None]
        if not records:
            raise DataError(
                f"no frame of {data} has truth, so training cannot be validated on it; leave --validate out"
            )
        chosen = np.linspace(0, len(records) - 1, min(FRAMES, len(records))).round().astype(int)
        self._records: list[FrameRecord] = [records[number] for number in chosen]
        self._out, self._every = out, every
        self._file: Metrics | None = None

    def after_step(self, step: int, share: float, network: PanopticModel, recorder: Recorder) -> None:
        """Scores it if it is time to, and after the last step."""
        if step % self._every and share < 1:
            return
        if self._file is None:
            self._file = Metrics(self._out, step - 1, MONITORING)
        scores = self.scores(network)
        self._file.write(step, **scores)
        recorder.scalars(step, {f"monitoring/{name}": value for name, value in scores.items()})

    def scores(self, network: PanopticModel) -> dict[str, float]:
        """PQ (both protocols), PQ of things and stuff, mIoU in [0, 1], over `frames` frames."""
        things = network.num_things
        kinds = np.arange(things + network.num_stuff) < things
        judged = []
        for start in range(0, len(self._records), PREDICTED_AT_ONCE):
            records = self._records[start : start + PREDICTED_AT_ONCE]
            for record, found in zip(records, self._predicted(network, records), strict=True):
                truth = self._dataset.truth(record, CITYSCAPES_19)
                if truth is not None:
                    found, truth = self._dataset.judged(record, found, truth)
                    judged.append(Judged(record.key, found, truth))
        matched = evaluate_maps(judged, CITYSCAPES_19, kinds).matched
        return {
            "pq": matched.standard.all.pq,
            "pq_things": matched.standard.things.pq,
            "pq_stuff": matched.standard.stuff.pq,
            "pq_published": matched.published.all.pq,
            "miou": matched.semantic_standard.miou,
            "frames": float(len(judged)),
        }

    def _predicted(self, network: PanopticModel, records: Sequence[FrameRecord]) -> list[PanopticMap]:
        device = next(network.parameters()).device
        images = [to_tensor(self._dataset.left(record)).to(device) for record in records]
        with torch.no_grad():
            return [predicted_map(prediction, network.num_things) for prediction in network.predict(images)]
