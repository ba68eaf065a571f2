"""The feature pyramid over the trunk (spec-network 1.4): P2 to P5, and P6 where asked for."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cupola.models.layers import NormedConv, NormedSeparable
from cupola.models.resnet import ResNet
from cupola.models.settings import TrunkSettings, VitSettings
from cupola.models.vit import SimpleFeaturePyramid

LEVELS = (2, 3, 4, 5)
"""Levels that have a lateral convolution; level k has stride 2^k."""


def make_pyramid(
    settings: TrunkSettings | VitSettings, channels: int, *, with_p6: bool, separable: bool
) -> FeaturePyramid | SimpleFeaturePyramid:
    """The pyramid that belongs to a trunk, with the trunk in it."""
    if isinstance(settings, VitSettings):
        return SimpleFeaturePyramid(settings, channels, with_p6=with_p6, separable=separable)
    return FeaturePyramid(settings, channels, with_p6=with_p6, separable=separable)


class FeaturePyramid(nn.Module):
    """Trunk and pyramid; BatchNorm after every convolution, no activation."""

    def __init__(self, settings: TrunkSettings, channels: int, *, with_p6: bool, separable: bool) -> None:
        super().__init__()
        self.bottom_up = ResNet(settings)
        self.with_p6 = with_p6
        for level, inputs in zip(LEVELS, settings.channels, strict=True):
            self.add_module(f"fpn_lateral{level}", NormedConv(inputs, channels, 1))
            output = NormedSeparable(channels, channels) if separable else NormedConv(channels, channels, 3)
            self.add_module(f"fpn_output{level}", output)
        for module in self.children():
            if isinstance(module, NormedConv):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Sides must be multiples of 32. Returns P2, P3, P4, P5 and perhaps P6, strides 4 to 64."""
        return self._pyramid(self.bottom_up(images))

    def pyramid(self, trunk: list[Tensor]) -> list[Tensor]:
        """The levels of C2, C3, C4, C5."""
        return self._pyramid(list(trunk))

    def _pyramid(self, trunk: list[Tensor]) -> list[Tensor]:
        """Takes the features out of the list, so that they are freed as early as may be: C2 is large."""
        merged: Tensor | None = None
        pyramid = []
        for level in reversed(LEVELS):
            lateral = self.get_submodule(f"fpn_lateral{level}")(trunk.pop())
            merged = lateral if merged is None else lateral.add_(functional.interpolate(merged, scale_factor=2.0))
            pyramid.append(self.get_submodule(f"fpn_output{level}")(merged))
        pyramid.reverse()
        if self.with_p6:
            pyramid.append(functional.max_pool2d(pyramid[-1], 1, 2))
        return pyramid
