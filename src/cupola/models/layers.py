"""Layers that several parts of the network share."""

from __future__ import annotations

import torch
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


class Separable(nn.Module):
    """A 3x3 convolution as depthwise and pointwise ones: on a CPU a fifth of the time of a full one at 64 channels
    (forward and backward; benchmarks/network.py)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=bias)
        nn.init.kaiming_normal_(self.depthwise.weight, nonlinearity="linear")
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="relu")
        if bias:
            zero_bias(self.pointwise)

    def forward(self, features: Tensor) -> Tensor:
        return torch.as_tensor(self.pointwise(self.depthwise(features)))


class NormedSeparable(Separable):
    """`Separable` with a BatchNorm and, if asked for, a ReLU."""

    def __init__(self, inputs: int, outputs: int, *, relu: bool = False) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, features: Tensor) -> Tensor:
        output = self.norm(super().forward(features))
        return functional.relu_(output) if self.relu else torch.as_tensor(output)


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


def freeze_norms(network: nn.Module) -> None:
    """Makes every BatchNorm of `network` a constant: running statistics instead of the batch's, which stay as they are,
    and no gradient for scale and shift (stage 3; spec-network 1.3). `network.train()` undoes the first half, so call
    this after it. GroupNorm has no statistics to freeze and stays as it is."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
