"""Stage 1b: pseudo classes, the "what" of every pixel without a single label.

`OfflineSemantics` needs no download: geometry, colour and texture of the user's own stereo frames, clustered.
`DepthgSemantics` is the paper's way, DINO with the DepthG head, and needs their weights. Another method is one more
frozen dataclass of settings that fulfils `SemanticMethod`, and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from cupola.config import OneOf
from cupola.semantics.depthg.method import DepthgSemantics, PublishedDepthgSemantics
from cupola.semantics.offline import Described, OfflineModel, OfflineSemantics
from cupola.types import SemanticMap, StereoFrame

__all__ = [
    "METHODS",
    "AnySemantics",
    "DepthgSemantics",
    "Described",
    "OfflineModel",
    "OfflineSemantics",
    "PublishedDepthgSemantics",
    "SemanticMethod",
    "SemanticModel",
]


@runtime_checkable
class SemanticModel(Protocol):
    """Pseudo classes of the left image, which can be kept."""

    @property
    def num_classes(self) -> int:
        """Pseudo classes are 0 .. num_classes - 1."""
        ...

    def __call__(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> SemanticMap:
        """Class of every pixel, `VOID` where unknown. disparity: positive [px], read only where `valid`."""
        ...

    def save(self, path: Path) -> None:
        """Writes the model."""
        ...


@runtime_checkable
class SemanticMethod(Protocol):
    """Settings that pseudo classes are fitted with, frame by frame, so that frames can be spread over processes."""

    def choose(self, count: int) -> list[int]:
        """Which of `count` frames to fit on; none where there is nothing to fit."""
        ...

    def describe(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], seed: int
    ) -> Any:
        """What fitting needs of one frame."""
        ...

    def fit_described(self, frames: Sequence[Any], seed: int) -> SemanticModel:
        """The model of described frames."""
        ...

    def load(self, path: Path) -> SemanticModel:
        """Reads back what a model of these semantics has saved. Raises `StoreError`."""
        ...


METHODS: Mapping[str, type] = {
    method.name: method for method in (OfflineSemantics, DepthgSemantics, PublishedDepthgSemantics)
}
"""What `--semantics NAME` can be."""

AnySemantics = Annotated[SemanticMethod, OneOf(METHODS)]
