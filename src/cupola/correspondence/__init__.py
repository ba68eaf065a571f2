"""Where pixels go: from two stereo frames to flow and disparity, and which of it is to be trusted.

`ClassicalCorrespondence` needs no weights. Another flow or stereo network is one more class that fulfils
`CorrespondenceProvider`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from cupola.correspondence.classical import ClassicalCorrespondence
from cupola.types import Correspondence, StereoClip, StereoFrame

__all__ = ["ClassicalCorrespondence", "CorrespondenceProvider"]


@runtime_checkable
class CorrespondenceProvider(Protocol):
    """Anything that finds flow and disparity."""

    def __call__(self, clip: StereoClip) -> Correspondence:
        """Flow both ways and the disparity of both frames."""
        ...

    def disparity(self, frame: StereoFrame) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Disparity of the left image [px, positive, NaN where unknown] and where it is known."""
        ...
