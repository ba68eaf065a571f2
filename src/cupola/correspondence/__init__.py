"""Where pixels go: from two stereo frames to flow and disparity, and which of it is to be trusted.

`ClassicalCorrespondence` needs no weights, `RaftCorrespondence` runs RAFT or SMURF, `FileCorrespondence` reads what
any other network has found. One more is a frozen dataclass of settings that fulfils `CorrespondenceProvider`, and a
line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from cupola.config import OneOf
from cupola.correspondence.classical import ClassicalCorrespondence
from cupola.correspondence.files import FileCorrespondence
from cupola.correspondence.raft import RaftCorrespondence
from cupola.types import Correspondence, StereoClip, StereoFrame

__all__ = [
    "METHODS",
    "AnyCorrespondence",
    "ClassicalCorrespondence",
    "CorrespondenceProvider",
    "FileCorrespondence",
    "NeedsFiles",
    "RaftCorrespondence",
]


@runtime_checkable
class CorrespondenceProvider(Protocol):
    """Anything that finds flow and disparity."""

    def __call__(self, clip: StereoClip) -> Correspondence:
        """Flow both ways and the disparity of both frames."""
        ...

    def disparity(self, frame: StereoFrame) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Disparity of the left image [px, positive, NaN where unknown] and where it is known."""
        ...


@runtime_checkable
class NeedsFiles(Protocol):
    """A part of stage 1 that needs files (weights, fields) and can look for them before any work."""

    def check(self, keys: Sequence[tuple[str, str]]) -> None:
        """keys: of the pairs of frames that will be asked for. Raises the `CupolaError` that they would meet."""
        ...


METHODS: Mapping[str, type] = {
    method.name: method for method in (ClassicalCorrespondence, FileCorrespondence, RaftCorrespondence)
}
"""What `--correspondence NAME` can be."""

AnyCorrespondence = Annotated[CorrespondenceProvider, OneOf(METHODS)]
