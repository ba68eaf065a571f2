"""The settings of pseudo classes by DepthG, with the published numbers (spec-stage1 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cupola.errors import ConfigError

Form = Literal["paper", "published"]
Scales = Literal["depth-guided", "mean", "low", "high"]
Window = Literal["half", "square"]
Space = Literal["log", "prob"]


@dataclass(frozen=True)
class DepthgSettings:
    """How pseudo classes are read off a DepthG network, at two scales.

    Args:
        weights: `depthg.ckpt` as published, or a file that cupola has written; it decides how many classes there are.
        scales: which passes count. `low` looks at the whole small image, `high` at windows of the large one;
            `depth-guided` weighs them by 1 / (depth + 1 m), `mean` equally.
        window: `half` the image's height and width, or `square`, half its shorter side.
        space: what is averaged, `log`-probabilities as the published code does or `prob`abilities as the paper writes.
        flip_low: average the low pass with that of the mirrored image.
        low: shorter side of the image of the low pass [px].
        high: shorter side of the image of the high pass [px].
        crf: let the classes follow the image's edges by a dense CRF.
        batch: windows at once; 0 = automatic.
        device: auto, cpu or cuda.
        form: `paper` does what the paper means; `published` repeats the published code: passes at the image's own size
            and half of it (`low` and `high` are not read), windows padded on both sides, zero disparity taken for near,
            bytes cut off before the CRF.
    """

    weights: Path
    scales: Scales = "depth-guided"
    window: Window = "half"
    space: Space = "log"
    flip_low: bool = True
    low: int = 320
    high: int = 640
    crf: bool = True
    batch: int = 0
    device: str = "auto"
    form: Form = "paper"

    def __post_init__(self) -> None:
        if self.low < 1 or self.high < 1:
            raise ConfigError(f"semantics.low and semantics.high must be at least 1 px, not {self.low} and {self.high}")
        if self.batch < 0:
            raise ConfigError(f"semantics.batch must be 0 (automatic) or more, not {self.batch}")

    @property
    def published(self) -> bool:
        """Whether the published code's behaviour is wanted."""
        return self.form == "published"
