"""The trunk: a ResNet of bottlenecks (the paper's ResNet-50) or of basic blocks (small).

Modules carry the published names (spec-network 1.13).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cupola.models.layers import NormedConv
from cupola.models.recompute import recomputed
from cupola.models.settings import TrunkSettings

RECOMPUTED = (2,)
"""Stages of bottlenecks that keep only the inputs of their blocks for the backward pass, as does the stem: their maps
are large and cheap."""


class Stem(nn.Module):
    """Stride 4. `seven`: 7x7 convolution and max-pool (paper); `threes`: two 3x3 convolutions, the first to half the
    channels."""

    def __init__(self, channels: int, kind: Literal["seven", "threes"]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "seven":
            self.conv1 = NormedConv(3, channels, 7, 2, relu=True)
        else:
            self.conv1 = NormedConv(3, channels // 2, 3, 2, relu=True)
            self.conv2 = NormedConv(channels // 2, channels, 3, 2, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv1(images)
        if self.kind == "seven":
            return functional.max_pool2d(features, 3, 2, 1)
        return torch.as_tensor(self.conv2(features))


class Block(nn.Module):
    """A residual block; the stride sits in the first 3x3 convolution, the shortcut is projected where sizes change."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool, project: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if project:
            self.shortcut = NormedConv(inputs, outputs, 1, stride)
        if bottleneck:
            self.conv1 = NormedConv(inputs, width, 1, relu=True)
            self.conv2 = NormedConv(width, width, 3, stride, relu=True)
            self.conv3 = NormedConv(width, outputs, 1)
        else:
            self.conv1 = NormedConv(inputs, width, 3, stride, relu=True)
            self.conv2 = NormedConv(width, width, 3)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.shortcut(features) if hasattr(self, "shortcut") else features
        output = self.conv2(self.conv1(features))
        if hasattr(self, "conv3"):
            output = self.conv3(output)
        return functional.relu_(output.add_(residual))


class ResNet(nn.Module):
    """Images to features at strides 4, 8, 16, 32."""

    def __init__(self, settings: TrunkSettings) -> None:
        super().__init__()
        bottleneck = settings.block == "bottleneck"
        self.recomputed = RECOMPUTED if bottleneck else ()
        self.stem = Stem(settings.stem, "seven" if bottleneck else "threes")
        inputs = settings.stem
        for stage, (count, width, outputs) in enumerate(
            zip(settings.blocks, settings.widths, settings.channels, strict=True)
        ):
            stride = 1 if stage == 0 else 2
            blocks = [Block(inputs, width, stride, bottleneck=bottleneck, project=stride > 1 or inputs != outputs)]
            blocks += [Block(outputs, width, 1, bottleneck=bottleneck, project=False) for _ in range(count - 1)]
            self.add_module(f"res{stage + 2}", nn.Sequential(*blocks))
            inputs = outputs

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Sides must be multiples of 32. Returns C2, C3, C4, C5."""
        results = []
        features = recomputed(self.stem, images, module=self.stem) if self.recomputed else self.stem(images)
        for stage in range(2, 6):
            for block in self.get_submodule(f"res{stage}").children():
                features = recomputed(block, features, module=block) if stage in self.recomputed else block(features)
            results.append(features)
        return results
