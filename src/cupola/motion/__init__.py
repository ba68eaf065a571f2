"""Which things move: from correspondence to masks of moving objects.

`EgoMotionSegmenter` subtracts the camera's own motion and tests what is left; `Sf2se3Segmenter` is the paper's method,
which draws rigid motions at random. Two see no motion at all, and the paper compares with both: `MaskCutSegmenter` cuts
single images into objects, `MasksFromFile` takes what another network has found in them. Another method is one more
frozen dataclass of settings that fulfils `MotionSegmenter`, and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol, runtime_checkable

from cupola.config import OneOf
from cupola.motion.ego_motion import EgoMotionSegmenter
from cupola.motion.maskcut import MaskCutSegmenter
from cupola.motion.masks_from_file import MasksFromFile
from cupola.motion.sf2se3 import PublishedSf2se3Segmenter, Sf2se3Segmenter
from cupola.types import Correspondence, Instances, StereoClip, StereoFrame

__all__ = [
    "METHODS",
    "AnyMotion",
    "EgoMotionSegmenter",
    "ImageSegmenter",
    "MaskCutSegmenter",
    "MasksFromFile",
    "MotionSegmenter",
    "PublishedSf2se3Segmenter",
    "Sf2se3Segmenter",
]


@runtime_checkable
class MotionSegmenter(Protocol):
    """Anything that finds moving objects."""

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """Objects on the clip's first frame. Repeatable: equal arguments give equal results."""
        ...


@runtime_checkable
class ImageSegmenter(Protocol):
    """A segmenter that looks at single images: it needs no second frame, and its masks stay as they were found."""

    def objects(self, frame: StereoFrame) -> Instances:
        """Objects on the frame's left image."""
        ...


METHODS: Mapping[str, type] = {
    method.name: method
    for method in (EgoMotionSegmenter, Sf2se3Segmenter, PublishedSf2se3Segmenter, MaskCutSegmenter, MasksFromFile)
}
"""What `--motion NAME` can be."""

AnyMotion = Annotated[MotionSegmenter, OneOf(METHODS)]
