"""Stage 1b: pseudo classes, the "what" of every pixel without a single label.

A backbone says what pixels are like, a segmenter says which of some pseudo classes each is. `OfflineSemantics` needs no
download: geometry, colour and texture of the user's own stereo frames, clustered. Backbones with weights (DINO with the
DepthG head) fulfil the same protocols.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from cupola.semantics.offline import Described, OfflineModel, OfflineSemantics
from cupola.types import SemanticMap, StereoFrame

__all__ = ["Described", "OfflineModel", "OfflineSemantics", "SemanticSegmenter"]


@runtime_checkable
class SemanticSegmenter(Protocol):
    """Pseudo classes of the left image."""

    @property
    def num_classes(self) -> int:
        """Pseudo classes are 0 .. num_classes - 1."""
        ...

    def __call__(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> SemanticMap:
        """Class of every pixel, `VOID` where unknown. disparity: positive [px], read only where `valid`."""
        ...
