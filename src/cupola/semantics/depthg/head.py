"""DepthG's head and probe: from a backbone's features to codes, from codes to pseudo classes (spec-stage1 5.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

SHARPNESS = 2.0
"""Factor of the cosines before the softmax. It is so small that even a perfect match among 27 orthogonal centres gets a
probability of 0.22 only (spec-stage1 5.2)."""


class DepthgHead(nn.Module):
    """Codes: a linear map of the features plus one with a hidden layer, cell by cell. Names as published."""

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.cluster1 = nn.Sequential(nn.Conv2d(channels, code_channels, 1))
        self.cluster2 = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, code_channels, 1)
        )

    def forward(self, features: Float32[Tensor, "b c rows columns"]) -> Float32[Tensor, "b d rows columns"]:
        code: Tensor = self.cluster1(features) + self.cluster2(features)
        return code


class ClusterProbe(nn.Module):
    """Centres of the pseudo classes among the codes; of random normal values until they are learnt or read."""

    def __init__(self, classes: int, code_channels: int) -> None:
        super().__init__()
        self.clusters = nn.Parameter(torch.randn(classes, code_channels))

    @property
    def classes(self) -> int:
        """Number of pseudo classes."""
        return len(self.clusters)

    def cosines(self, code: Float32[Tensor, "b d h w"]) -> Float32[Tensor, "b k h w"]:
        """Cosine of every code with every centre; 0 for a code of zeros."""
        centres = functional.normalize(self.clusters, dim=1)
        return torch.einsum("kd,bdhw->bkhw", centres, functional.normalize(code, dim=1))

    def log_probabilities(self, code: Float32[Tensor, "b d h w"]) -> Float32[Tensor, "b k h w"]:
        """Logarithm of the probability of every pseudo class."""
        return functional.log_softmax(SHARPNESS * self.cosines(code), dim=1)
