"""What a dense CRF is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cupola.errors import ConfigError


@dataclass(frozen=True)
class CrfSettings:
    """Two Gaussian kernels, how much each weighs, and how long to iterate. The values are the published ones of stage 1
    (spec-stage1 5.4); MaskCut's are spatial 3 and 7, bilateral 50, 5 and 10.

    Args:
        spatial_sigma: Reach of the smoothness kernel [px].
        spatial_weight: Weight of the smoothness kernel against the unary term; 0 switches it off.
        bilateral_sigma: Reach in the image of the appearance kernel [px].
        colour_sigma: Reach in each colour channel of the appearance kernel [grey levels of 255].
        bilateral_weight: Weight of the appearance kernel; 0 switches it off.
        steps: Mean field iterations; with 0 the probabilities are only clipped and normalised.
        smallest_probability: Lower probabilities are raised to this, so that no pixel is certain.
    """

    spatial_sigma: float = 1.0
    spatial_weight: float = 3.0
    bilateral_sigma: float = 67.0
    colour_sigma: float = 3.0
    bilateral_weight: float = 4.0
    steps: int = 10
    smallest_probability: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("spatial_sigma", "bilateral_sigma", "colour_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"The CRF's {name} is {value}, but must be a positive number.")
        for name in ("spatial_weight", "bilateral_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"The CRF's {name} is {value}, but must be 0 or a positive number.")
        if self.steps < 0:
            raise ConfigError(f"The CRF's steps is {self.steps}, but must be 0 or more.")
        if not 0 < self.smallest_probability < 1:
            raise ConfigError(
                f"The CRF's smallest_probability is {self.smallest_probability}, but must lie between 0 and 1."
            )
