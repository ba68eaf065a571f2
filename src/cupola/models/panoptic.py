"""The Panoptic Cascade Mask R-CNN, put together (spec-network 1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cupola.models.boxes import clip_boxes, has_area, integral_image, one_each
from cupola.models.cascade import RoiHeads, Sizes
from cupola.models.fpn import make_pyramid
from cupola.models.interface import PanopticModel
from cupola.models.layers import upsample
from cupola.models.losses import semantic_loss as pixel_loss
from cupola.models.mask_head import paste_masks
from cupola.models.merge import MergeLimits, merge_panoptic
from cupola.models.recompute import recomputed
from cupola.models.records import IGNORE, Detections, LossPart, NetworkPrediction, Target
from cupola.models.rpn import RegionProposalNetwork
from cupola.models.semantic_head import STRIDE, SemanticHead
from cupola.models.settings import NetworkSettings

MEAN = (0.485, 0.456, 0.406)
"""Mean colour, RGB in [0, 1] (spec-network 1.2)."""

DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of the colours (spec-network 1.2)."""

DIVISOR = 32
"""Sides of the padded batch are multiples of this [px] (spec-network 1.2)."""

ENLARGED = 1 << 21
"""Pixels of the largest image that is enlarged to have enough rows: those of a Cityscapes frame."""

MIN_SIDE = 1.0
"""Objects with a shorter side are left out of the losses [px] (spec-network N4)."""


class PanopticNetwork(PanopticModel):
    """Images to panoptic maps; parameters carry the published names (spec-network 1.13).

    num_things, num_stuff: thing and stuff pseudo classes (T, S). With T = 0 there are no proposals and no region heads,
    and only the semantic head learns.
    """

    settings: NetworkSettings
    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: NetworkSettings, num_things: int, num_stuff: int) -> None:
        super().__init__()
        if num_things < 0 or num_stuff < 0:
            raise ValueError(f"class numbers must not be negative, but are {num_things} things, {num_stuff} stuff")
        self.settings = settings
        self.num_things = num_things
        self.num_stuff = num_stuff
        channels = settings.fpn_channels
        light = settings.separable
        with_p6 = len(settings.rpn.sizes) == 5
        self.backbone = make_pyramid(settings.trunk, channels, with_p6=with_p6, separable=light)
        self.sem_seg_head = SemanticHead(channels, num_stuff, settings.semantic, separable=light)
        if num_things:
            self.proposal_generator = RegionProposalNetwork(channels, settings.rpn, separable=light)
            self.roi_heads = RoiHeads(channels, num_things, settings)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    @property
    def trunk(self) -> nn.Module:
        """The ResNet or the transformer below the pyramid."""
        return self.backbone.bottom_up

    def batch(self, images: Sequence[Float[Tensor, "3 _ _"]]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1], normalised and padded (`padded_batch`)."""
        return padded_batch(images, self.mean, self.deviation)

    def loss_parts(
        self, images: Sequence[Float[Tensor, "3 _ _"]], targets: Sequence[Target], generator: torch.Generator
    ) -> dict[str, LossPart]:
        """See `PanopticModel`. `semantic` and, with T > 0, `rpn_objectness`, `rpn_box`, `stage<k>_class`,
        `stage<k>_box` of each stage and `mask`."""
        sizes: Sizes = [(image.shape[1], image.shape[2]) for image in images]
        features = self.backbone(self.batch(images))
        generators = one_each(generator, len(images))
        losses = {"semantic": self.semantic_loss(features, targets, generators)}
        if not self.num_things:
            return losses
        objects = [_with_area(target) for target in targets]
        integrals = [integral_image(target.ignore) if target.ignore.any() else None for target in targets]
        anchors = self.proposal_generator.anchors(features)
        logits, deltas = self.proposal_generator.rpn_head(features)
        losses |= self.proposal_generator.losses(
            anchors, logits, deltas, objects, integrals, self.settings.negatives, generators
        )
        proposals = self.proposal_generator.proposals(anchors, logits, deltas, sizes)
        boxes = [box for box, _ in proposals]
        return losses | self.roi_heads.losses(features, boxes, objects, sizes, integrals, generators)

    def semantic_loss(
        self, features: list[Tensor], targets: Sequence[Target], generators: Sequence[torch.Generator]
    ) -> LossPart:
        """Weighted cross-entropy of the semantic head. At a loss stride of n, one pixel of every n x n is compared,
        at an offset drawn for each image from its generator."""
        settings = self.settings.semantic
        stride = settings.loss_stride
        height, width = (STRIDE * side for side in features[0].shape[-2:])
        wanted = torch.full((len(targets), height, width), IGNORE, dtype=torch.int64, device=features[0].device)
        for row, target in zip(wanted, targets, strict=True):
            row[: target.semantic.shape[0], : target.semantic.shape[1]] = target.semantic
        offsets = [torch.randint(stride, (2,), generator=generator).tolist() for generator in generators]
        wanted = torch.stack([row[y::stride, x::stride] for row, (y, x) in zip(wanted, offsets, strict=True)])

        def mean_of(*features: Tensor) -> Tensor:
            return pixel_loss(upsample(self.sem_seg_head(list(features)).float(), STRIDE // stride), wanted)

        large = stride == 1
        loss = recomputed(mean_of, *features, module=self.sem_seg_head) if large else mean_of(*features)
        return LossPart(settings.loss_weight * loss, (wanted != IGNORE).sum())

    def predicted(
        self,
        images: Sequence[Float[Tensor, "3 _ _"]],
        outputs: Sequence[tuple[int, int]],
        score_threshold: float,
        limits: MergeLimits,
    ) -> list[NetworkPrediction]:
        """See `PanopticModel`."""
        images = [resized(image, size_to_predict(image, self.settings.rows)) for image in images]
        sizes: Sizes = [(image.shape[1], image.shape[2]) for image in images]
        features = self.backbone(self.batch(images))
        semantic = self.sem_seg_head(features).float()
        found, small_masks = self._detect(features, sizes, score_threshold)
        del features  # of a large image they take as much as its masks, which come now
        return [
            assembled(
                resized(upsample(semantic[index, None], STRIDE)[0, :, : size[0], : size[1]], output),
                found[index],
                small_masks[index],
                size,
                limits,
            )
            for index, (size, output) in enumerate(zip(sizes, outputs, strict=True))
        ]

    def _detect(
        self, features: list[Tensor], sizes: Sizes, score_threshold: float
    ) -> tuple[list[Detections], list[Tensor]]:
        """Detections and small mask probabilities of each image."""
        found = self.detect(features, sizes, score_threshold)
        if not self.num_things:
            return found, [features[0].new_zeros(0, 28, 28) for _ in sizes]
        masks = self.roi_heads.mask_probabilities(features, [f.boxes for f in found], [f.classes for f in found])
        return found, masks

    def detect(self, features: list[Tensor], sizes: Sizes, score_threshold: float) -> list[Detections]:
        """Detections of each image of a batch of pyramids, without masks; none where there are no thing classes."""
        if not self.num_things:
            device = features[0].device
            nothing = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
            return [Detections(*nothing, torch.zeros(0, dtype=torch.int64, device=device)) for _ in sizes]
        anchors = self.proposal_generator.anchors(features)
        logits, deltas = self.proposal_generator.rpn_head(features)
        proposals = self.proposal_generator.proposals(anchors, logits, deltas, sizes)
        return self.roi_heads.detect(features, [boxes for boxes, _ in proposals], sizes, score_threshold)


def _with_area(target: Target) -> Target:
    """The target without objects too thin to have a box code (N4)."""
    good = has_area(target.boxes, MIN_SIDE - 1e-6)
    return Target(target.semantic, target.masks[good], target.boxes[good], target.classes[good], target.ignore)


def padded_batch(images: Sequence[Float[Tensor, "3 _ _"]], mean: Tensor, deviation: Tensor) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1], normalised, then padded with zeros at right and bottom to the largest and to a multiple of 32
    (spec-network 1.2). mean, deviation: 3 x 1 x 1, on the device of the result."""
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    padded = mean.new_zeros(len(images), 3, -(-height // DIVISOR) * DIVISOR, -(-width // DIVISOR) * DIVISOR).contiguous(
        memory_format=torch.channels_last
    )
    for row, image in zip(padded, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (image.to(mean.device) - mean) / deviation
    return padded


def size_to_predict(image: Float[Tensor, "3 h w"], rows: int) -> tuple[int, int]:
    """(height, width) [px] at which an image is looked at: its own, but at least so many rows. An image is not enlarged
    beyond `ENLARGED` pixels: that of a single row would fill any memory."""
    height, width = image.shape[1], image.shape[2]
    scale = min(rows / height, (ENLARGED / (height * width)) ** 0.5)
    return (height, width) if scale <= 1 else (round(height * scale), round(width * scale))


def resized(logits: Float[Tensor, "k h w"], size: tuple[int, int]) -> Float[Tensor, "k _ _"]:
    """Channels at another size, bilinear without antialiasing, half-pixel convention."""
    if logits.shape[1:] == size:
        return logits
    return functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]


def assembled(
    semantic: Float[Tensor, "k h w"],
    found: Detections,
    small_masks: Float[Tensor, "n s s"],
    size: tuple[int, int],
    limits: MergeLimits,
) -> NetworkPrediction:
    """One image's prediction at the size h x w of `semantic` (logits or probabilities), from detections in an image of
    `size` = (height, width) [px]: boxes scaled and cut, empty ones dropped, masks pasted, all merged (spec 1.11)."""
    height, width = semantic.shape[1:]
    scale = found.boxes.new_tensor((width / size[1], height / size[0]) * 2)
    boxes = clip_boxes(found.boxes * scale, (height, width))
    good = has_area(boxes)
    boxes, scores, classes = boxes[good], found.scores[good], found.classes[good]
    masks = paste_masks(small_masks[good], boxes, (height, width))
    panoptic, segments = merge_panoptic(
        semantic.argmax(0),
        masks,
        scores,
        classes,
        boxes,
        score_threshold=limits.score,
        overlap=limits.overlap,
        stuff_area=limits.least_stuff(height * width),
    )
    return NetworkPrediction(semantic, boxes, scores, classes, masks, panoptic, segments)
