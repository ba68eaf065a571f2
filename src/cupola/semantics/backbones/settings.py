"""Which backbone, and the sizes of the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from cupola.errors import ConfigError

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet, RGB in [0, 1]: what DINO was trained with (spec-stage1 5.1)."""

TRAINED_SIDE = 224
"""Side of the images that DINO's table of positions was made for [px]."""


@dataclass(frozen=True)
class VitSizes:
    """Sizes of a vision transformer: patch [px], width and depth, attention heads, cells a side of its table of
    positions."""

    patch: int
    width: int
    depth: int
    heads: int
    grid: int


def dino_sizes(patch: int, width: int) -> VitSizes:
    """Of DINO's transformers: 12 blocks, 64 channels a head (spec-stage1 5.1)."""
    return VitSizes(patch, width, depth=12, heads=width // 64, grid=TRAINED_SIDE // patch)


DINO_VITS: Mapping[str, VitSizes] = {
    f"dino_vit{letter}{patch}": dino_sizes(patch, width)
    for letter, width in (("s", 384), ("b", 768))
    for patch in (8, 16)
}

DINO_RESNET = "dino_resnet50"


@dataclass(frozen=True)
class BackboneSettings:
    """Which backbone, and where its weights lie. Raises `ConfigError` for a DINO that is not known.

    Args:
        architecture: dino_vits8, dino_vits16, dino_vitb8, dino_vitb16, dino_resnet50, or a name that timm knows.
        weights: file of its weights, as its publisher gives it (`docs/weights.md`); never downloaded.
        level: group of blocks of dino_resnet50 whose output is taken: 2, 3 or 4, with cells of 8, 16 or 32 px.
    """

    architecture: str = "dino_vitb8"
    weights: Path | None = None
    level: int = 3

    def __post_init__(self) -> None:
        known = (*DINO_VITS, DINO_RESNET)
        if self.architecture.startswith("dino_") and self.architecture not in known:
            near = get_close_matches(self.architecture, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"there is no backbone `{self.architecture}`, known are {', '.join(known)}{hint}")
        if self.level not in (2, 3, 4):
            raise ConfigError(f"the level of a ResNet backbone must be 2, 3 or 4, not {self.level}")
