"""Which things move: from correspondence to masks of moving objects.

`EgoMotionSegmenter` subtracts the camera's own motion and tests what is left; `Sf2se3Segmenter` is the paper's method,
which draws rigid motions at random. Another method is one more class that fulfils `MotionSegmenter`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from cupola.motion.ego_motion import EgoMotionSegmenter
from cupola.motion.sf2se3 import Sf2se3Segmenter
from cupola.types import Correspondence, Instances, StereoClip

__all__ = ["EgoMotionSegmenter", "MotionSegmenter", "Sf2se3Segmenter"]


@runtime_checkable
class MotionSegmenter(Protocol):
    """Anything that finds moving objects."""

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """Objects on the clip's first frame. Repeatable: equal arguments give equal results."""
        ...
