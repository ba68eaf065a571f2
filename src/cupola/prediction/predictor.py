"""`cupola.load(name)(image)`: a network ready for images, and what it says of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, UInt8

from cupola.devices import pick_device
from cupola.io import read_rgb
from cupola.io.coco_panoptic import Category, from_segments, ids_to_rgb, to_segments
from cupola.models import NetworkPrediction, PanopticModel
from cupola.types import Instances, PanopticMap, Segment
from cupola.visualize import Color, class_palette, panoptic_overlay
from cupola.weights.finding import find_network


@dataclass(frozen=True)
class ClassSystem:
    """The pseudo classes of a network: names, colours and which are things, indexed by pseudo class id."""

    names: tuple[str, ...]
    things: tuple[int, ...]
    stuff: tuple[int, ...]
    colors: tuple[Color, ...]

    def categories(self) -> list[Category]:
        """As COCO panoptic categories."""
        return [
            Category(c, self.names[c], c in self.things, self.colors[c]) for c in sorted({*self.things, *self.stuff})
        ]


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image. panoptic: pseudo class and instance of every pixel; segments: one a thing
    instance or stuff class, ids as in `ids`; instances: the accepted things, best first."""

    image: UInt8[np.ndarray, "h w 3"]
    panoptic: PanopticMap
    segments: tuple[Segment, ...]
    instances: Instances
    classes: ClassSystem

    def to_coco(self) -> tuple[UInt8[np.ndarray, "h w 3"], list[dict[str, Any]]]:
        """The 24-bit id image and the `segments_info` of COCO panoptic."""
        ids, segments = self.segment_ids()
        return ids_to_rgb(ids), [
            {"id": s.id, "category_id": s.category, "isthing": int(s.is_thing), "area": s.area, "score": s.score}
            for s in segments
        ]

    def overlay(self) -> UInt8[np.ndarray, "h w 3"]:
        """The panoptic map over the image, instances outlined."""
        return panoptic_overlay(self.image, self.panoptic, self.classes.colors)

    def segment_ids(self) -> tuple[Int32[np.ndarray, "h w"], tuple[Segment, ...]]:
        """Segment ids as COCO panoptic wants them (0 = void), and what they mean."""
        scores = {s.id: s.score for s in self.segments if s.is_thing and s.score is not None}
        return to_segments(self.panoptic, self.classes.things, scores)


@dataclass(frozen=True)
class Predictor:
    """A network ready for images. threshold: score from which an object counts."""

    network: PanopticModel
    classes: ClassSystem
    device: torch.device
    threshold: float = 0.5

    def __call__(self, image: UInt8[np.ndarray, "h w 3"] | str | Path) -> Prediction:
        """The panoptic map of one image (uint8 H×W×3 RGB, or the path of a file). Raises `ImageError`."""
        pixels = image if isinstance(image, np.ndarray) else read_rgb(Path(image))
        return self.batch([pixels])[0]

    def batch(self, images: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> list[Prediction]:
        """The panoptic maps of several images, which may differ in size."""
        tensors = [
            torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1).float() / 255
            for image in images
        ]
        raw = self.network.predict(tensors, score_threshold=self.threshold)
        return [self._prediction(image, result) for image, result in zip(images, raw, strict=True)]

    def _prediction(self, image: UInt8[np.ndarray, "h w 3"], raw: NetworkPrediction) -> Prediction:
        """Network classes become the pseudo classes of the labels it learnt from (spec-network 1.12)."""
        segments = tuple(
            replace(s, category=self.classes.things[s.category] if s.is_thing else self.classes.stuff[s.category - 1])
            for s in raw.segments
        )
        panoptic = from_segments(raw.panoptic.cpu().numpy(), segments)
        things = [s for s in segments if s.is_thing]
        masks = np.zeros((len(things), *image.shape[:2]), bool)
        for mask, thing in zip(masks, things, strict=True):
            mask[:] = panoptic.instances == thing.id
        scores = np.array([s.score or 0.0 for s in things], np.float32)
        return Prediction(image, panoptic, segments, Instances(masks, scores), self.classes)


def load(name: str | Path, *, device: str = "auto", threshold: float = 0.5) -> Predictor:
    """A predictor from a network, wherever it is.

    Args:
        name: directory that `cupola train` or `cupola weights convert` wrote; a published checkpoint; a name of
            `cupola weights list` such as `cups`; or a repository of the Hugging Face hub, as user/name. What exists on
            this machine goes first; the last two are fetched once.
        device: auto, cpu or cuda.
        threshold: score from which an object counts.

    Raises:
        CheckpointError: there is no such network, or it is damaged.
        DownloadError: it is not on this machine and cannot be fetched.
    """
    network, card = find_network(name)
    things, stuff = tuple(card["things"]), tuple(card["stuff"])
    count = max((*things, *stuff), default=-1) + 1
    given = card.get("class_names") or {}
    names = tuple(str(given.get(str(i), f"class {i}")) for i in range(count))
    place = pick_device(device)
    classes = ClassSystem(names, things, stuff, class_palette(count))
    return Predictor(network.to(place).eval(), classes, place, threshold)
