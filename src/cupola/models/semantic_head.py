"""The semantic head (spec-network 1.9): pyramid to logits at stride 4.

Channel 0 is "some thing", the stuff classes follow.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cupola.models.fpn import LEVELS
from cupola.models.layers import Doubling, NormedConv, NormedSeparable, upsample, zero_bias
from cupola.models.settings import SemanticHeadSettings

STRIDE = 4
"""Stride of the logits [px]."""


class SemanticHead(nn.Module):
    """Layout `per_level`: p2..p5 are convolutions with GroupNorm and doublings up to stride 4, then summed. Layout
    `summed`: the levels are enlarged, summed, and convolved (`merged`)."""

    def __init__(self, inputs: int, num_stuff: int, settings: SemanticHeadSettings, *, separable: bool) -> None:
        super().__init__()
        self.settings = settings
        channels = settings.channels
        if settings.layout == "per_level":
            for level in LEVELS:
                layers: list[nn.Module] = []
                for number in range(max(1, level - 2)):
                    source = inputs if number == 0 else channels
                    layers.append(NormedConv(source, channels, 3, relu=True, group_norm=True))
                    if level > 2:
                        layers.append(Doubling())
                self.add_module(f"p{level}", nn.Sequential(*layers))
        else:
            sources = [inputs] + [channels] * (settings.convolutions - 1)
            self.merged = nn.Sequential(
                *(
                    NormedSeparable(source, channels, relu=True)
                    if separable
                    else NormedConv(source, channels, 3, relu=True)
                    for source in sources
                )
            )
        self.predictor = nn.Conv2d(channels, num_stuff + 1, 1)
        nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")
        zero_bias(self.predictor)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "b k h w"]:
        """Logits at stride 4 of P2 to P5 (further levels are not read)."""
        levels = dict(zip(LEVELS, features, strict=False))
        if self.settings.layout == "per_level":
            total = self.get_submodule(f"p{LEVELS[0]}")(levels[LEVELS[0]])
            for level in LEVELS[1:]:
                total = self.get_submodule(f"p{level}")(levels[level]).add_(total)
        else:
            total = levels[LEVELS[-1]]
            for level in reversed(LEVELS[:-1]):  # doubling after each sum is cheaper than enlarging every level alone
                total = upsample(total, 2) + levels[level]
            total = self.merged(total)
        return torch.as_tensor(self.predictor(total))
