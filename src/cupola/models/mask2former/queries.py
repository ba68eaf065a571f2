"""The losses of queries as pure functions of tensors: which are told to be nothing, classes, masks at sampled points.

Classes of queries: things 0..T-1, stuff T..T+S-1, and "nothing" = T + S. Every empty case gives 0 with a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from cupola.models.mask2former.settings import QueryNegativeSettings
from cupola.models.records import IGNORE, SOME_THING, Target


@dataclass(frozen=True)
class Segments:
    """What an image, padded to h x w pixels, consists of: objects and one mask a stuff class.

    masks; classes: 0..T-1 of things, T..T+S-1 of stuff; known: pixels that are neither ignored nor padding; unmarked:
    pixels of a thing class without an instance.
    """

    masks: Bool[Tensor, "m h w"]
    classes: Int64[Tensor, "m"]
    known: Bool[Tensor, "h w"]
    unmarked: Bool[Tensor, "h w"]

    def thinned(self, stride: int) -> Segments:
        """Every `stride`-th pixel a side."""
        rows = slice(stride // 2, None, stride)
        return Segments(self.masks[:, rows, rows], self.classes, self.known[rows, rows], self.unmarked[rows, rows])


def segments_of(target: Target, num_things: int, size: tuple[int, int]) -> Segments:
    """The segments of a target, padded at right and bottom to `size` = (height, width) [px]."""
    height, width = target.semantic.shape
    channels = target.semantic.flatten().bincount().nonzero().flatten()
    channels = channels[(channels != SOME_THING) & (channels != IGNORE)]
    masks = torch.cat((target.masks, target.semantic == channels[:, None, None]))
    edges = (0, size[1] - width, 0, size[0] - height)
    known = target.semantic != IGNORE
    return Segments(
        functional.pad(masks, edges),
        torch.cat((target.classes, channels - 1 + num_things)),
        functional.pad(known, edges),
        functional.pad(target.ignore, edges),
    )


def overlaps(masks: Bool[Tensor, "q h w"], others: Bool[Tensor, "m h w"]) -> Float[Tensor, "q m"]:
    """IoU of each mask with each other one; 0 where both are empty."""
    first, second = masks.flatten(1).float(), others.flatten(1).float()
    common = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1) - common
    return common / union.clamp(min=1)


def may_be_unmarked(
    masks: Bool[Tensor, "q h w"], segments: Segments, settings: QueryNegativeSettings
) -> Bool[Tensor, "q"]:
    """Which queries, were they without an object, may show one that nobody marked (see `QueryNegativeSettings`).

    masks: what they show, at the size of `segments`.
    """
    if settings.rule == "all":
        return torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    strange = ~(overlaps(masks, segments.masks) > settings.drop_iou).any(1)
    if settings.rule == "drop_loss":
        return strange
    area = masks.flatten(1).sum(1)
    return strange & ((masks & segments.unmarked).flatten(1).sum(1) > settings.ignored * area)


def query_class_losses(
    logits: Float[Tensor, "q k"], wanted: Int64[Tensor, "q"], unmarked: Bool[Tensor, "q"], num_things: int
) -> Float[Tensor, "q"]:
    """Cross-entropy of each query; where `unmarked`, of being nothing or any thing, whichever.

    The paper's DropLoss left out the whole loss of such queries, and so that of stuff, which the paper names as its
    weakness. Here stuff keeps its loss: a query that shows no labelled stuff learns to be none, while nothing is said
    of whether it is a thing (the loss is the same whatever the odds between the things and nothing are).
    """
    log_shares = logits.float().log_softmax(1)
    things_or_nothing = torch.cat((log_shares[:, :num_things], log_shares[:, -1:]), 1).logsumexp(1)
    return -torch.where(unmarked, things_or_nothing, log_shares.gather(1, wanted[:, None])[:, 0])


def at_points(maps: Float[Tensor, "n h w"], points: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p"]:
    """Values between the pixels, bilinear; points: (x, y) in [0, 1], from the map's left upper corner to its right
    lower one."""
    return functional.grid_sample(maps[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


def uncertain_points(
    logits: Float[Tensor, "n h w"], count: int, oversampling: float, share: float, generator: torch.Generator
) -> Float[Tensor, "n count 2"]:
    """Where to take the losses of each mask: that share of the points where it is least certain among `oversampling`
    times as many, the rest anywhere (Kirillov et al., "PointRend", 2020, section 3.1)."""
    drawn = torch.rand(len(logits), int(count * oversampling), 2, generator=generator).to(logits.device)
    best = at_points(logits, drawn).abs().topk(int(count * share), largest=False).indices
    chosen = drawn.gather(1, best[..., None].expand(-1, -1, 2))
    rest = torch.rand(len(logits), count - best.shape[1], 2, generator=generator).to(logits.device)
    return torch.cat((chosen, rest), 1)


def point_losses(
    logits: Float[Tensor, "n p"], wanted: Float[Tensor, "n p"], known: Bool[Tensor, "n p"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Binary cross-entropy and dice loss, summed over the masks, each over the known points of a mask only."""
    weights = known.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="none").sum(1)
    shares = logits.sigmoid() * weights
    common = (shares * wanted).sum(1)
    dice = 1 - (2 * common + 1) / (shares.sum(1) + (wanted * weights).sum(1) + 1)
    return (entropy / weights.sum(1).clamp(min=1)).sum(), dice.sum()
