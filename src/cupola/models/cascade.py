"""The region heads: a cascade of box heads (spec-network 1.7) and the mask head on its first stage's objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from cupola.models import recompute
from cupola.models.boxes import clip_boxes, decode_boxes, encode_boxes, has_area, match_boxes, sample, suppress
from cupola.models.layers import zero_bias
from cupola.models.losses import box_loss, class_loss, mask_loss, published_drop_loss_weights, region_weights
from cupola.models.mask_head import MaskHead, mask_targets
from cupola.models.pooler import pool
from cupola.models.recompute import Recipe
from cupola.models.records import Detections, LossPart, Target
from cupola.models.settings import NetworkSettings

Sizes = list[tuple[int, int]]
"""(height, width) [px] of each image of a batch, without padding."""

MASKS_AT_ONCE = 32
"""Regions whose masks are predicted at once: their features at the masks' resolution are large."""

SLACK = 1e-6
"""More than the rounding of a mean of probabilities."""


@dataclass(frozen=True)
class Regions:
    """Regions of one image in training: boxes; matched: object each overlaps most; foreground: whether it counts as
    that object; weights: in the class loss."""

    boxes: Float[Tensor, "n 4"]
    matched: Int64[Tensor, "n"]
    foreground: Bool[Tensor, "n"]
    weights: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> Regions:
        """Only these regions, in this order."""
        return Regions(self.boxes[index], self.matched[index], self.foreground[index], self.weights[index])

    def classes(self, target: Target, background: int) -> Int64[Tensor, "n"]:
        """Class of each region, `background` where it is no object."""
        classes = torch.full_like(self.matched, background)
        classes[self.foreground] = target.classes[self.matched[self.foreground]]
        return classes

    def wanted_boxes(self, target: Target) -> Float[Tensor, "p 4"]:
        """Boxes of the objects of the foreground regions."""
        return target.boxes[self.matched[self.foreground]]


class BoxHead(nn.Module):
    """Pooled features, `inputs` x `size` x `size`, flattened as (channel, y, x), through two linear layers.

    In a copy for prediction on a CPU (`cupola.models.fusion`) the first is the convolution that it amounts to: that
    reads the features in the layout they have, and rounds otherwise.
    """

    def __init__(self, inputs: int, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.fc1 = nn.Linear(inputs * size**2, channels)
        self.fc2 = nn.Linear(channels, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            zero_bias(layer)

    def forward(self, pooled: Float[Tensor, "n c s s"], recipe: Recipe | None = None) -> Float[Tensor, "n k"]:
        """recipe: of the flattened features, which then are not kept for the backward pass."""
        if self.fc1.weight.dim() == 4 and len(pooled):  # of a copy for prediction, see `cupola.models.fusion`
            hidden = functional.conv2d(pooled, self.fc1.weight, self.fc1.bias).flatten(1)
        elif recipe is not None:
            hidden = recompute.linear(pooled.flatten(1), self.fc1.weight, self.fc1.bias, recipe)
        else:
            hidden = functional.linear(pooled.flatten(1), self.fc1.weight.flatten(1), self.fc1.bias)
        return functional.relu_(self.fc2(functional.relu_(hidden)))

    def kernel(self) -> Float[Tensor, "k c s s"]:
        """The weights of the first layer as those of a convolution."""
        return self.fc1.weight.view(len(self.fc1.weight), -1, self.size, self.size)


class BoxPredictor(nn.Module):
    """Class logits (background last) and class-agnostic deltas."""

    def __init__(self, inputs: int, num_things: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, num_things + 1)
        self.bbox_pred = nn.Linear(inputs, 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        zero_bias(self.cls_score)
        zero_bias(self.bbox_pred)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, features: Tensor, factor: float) -> Tensor:
        context.factor = factor  # type: ignore[attr-defined]
        return features.view_as(features)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None  # type: ignore[attr-defined]


class RoiHeads(nn.Module):
    """Proposals to detections and masks, and their losses."""

    def __init__(self, inputs: int, num_things: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        self.num_things = num_things
        box = settings.box
        self.box_head = nn.ModuleList(BoxHead(inputs, box.pooled, box.channels) for _ in box.ious)
        self.box_predictor = nn.ModuleList(BoxPredictor(box.channels, num_things) for _ in box.ious)
        self.mask_head = MaskHead(inputs, num_things, settings.mask, separable=settings.separable)

    # ---- both

    def stage(self, number: int, features: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits n x (T + 1) and deltas n x 4 of one stage in float32, image after image."""
        size, pooler, levels = self.settings.box.pooled, self.settings.pooler, len(features)
        pooled, recipe = pool(features, boxes, size, pooler), None
        stages = len(self.box_head)
        if stages > 1 and torch.is_grad_enabled():
            pooled = _ScaleGradient.apply(pooled, 1 / stages)  # as many stages pull at the same features

            def again(*tensors: Tensor) -> Tensor:
                return pool(list(tensors[:levels]), list(tensors[levels:]), size, pooler).flatten(1)

            recipe = Recipe(again, (*features, *boxes))  # else the pooled features of all stages would be kept
        hidden = self.box_head[number](pooled, recipe)
        predictor = self.box_predictor[number]
        assert isinstance(predictor, BoxPredictor)
        return predictor.cls_score(hidden).float(), predictor.bbox_pred(hidden).float()

    def decoded(self, number: int, boxes: list[Tensor], deltas: Tensor) -> list[Tensor]:
        """Boxes of one stage after its deltas, an entry an image; not clipped, without a gradient."""
        moved = decode_boxes(deltas.detach(), torch.cat(boxes), self.settings.box.code_weights[number])
        return list(torch.split(moved, [len(box) for box in boxes]))

    # ---- training

    def matched(self, boxes: Tensor, target: Target, integral: Tensor | None, stage: int) -> Regions:
        """Regions of one image matched to its objects by the stage's IoU (spec-network 1.7)."""
        threshold = self.settings.box.ious[stage]
        index, label, best = match_boxes(target.boxes, boxes, threshold, threshold)
        foreground = label == 1
        any_object = len(target.boxes) > 0
        weights = region_weights(boxes, best, foreground, integral, self.settings.negatives, any_object=any_object)
        return Regions(boxes, index, foreground, weights)

    @torch.no_grad()
    def sampled(
        self, proposals: Tensor, target: Target, integral: Tensor | None, generator: torch.Generator
    ) -> Regions:
        """First stage's regions of one image: a random choice of proposals and the objects' own boxes, foreground
        first (spec-network 1.7). By the rule `ignore_aware`, regions that would not count are not chosen at all."""
        regions = self.matched(torch.cat((proposals, target.boxes)), target, integral, 0)
        label = regions.foreground.to(torch.int8)
        if self.settings.negatives.rule == "ignore_aware":
            label[regions.weights == 0] = -1
        box = self.settings.box
        return regions.select(torch.cat(sample(label, box.samples, box.positive_share, generator)))

    def stage_losses(
        self, number: int, logits: Tensor, deltas: Tensor, regions: list[Regions], targets: list[Target]
    ) -> dict[str, LossPart]:
        """Class and box loss of one stage over the batch."""
        pairs = list(zip(regions, targets, strict=True))
        classes = torch.cat([region.classes(target, self.num_things) for region, target in pairs])
        foreground = torch.cat([region.foreground for region in regions])
        boxes = torch.cat([region.boxes for region in regions])[foreground]
        objects = torch.cat([region.wanted_boxes(target) for region, target in pairs])
        wanted = encode_boxes(objects, boxes, self.settings.box.code_weights[number])
        weights = torch.cat([region.weights for region in regions])
        kept = self.settings.negatives.mean_over_kept
        count = len(foreground)
        return {
            f"stage{number}_class": LossPart(
                class_loss(logits, classes, weights, mean_over_kept=kept), weights.sum() if kept else count
            ),
            f"stage{number}_box": LossPart(box_loss(deltas[foreground], wanted, count), count),
        }

    def mask_losses(self, features: list[Tensor], regions: list[Regions], targets: list[Target]) -> dict[str, LossPart]:
        """Mask loss of the first stage's foreground regions (they come in random order, so the first are a sample)."""
        settings = self.settings.mask
        chosen = [r.select(r.foreground.nonzero().flatten()[: settings.positives or None]) for r in regions]
        boxes = [region.boxes for region in chosen]
        logits = self.mask_head(pool(features, boxes, settings.pooled, self.settings.pooler))
        wanted = [
            mask_targets(target.masks, region.boxes, region.matched, 2 * settings.pooled)
            for region, target in zip(chosen, targets, strict=True)
        ]
        classes = [target.classes[region.matched] for region, target in zip(chosen, targets, strict=True)]
        return {"mask": LossPart(mask_loss(logits, torch.cat(classes), torch.cat(wanted)), len(logits))}

    def losses(
        self,
        features: list[Tensor],
        proposals: list[Tensor],
        targets: list[Target],
        sizes: Sizes,
        integrals: list[Tensor | None],
        generators: list[torch.Generator],
    ) -> dict[str, LossPart]:
        """Losses of every stage and of the masks (spec-network 1.7, 1.8, 2.6).

        proposals: boxes of each image; integrals: of its ignored pixels, None where there are none; generators: one for
        each image.
        """
        regions = [
            self.sampled(boxes, target, integral, generator)
            for boxes, target, integral, generator in zip(proposals, targets, integrals, generators, strict=True)
        ]
        losses = self.mask_losses(features, regions, targets)
        return losses | self.cascade_losses(features, regions, targets, sizes, integrals)

    def cascade_losses(
        self,
        features: list[Tensor],
        regions: list[Regions],
        targets: list[Target],
        sizes: Sizes,
        integrals: list[Tensor | None],
    ) -> dict[str, LossPart]:
        """Class and box losses of every stage, from the first stage's regions."""
        losses: dict[str, LossPart] = {}
        for number in range(len(self.box_head)):
            boxes = [region.boxes for region in regions]
            logits, deltas = self.stage(number, features, boxes)
            moved = self.decoded(number, boxes, deltas)
            if self.settings.negatives.rule == "drop_loss_published":
                regions = self.reweighted(number, regions, moved, targets)
            losses |= self.stage_losses(number, logits, deltas, regions, targets)
            if number + 1 < len(self.box_head):
                cut = [clip_boxes(box, size) for box, size in zip(moved, sizes, strict=True)]
                regions = [
                    self.matched(box[has_area(box)], target, integral, number + 1)
                    for box, target, integral in zip(cut, targets, integrals, strict=True)
                ]
        return losses

    def reweighted(
        self, number: int, regions: list[Regions], moved: list[Tensor], targets: list[Target]
    ) -> list[Regions]:
        """The same regions with the weights of the published DropLoss; moved: their boxes after this stage."""
        weights = published_drop_loss_weights(
            moved,
            [region.matched for region in regions],
            [target.boxes for target in targets],
            self.settings.negatives.drop_iou,
            first_stage=number == 0,
        )
        return [replace(region, weights=weight) for region, weight in zip(regions, weights, strict=True)]

    # ---- inference

    def cascade(
        self, features: list[Tensor], proposals: list[Tensor], sizes: Sizes, least: float = 0.0
    ) -> list[tuple[Float[Tensor, "n 4"], Float[Tensor, "n k"]]]:
        """Boxes after the last stage (not clipped) and the mean of all stages' class probabilities, for each image.

        least: regions are left out as soon as no later stage can lift any class's mean above this.
        """
        boxes, total, stages = proposals, torch.zeros(()), len(self.box_head)
        for number in range(stages):
            if number:
                boxes = [clip_boxes(box, size) for box, size in zip(boxes, sizes, strict=True)]
                best = total[:, :-1].amax(1)
                hopeful = (best + (stages - number)) / stages > least - SLACK
                parts = torch.split(hopeful, [len(box) for box in boxes])
                boxes, total = [box[part] for box, part in zip(boxes, parts, strict=True)], total[hopeful]
            logits, deltas = self.stage(number, features, boxes)
            total = logits.softmax(1) if number == 0 else total + logits.softmax(1)
            boxes = self.decoded(number, boxes, deltas)
        scores = torch.split(total / stages, [len(box) for box in boxes])
        return list(zip(boxes, scores, strict=True))

    def detect(
        self, features: list[Tensor], proposals: list[Tensor], sizes: Sizes, score_threshold: float
    ) -> list[Detections]:
        """Detections of each image: scores above the threshold, cut to the image, suppressed in each class (1.7)."""
        settings = self.settings.box
        return [
            select_detections(boxes, scores, size, score_threshold, settings.nms, settings.detections)
            for (boxes, scores), size in zip(
                self.cascade(features, proposals, sizes, score_threshold), sizes, strict=True
            )
        ]

    def mask_probabilities(
        self, features: list[Tensor], boxes: list[Tensor], classes: list[Tensor]
    ) -> list[Float[Tensor, "n s s"]]:
        """Probabilities of each detection's mask, on a grid over its box, for each image (1.8)."""
        pooled = pool(features, boxes, self.settings.mask.pooled, self.settings.pooler)
        chosen = []
        for part, label in zip(
            torch.split(pooled, MASKS_AT_ONCE), torch.split(torch.cat(classes), MASKS_AT_ONCE), strict=True
        ):
            logits = self.mask_head(part).float()
            channel = label if logits.shape[1] > 1 else torch.zeros_like(label)
            chosen.append(logits[torch.arange(len(logits), device=logits.device), channel].sigmoid())
        return list(torch.split(torch.cat(chosen), [len(box) for box in boxes]))


def select_detections(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, "n k"],
    size: tuple[int, int],
    score_threshold: float,
    nms: float,
    limit: int,
) -> Detections:
    """Every (box, class) with a score above the threshold, after suppression within each class, the `limit` best.

    scores: class probabilities, the last column is background. A box may survive for several classes (spec 1.7).
    """
    good = torch.isfinite(boxes).all(1) & torch.isfinite(scores).all(1)
    boxes, scores = clip_boxes(boxes[good], size), scores[good, :-1]
    box, label = (scores > score_threshold).nonzero().unbind(1)
    score = scores[box, label]
    kept = suppress(boxes[box], score, label, nms, limit)
    return Detections(boxes[box[kept]], score[kept], label[kept])
