"""A vision transformer as trunk, and the simple feature pyramid over its last features (ViTDet: Li et al., "Exploring
Plain Vision Transformer Backbones for Object Detection", 2022, section 3).
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from cupola.errors import ConfigError
from cupola.models.layers import Separable
from cupola.models.settings import VitSettings
from cupola.semantics.backbones.loading import untrained_backbone
from cupola.semantics.backbones.networks import DinoResnet, DinoVit, TimmBackbone
from cupola.semantics.backbones.weights import load_weights, read_weights

STRIDES = (4, 8, 16, 32)
"""Of the pyramid's levels P2 to P5 [px]."""

CELLS = {8: 8, 14: 16, 16: 16, 32: 32}
"""Patch of a transformer [px] -> what it becomes in the image [px]. Levels at strides 4 to 32 need a power of two, so
images are shrunk by 14 / 16 for the cells of DINOv2."""


class VitTrunk(nn.Module):
    """The transformer: images to one map of features at stride `cell`.

    Frozen, it is in evaluation mode always, takes no gradient, and gives none. Where images of several sizes share a
    batch, their padding is seen by every cell: attention is global.
    """

    def __init__(self, settings: VitSettings) -> None:
        super().__init__()
        sizes = {} if settings.sizes is None else asdict(settings.sizes)
        backbone = untrained_backbone(settings.architecture, **sizes)
        if isinstance(backbone, DinoResnet):
            raise ConfigError(f"{settings.architecture} is no transformer; the preset `paper` has that trunk")
        if backbone.patch not in CELLS:
            raise ConfigError(
                f"the feature pyramid wants a transformer with cells of {', '.join(map(str, CELLS))} px, but those of "
                f"{settings.architecture} are {backbone.patch} px; choose another architecture"
            )
        self.settings = settings
        self.vit: DinoVit | TimmBackbone = backbone
        self.cell = CELLS[backbone.patch]
        self.channels = backbone.channels
        self.requires_grad_(not settings.frozen)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Sides must be multiples of 32; colours are ImageNet's normalised. Returns one map, b x channels x h / cell x
        w / cell."""
        if self.vit.patch != self.cell:
            size = [side * self.vit.patch // self.cell for side in images.shape[-2:]]
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.settings.frozen):
            return [self.vit.cells(images)]

    def train(self, mode: bool = True) -> VitTrunk:
        """As of any module, but a frozen trunk stays in evaluation mode."""
        return super().train(mode and not self.settings.frozen)

    def load(self, path: Path) -> None:
        """Weights as they were published (docs/weights.md). Raises `CheckpointError` where they do not fit."""
        load_weights(self.vit.network, read_weights(path), path, self.settings.architecture)
        self.requires_grad_(not self.settings.frozen)


class SimpleFeaturePyramid(nn.Module):
    """Trunk and pyramid: each level comes of the last features alone, enlarged by transposed convolutions or reduced
    by max-pooling, then a 1x1 and a 3x3 convolution, each with a LayerNorm over the channels and no activation."""

    def __init__(self, settings: VitSettings, channels: int, *, with_p6: bool, separable: bool) -> None:
        super().__init__()
        self.bottom_up = VitTrunk(settings)
        self.with_p6 = with_p6
        for stride in STRIDES:
            doublings = int(math.log2(self.bottom_up.cell / stride))
            resized, width = _resizing(self.bottom_up.channels, doublings)
            convolution = (
                Separable(channels, channels, bias=False)
                if separable
                else nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            )
            level = nn.Sequential(
                *resized,
                nn.Conv2d(width, channels, 1, bias=False),
                LayerNorm2d(channels),
                convolution,
                LayerNorm2d(channels),
            )
            for module in level:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=1)
            self.add_module(f"sfp_{stride}", level)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Sides must be multiples of 32. Returns P2, P3, P4, P5 and perhaps P6, strides 4 to 64."""
        return self.pyramid(self.bottom_up(images))

    def pyramid(self, trunk: list[Tensor]) -> list[Tensor]:
        """The levels of the trunk's only map."""
        levels = [self.get_submodule(f"sfp_{stride}")(trunk[0]) for stride in STRIDES]
        return [*levels, functional.max_pool2d(levels[-1], 1, 2)] if self.with_p6 else levels


def _resizing(channels: int, doublings: int) -> tuple[list[nn.Module], int]:
    """Layers that double the sides so many times, or halve them where negative; and the channels they end with.
    Each doubling halves the channels; between two of them stand a LayerNorm and a GELU."""
    layers: list[nn.Module] = [nn.MaxPool2d(2, 2) for _ in range(-doublings)]
    for number in range(doublings):
        if number:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    return layers, channels
