"""Layers that several parts of the network share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

GROUPS = 32
"""Groups of a GroupNorm (spec-network 1.9); fewer where the channels do not divide."""


class NormedConv(nn.Conv2d):
    """A convolution without bias, its norm (as `.norm`) and, if asked for, a ReLU; keeps the size at stride 1."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = False, group_norm: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        groups = GROUPS if outputs % GROUPS == 0 else 8 if outputs % 8 == 0 else 1
        self.norm: nn.Module = nn.GroupNorm(groups, outputs) if group_norm else nn.BatchNorm2d(outputs)
        self.relu = relu
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:
        output = self.norm(super().forward(input))
        return functional.relu_(output) if self.relu else output


def zero_bias(layer: nn.Module) -> None:
    """Sets the bias of a convolution or linear layer to 0."""
    assert isinstance(layer.bias, Tensor)
    nn.init.zeros_(layer.bias)


def upsample(features: Tensor, factor: int) -> Tensor:
    """Bilinear enlargement, half-pixel convention (spec-network 1.9)."""
    return functional.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)


class Doubling(nn.Module):
    """Bilinear enlargement by two, as a layer without parameters."""

    def forward(self, features: Tensor) -> Tensor:
        return upsample(features, 2)
