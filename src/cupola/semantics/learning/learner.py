"""Head and probe while they learn: their losses, and the features' scale put into the head at the end."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from cupola.semantics.clustering import weighted_kmeans
from cupola.semantics.depthg.head import ClusterProbe, DepthgHead
from cupola.semantics.learning.batches import Batch
from cupola.semantics.learning.correlation import (
    centred,
    correlation,
    correspondence_loss,
    depth_correlation,
    probe_loss,
)
from cupola.semantics.learning.settings import SmallRecipe


class Learner(nn.Module):
    """The head on standardised features, and the probe. centre, deviation: of the features."""

    def __init__(
        self, head: DepthgHead, probe: ClusterProbe, centre: Float32[Tensor, "c"], deviation: Float32[Tensor, "c"]
    ) -> None:
        super().__init__()
        self.head, self.probe = head, probe
        self.centre: Tensor
        self.deviation: Tensor
        self.register_buffer("centre", centre)
        self.register_buffer("deviation", deviation)

    def standardised(self, features: Float32[Tensor, "b n c"]) -> Float32[Tensor, "b n c"]:
        return (features - self.centre) / self.deviation

    def codes(self, features: Float32[Tensor, "b n c"]) -> Float32[Tensor, "b n d"]:
        """Codes of standardised features."""
        code: Tensor = self.head(features.transpose(1, 2)[..., None])
        return code[..., 0].transpose(1, 2)

    def losses(
        self, batch: Batch, step: int, settings: SmallRecipe, generator: torch.Generator, probing: bool
    ) -> dict[str, Float32[Tensor, ""]]:
        """The weighted terms of a step (spec-stage1 5.5), whose sum is learnt from; `probe` learns from detached codes.

        Codes are made of the features at the sampled positions, where the published code samples a grid of codes: the
        linear part of the head gives the same, and a step costs a sixth.
        """
        anchors, positives = self.standardised(batch.features), self.standardised(batch.positives)
        code = self.codes(dropped(anchors, settings.dropout, generator))
        code_positive = self.codes(dropped(positives, settings.dropout, generator))
        feature = dropped(anchors, settings.dropout, generator)
        feature_positive = dropped(positives, settings.dropout, generator)

        def pulled(other: Tensor, other_code: Tensor, shift: float) -> Tensor:
            alike = correlation(feature, other)
            alike = centred(alike) if settings.pointwise else alike
            return correspondence_loss(alike, correlation(code, other_code), shift)

        intra, inter, negative, depth = settings.intra, settings.inter, settings.negative, settings.depth.at(step)
        losses = {}
        if intra.weight:
            losses["intra"] = intra.weight * pulled(feature, code, intra.shift)
        if inter.weight:
            losses["inter"] = inter.weight * pulled(feature_positive, code_positive, inter.shift)
        if negative.weight:
            each = [pulled(feature[other], code[other], negative.shift) for other in batch.negatives]
            losses["negative"] = negative.weight * torch.stack(each).mean()
        if depth.weight:
            losses["depth"] = depth.weight * depth_loss(batch.depth, code, depth.shift, settings)
        if probing:
            losses["probe"] = probe_loss(code.detach().flatten(0, 1), self.probe.clusters)
        return losses

    def folded(self) -> DepthgHead:
        """The head for features as they come from the backbone: their scale is put into its first layers."""
        state = {name: value.detach().cpu() for name, value in self.head.state_dict().items()}
        centre, deviation = self.centre.cpu().double(), self.deviation.cpu().double()
        for layer in ("cluster1.0", "cluster2.0"):
            weight = state[f"{layer}.weight"].double() / deviation[None, :, None, None]
            state[f"{layer}.bias"] = (state[f"{layer}.bias"].double() - weight[:, :, 0, 0] @ centre).float()
            state[f"{layer}.weight"] = weight.float()
        head = DepthgHead(len(centre), len(state["cluster1.0.bias"]))
        head.load_state_dict(state)
        return head


def dropped(features: Float32[Tensor, "b n c"], share: float, generator: torch.Generator) -> Float32[Tensor, "b n c"]:
    """Features with a share of the channels of each view left out, the others enlarged to make up for it."""
    kept = torch.rand(features.shape[0], 1, features.shape[2], generator=generator) >= share
    return features * kept.to(features) / (1 - share)


def depth_loss(
    depth: Float32[Tensor, "b n"], code: Float32[Tensor, "b n d"], shift: float, settings: SmallRecipe
) -> Float32[Tensor, ""]:
    """The term of the depth, between positions of one view; pairs with an unknown depth take no part."""
    pairs = correlation(code, code)
    if settings.depth.correlation == "constant":
        return correspondence_loss(torch.ones_like(pairs), pairs, shift)
    alike, weight = depth_correlation(depth, depth, settings.depth.temperature)
    return correspondence_loss(centred(alike, weight), pairs, shift, weight)


def first_centres(
    codes: Float32[np.ndarray, "n d"], classes: int, rng: np.random.Generator
) -> Float32[np.ndarray, "k d"]:
    """Where the probe's centres begin: k-means on codes of length 1, begun with k-means++, so that no centre starts far
    from all codes and stays there. Where there are fewer distinct codes than classes, the rest has random values."""
    unit = codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), np.float32(1e-12))
    centres, _ = weighted_kmeans(unit.astype(np.float64), np.ones(len(unit)), classes, rng)
    missing = rng.standard_normal((classes - len(centres), codes.shape[1]))
    return np.concatenate([centres, missing]).astype(np.float32)
