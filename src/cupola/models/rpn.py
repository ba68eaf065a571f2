"""The region proposal network (spec-network 1.5)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from cupola.models.boxes import (
    CodeWeights,
    clip_boxes,
    covered_share,
    decode_boxes,
    encode_boxes,
    has_area,
    match_boxes,
    sample,
    suppress,
)
from cupola.models.layers import Separable, zero_bias
from cupola.models.records import LossPart, Target
from cupola.models.settings import NegativeSettings, RpnSettings

ANCHOR_CODE: CodeWeights = (1.0, 1.0, 1.0, 1.0)
"""Box code weights of anchors (spec-network 1.5)."""


def level_anchors(
    height: int, width: int, stride: int, sizes: tuple[float, ...], ratios: tuple[float, ...], device: torch.device
) -> Float[Tensor, "n 4"]:
    """Anchors of a feature map of height x width, flattened as (y, x, size, ratio), not rounded; the first centre
    is the image corner (spec-network 1.5)."""
    shapes = []
    for size in sizes:
        for ratio in ratios:
            anchor_width = (size * size / ratio) ** 0.5
            anchor_height = ratio * anchor_width
            shapes.append((-anchor_width / 2, -anchor_height / 2, anchor_width / 2, anchor_height / 2))
    y = torch.arange(height, device=device, dtype=torch.float32) * stride
    x = torch.arange(width, device=device, dtype=torch.float32) * stride
    centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((centre_x, centre_y, centre_x, centre_y), -1).reshape(-1, 1, 4)
    return (centres + torch.tensor(shapes, device=device)).reshape(-1, 4)


class RpnHead(nn.Module):
    """One convolution and two predictors, shared by all levels."""

    def __init__(self, inputs: int, channels: int, anchors: int, *, separable: bool) -> None:
        super().__init__()
        self.conv = Separable(inputs, channels) if separable else nn.Conv2d(inputs, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            if isinstance(layer, Separable):
                continue
            nn.init.normal_(layer.weight, std=0.01)
            zero_bias(layer)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits b x n and deltas b x n x 4 of each level in float32, flattened as (y, x, anchor)."""
        logits, deltas = [], []
        for feature in features:
            hidden = functional.relu_(self.conv(feature))
            logits.append(self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1).float())
            deltas.append(self.anchor_deltas(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4).float())
        return logits, deltas


class RegionProposalNetwork(nn.Module):
    """Features to proposals, and the loss of the anchors."""

    def __init__(self, inputs: int, settings: RpnSettings, *, separable: bool) -> None:
        super().__init__()
        self.settings = settings
        per_place = len(settings.sizes[0]) * len(settings.ratios)
        self.rpn_head = RpnHead(inputs, settings.channels, per_place, separable=separable)

    def anchors(self, features: list[Tensor]) -> list[Tensor]:
        """Anchors of each level, n x 4 [px]; level k has stride 2^(k + 2)."""
        return [
            level_anchors(feature.shape[-2], feature.shape[-1], 4 << level, sizes, self.settings.ratios, feature.device)
            for level, (feature, sizes) in enumerate(zip(features, self.settings.sizes, strict=True))
        ]

    @torch.no_grad()
    def proposals(
        self, anchors: list[Tensor], logits: list[Tensor], deltas: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[tuple[Float[Tensor, "n 4"], Float[Tensor, "n"]]]:
        """Boxes (cut to each image's (height, width)) and logits of each image, best first (spec-network 1.5)."""
        settings = self.settings
        before = settings.before_nms_training if self.training else settings.before_nms
        after = settings.after_nms_training if self.training else settings.after_nms
        boxes, scores, levels = [], [], []
        for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
            score, index = logit.topk(min(before, logit.shape[1]), dim=1)
            chosen = delta.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(decode_boxes(chosen, anchor[index], ANCHOR_CODE))
            scores.append(score)
            levels.append(torch.full_like(index[0], level))
        all_boxes, all_scores, level_of = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels)
        results = []
        for image, size in enumerate(sizes):
            box = clip_boxes(all_boxes[image], size)
            good = has_area(box) & torch.isfinite(all_scores[image])
            box, score = box[good], all_scores[image][good]
            kept = suppress(box, score, level_of[good], settings.nms, after)
            results.append((box[kept], score[kept]))
        return results

    def losses(
        self,
        anchors: list[Tensor],
        logits: list[Tensor],
        deltas: list[Tensor],
        targets: list[Target],
        integrals: list[Int64[Tensor, "_ _"] | None],
        negatives: NegativeSettings,
        generators: list[torch.Generator],
    ) -> dict[str, LossPart]:
        """Cross-entropy and L1 of sampled anchors, sums divided by samples x images (spec-network 1.5).

        integrals: of each image's ignored pixels, None where there are none; used by the rule `ignore_aware`;
        generators: one for each image.
        """
        settings = self.settings
        anchor = torch.cat(anchors)
        logit, delta = torch.cat(logits, 1).flatten(), torch.cat(deltas, 1).flatten(0, 1)
        positives, chosen, wanted = [], [], []
        for image, (target, integral, generator) in enumerate(zip(targets, integrals, generators, strict=True)):
            index, label, _ = match_boxes(
                target.boxes, anchor, settings.negative, settings.positive, settings.best_floor
            )
            if negatives.rule == "ignore_aware" and integral is not None:
                background = label == 0
                label[background & (covered_share(integral, anchor) > negatives.anchor_ignored)] = -1
            positive, negative = sample(label, settings.samples, settings.positive_share, generator)
            wanted.append(encode_boxes(target.boxes[index[positive]], anchor[positive], ANCHOR_CODE))
            positives.append(positive + image * len(anchor))
            chosen.append(negative + image * len(anchor))
        positive = torch.cat(positives)
        scores = logit[torch.cat((positive, *chosen))]
        truth = (torch.arange(len(scores), device=scores.device) < len(positive)).float()
        objectness = functional.binary_cross_entropy_with_logits(scores, truth, reduction="sum")
        box = functional.l1_loss(delta[positive], torch.cat(wanted), reduction="sum")
        divisor = settings.samples * len(targets)
        return {"rpn_objectness": LossPart(objectness / divisor, divisor), "rpn_box": LossPart(box / divisor, divisor)}
