"""What a network says of one image, and the forms that other tools take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float16, Int16, Int32, UInt8

from cupola.errors import ConfigError
from cupola.io.coco_panoptic import ids_to_rgb
from cupola.prediction.classes import ClassSystem
from cupola.types import VOID, Instances, PanopticMap, Segment
from cupola.visualize import panoptic_overlay, with_legend

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image, in pseudo classes.

    panoptic: class and instance of every pixel after the merge, `VOID` where nothing was recognised; segments: one a
    thing instance (its id is the instance's) or stuff class; semantic: stuff class of every pixel by the semantic head
    alone, before the merge, `VOID` = it sees some thing; semantic_scores: its probabilities, of some thing first, then
    of `classes.stuff` in order, kept only on request.
    """

    image: UInt8[np.ndarray, "h w 3"]
    panoptic: PanopticMap
    segments: tuple[Segment, ...]
    semantic: Int16[np.ndarray, "h w"]
    semantic_scores: Float16[np.ndarray, "k h w"] | None
    classes: ClassSystem

    @cached_property
    def instances(self) -> Instances:
        """The things of the map, best first; their masks do not overlap."""
        things = [s for s in self.segments if s.is_thing]
        masks = np.zeros((len(things), *self.image.shape[:2]), bool)
        for mask, thing in zip(masks, things, strict=True):
            np.equal(self.panoptic.instances, thing.id, out=mask)
        return Instances(masks, np.array([s.score or 0.0 for s in things], np.float32))

    def segment_ids(self) -> Int32[np.ndarray, "h w"]:
        """Id of each pixel's segment, 0 = void."""
        of_class = np.zeros(len(self.classes.names) + 1, np.int32)  # the last entry is that of VOID = -1
        for segment in self.segments:
            if not segment.is_thing:
                of_class[segment.category] = segment.id
        return np.where(self.panoptic.instances > 0, self.panoptic.instances, of_class[self.panoptic.classes])

    def to_coco(self) -> tuple[UInt8[np.ndarray, "h w 3"], list[dict[str, Any]]]:
        """The 24-bit id image and the `segments_info` of COCO panoptic."""
        return ids_to_rgb(self.segment_ids()), [
            {"id": s.id, "category_id": s.category, "isthing": int(s.is_thing), "area": s.area, "score": s.score}
            for s in self.segments
        ]

    def overlay(self, *, legend: bool = False) -> UInt8[np.ndarray, "_height _width 3"]:
        """The panoptic map over the image, instances outlined; with a legend of its classes in a strip below."""
        painted = panoptic_overlay(self.image, self.panoptic, self.classes.colors)
        return with_legend(painted, self.classes.legend({s.category for s in self.segments})) if legend else painted

    def to_supervision(self) -> supervision.Detections:
        """The things as `supervision.Detections`: boxes with inclusive corners [px], masks, scores, pseudo classes, and
        `class_name` among its data. Raises `ConfigError` where supervision is not installed."""
        try:
            from supervision import Detections, mask_to_xyxy
        except ImportError as error:
            raise ConfigError(
                "to_supervision() needs the library supervision; install it with `pip install 'cupola[supervision]'`"
            ) from error
        things = [s for s in self.segments if s.is_thing]
        return Detections(
            xyxy=mask_to_xyxy(self.instances.masks).astype(np.float32),
            mask=self.instances.masks,
            confidence=self.instances.scores,
            class_id=np.array([s.category for s in things], int),
            data={"class_name": np.array([self.classes.names[s.category] for s in things], str)},
        )


def stuff_classes(channels: Int16[np.ndarray, "h w"], classes: ClassSystem) -> Int16[np.ndarray, "h w"]:
    """Channels of the semantic head (0 = some thing) as pseudo classes, `VOID` = some thing."""
    table = np.array([VOID, *classes.stuff], np.int16)
    return np.take(table, channels)
