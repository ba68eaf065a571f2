"""The losses as pure functions of tensors, and which negatives count (DropLoss).

Every empty case gives 0 with a graph.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from cupola.models.boxes import covered_share, pairwise_iou
from cupola.models.records import IGNORE
from cupola.models.settings import NegativeSettings

REFERENCE_SAMPLES = 100
"""Regions of an image among which the published code counts its objects (spec-network N1)."""


def drop_loss_weights(
    best_iou: Float[Tensor, "n"], foreground: Bool[Tensor, "n"], threshold: float, *, any_object: bool
) -> Float[Tensor, "n"]:
    """DropLoss of one image (paper; spec-network 2.6 [R]): 1 for objects and for regions whose IoU with some object
    exceeds `threshold`, else 0; all 0 in an image without objects."""
    return ((foreground | (best_iou > threshold)) & any_object).float()


def published_drop_loss_weights(
    predicted: list[Float[Tensor, "_n 4"]],
    matched: list[Int64[Tensor, "_n"]],
    objects: list[Float[Tensor, "_m 4"]],
    threshold: float,
    *,
    first_stage: bool,
) -> list[Float[Tensor, "_n"]]:
    """DropLoss of a batch as the published code has it (spec-network 2.6 "Code", N1, N3): 1 where the box that a region
    turns into has an IoU above `threshold` with some reference box, else 0, objects not excepted.

    predicted: boxes after this stage; matched: the object each region overlaps most; objects: boxes. The reference is
    not all objects of an image, but those matched by its first k regions, k = distinct ones among its first
    `REFERENCE_SAMPLES` regions. Without objects in some image, the first stage drops nothing in the whole batch, and
    later stages drop all regions of that image.
    """
    if first_stage and any(len(boxes) == 0 for boxes in objects):
        return [torch.ones(len(boxes), device=boxes.device) for boxes in predicted]
    weights = []
    for boxes, index, label in zip(predicted, matched, objects, strict=True):
        if len(label) == 0 or len(boxes) == 0:
            weights.append(torch.zeros(len(boxes), device=boxes.device))
            continue
        seen = label[index]
        reference = seen[: len(torch.unique(seen[:REFERENCE_SAMPLES], dim=0))]
        weights.append((pairwise_iou(reference, boxes).amax(0) > threshold).float())
    return weights


def ignore_aware_weights(
    best_iou: Float[Tensor, "n"],
    foreground: Bool[Tensor, "n"],
    ignored: Float[Tensor, "n"],
    max_ignored: float,
    min_iou: float,
) -> Float[Tensor, "n"]:
    """0 for background that may hide an unmarked object: more than `max_ignored` of it is ignored and its IoU with
    every object is below `min_iou`; else 1 (findings-demo, "Negatives (D)")."""
    return (foreground | (ignored <= max_ignored) | (best_iou >= min_iou)).float()


def region_weights(
    boxes: Float[Tensor, "n 4"],
    best_iou: Float[Tensor, "n"],
    foreground: Bool[Tensor, "n"],
    integral: Int64[Tensor, "h1 w1"] | None,
    settings: NegativeSettings,
    *,
    any_object: bool,
) -> Float[Tensor, "n"]:
    """Weight of each region of one image in the class loss, by `settings.rule`; 1 where it needs the network's output
    (`drop_loss_published`). integral: of its ignored pixels."""
    if settings.rule == "drop_loss":
        return drop_loss_weights(best_iou, foreground, settings.drop_iou, any_object=any_object)
    if settings.rule == "ignore_aware" and integral is not None:
        ignored = covered_share(integral, boxes)
        return ignore_aware_weights(best_iou, foreground, ignored, settings.region_ignored, settings.region_iou)
    return torch.ones_like(best_iou)


def class_loss(
    logits: Float[Tensor, "n k"],
    classes: Int64[Tensor, "n"],
    weights: Float[Tensor, "n"],
    *,
    mean_over_kept: bool = False,
) -> Float[Tensor, ""]:
    """Weighted cross-entropy, divided by the number of regions or by the sum of the weights (spec-network 2.6)."""
    if len(classes) == 0:
        return logits.float().sum() * 0
    losses = functional.cross_entropy(logits.float(), classes, reduction="none")
    divisor = weights.sum().clamp(min=1) if mean_over_kept else len(classes)
    return (losses * weights).sum() / divisor


def box_loss(deltas: Float[Tensor, "p 4"], wanted: Float[Tensor, "p 4"], regions: int) -> Float[Tensor, ""]:
    """L1 of the objects' deltas: sum divided by the number of all regions (spec-network 1.7)."""
    return (deltas.float() - wanted).abs().sum() / max(regions, 1)


def mask_loss(
    logits: Float[Tensor, "n channels s s"], classes: Int64[Tensor, "n"], wanted: Bool[Tensor, "n s s"]
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy on the channel of each object's class, or on the only channel (spec-network 1.8)."""
    if len(classes) == 0:
        return logits.float().sum() * 0
    channel = classes if logits.shape[1] > 1 else torch.zeros_like(classes)
    chosen = logits[torch.arange(len(classes), device=logits.device), channel].float()
    return functional.binary_cross_entropy_with_logits(chosen, wanted.float())


def semantic_loss(logits: Float[Tensor, "b k h w"], target: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Cross-entropy, mean over the pixels that are not ignored; 0 if there are none (spec-network 1.9, N27)."""
    of_pixels = logits.float().permute(0, 2, 3, 1).flatten(0, 2)  # as `channels_last` has them: nothing is moved
    total = functional.cross_entropy(of_pixels, target.flatten(), ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1)
