"""The Panoptic Cascade Mask R-CNN, put together (spec-network 1.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cupola.models.boxes import clip_boxes, has_area, integral_image
from cupola.models.cascade import RoiHeads, Sizes
from cupola.models.fpn import FeaturePyramid
from cupola.models.layers import upsample
from cupola.models.losses import semantic_loss as pixel_loss
from cupola.models.mask_head import paste_masks
from cupola.models.merge import merge_panoptic
from cupola.models.records import IGNORE, Detections, NetworkPrediction, Target
from cupola.models.rpn import RegionProposalNetwork
from cupola.models.semantic_head import STRIDE, SemanticHead
from cupola.models.settings import NetworkSettings

MEAN = (0.485, 0.456, 0.406)
"""Mean colour, RGB in [0, 1] (spec-network 1.2)."""

DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of the colours (spec-network 1.2)."""

DIVISOR = 32
"""Sides of the padded batch are multiples of this [px] (spec-network 1.2)."""

MIN_SIDE = 1.0
"""Objects with a shorter side are left out of the losses [px] (spec-network N4)."""


class PanopticNetwork(nn.Module):
    """Images to panoptic maps; parameters carry the published names (spec-network 1.13).

    num_things, num_stuff: thing and stuff pseudo classes (T, S). With T = 0 there are no proposals and no region heads,
    and only the semantic head learns.
    """

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
        self.backbone = FeaturePyramid(settings.trunk, channels, with_p6=with_p6, separable=light)
        self.sem_seg_head = SemanticHead(channels, num_stuff, settings.semantic, separable=light)
        if num_things:
            self.proposal_generator = RegionProposalNetwork(channels, settings.rpn, separable=light)
            self.roi_heads = RoiHeads(channels, num_things, settings)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    def batch(self, images: Sequence[Float[Tensor, "3 _ _"]]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1], normalised, then padded with zeros at right and bottom to the largest and to a multiple of
        32 (spec-network 1.2)."""
        height = max(image.shape[1] for image in images)
        width = max(image.shape[2] for image in images)
        padded = self.mean.new_zeros(
            len(images), 3, -(-height // DIVISOR) * DIVISOR, -(-width // DIVISOR) * DIVISOR
        ).contiguous(memory_format=torch.channels_last)
        for row, image in zip(padded, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = (image.to(self.mean.device) - self.mean) / self.deviation
        return padded

    def losses(
        self, images: Sequence[Float[Tensor, "3 _ _"]], targets: Sequence[Target], generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch; their weights are in them, so the total is their sum (spec-network 2.7).

        images: RGB in [0, 1], of any sizes; targets: of the same sizes, on the network's device; generator: source of
        all random choices (anchors, regions). Returns `semantic` and, with T > 0, `rpn_objectness`, `rpn_box`,
        `stage<k>_class`, `stage<k>_box` of each stage and `mask`.
        """
        sizes: Sizes = [(image.shape[1], image.shape[2]) for image in images]
        features = self.backbone(self.batch(images))
        losses = {"semantic": self.semantic_loss(features, targets, generator)}
        if not self.num_things:
            return losses
        objects = [_with_area(target) for target in targets]
        integrals = [integral_image(target.ignore) if target.ignore.any() else None for target in targets]
        anchors = self.proposal_generator.anchors(features)
        logits, deltas = self.proposal_generator.rpn_head(features)
        losses |= self.proposal_generator.losses(
            anchors, logits, deltas, objects, integrals, self.settings.negatives, generator
        )
        proposals = self.proposal_generator.proposals(anchors, logits, deltas, sizes)
        boxes = [box for box, _ in proposals]
        return losses | self.roi_heads.losses(features, boxes, objects, sizes, integrals, generator)

    def semantic_loss(self, features: list[Tensor], targets: Sequence[Target], generator: torch.Generator) -> Tensor:
        """Weighted cross-entropy of the semantic head. At a loss stride of n, one pixel of every n x n is compared,
        at an offset drawn for the whole batch."""
        settings = self.settings.semantic
        logits = upsample(self.sem_seg_head(features).float(), STRIDE // settings.loss_stride)
        stride = settings.loss_stride
        height, width = logits.shape[-2] * stride, logits.shape[-1] * stride
        wanted = torch.full((len(targets), height, width), IGNORE, dtype=torch.int64, device=logits.device)
        for row, target in zip(wanted, targets, strict=True):
            row[: target.semantic.shape[0], : target.semantic.shape[1]] = target.semantic
        y, x = torch.randint(stride, (2,), generator=generator, device=generator.device).tolist()
        return settings.loss_weight * pixel_loss(logits, wanted[:, y::stride, x::stride])

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[Float[Tensor, "3 _ _"]],
        *,
        score_threshold: float = 0.5,
        merge_threshold: float | None = None,
        overlap: float | None = None,
        stuff_area: int | None = None,
        output_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[NetworkPrediction]:
        """Predictions of a batch, in evaluation mode whatever the mode of the network (spec-network 1.11, 4.2).

        images: RGB in [0, 1], of any sizes; score_threshold: least score of a detection, merge_threshold: of an object
        in the panoptic map (the same by default); overlap, stuff_area [px]: of the merge, from the settings by default;
        output_sizes: (height, width) of each result, the images' own by default.
        """
        outputs = [(image.shape[1], image.shape[2]) for image in images] if output_sizes is None else output_sizes
        images = [_enlarged(image, self.settings.rows) for image in images]
        sizes: Sizes = [(image.shape[1], image.shape[2]) for image in images]
        with _evaluating(self):
            features = self.backbone(self.batch(images))
            semantic = upsample(self.sem_seg_head(features).float(), STRIDE)
            found, small_masks = self._detect(features, sizes, score_threshold)
        merge = self.settings.merge
        results = []
        for index, (size, output) in enumerate(zip(sizes, outputs, strict=True)):
            logits = _resized(semantic[index, :, : size[0], : size[1]], output)
            objects, masks = _pasted(found[index], small_masks[index], size, output)
            least = max(merge.stuff_area, merge.stuff_share * output[0] * output[1])
            panoptic, segments = merge_panoptic(
                logits.argmax(0),
                masks,
                objects.scores,
                objects.classes,
                objects.boxes,
                score_threshold=score_threshold if merge_threshold is None else merge_threshold,
                overlap=merge.overlap if overlap is None else overlap,
                stuff_area=float(least if stuff_area is None else stuff_area),
            )
            results.append(
                NetworkPrediction(logits, objects.boxes, objects.scores, objects.classes, masks, panoptic, segments)
            )
        return results

    def _detect(
        self, features: list[Tensor], sizes: Sizes, score_threshold: float
    ) -> tuple[list[Detections], list[Tensor]]:
        """Detections and small mask probabilities of each image."""
        if not self.num_things:
            device = features[0].device
            nothing = Detections(
                torch.zeros(0, 4, device=device),
                torch.zeros(0, device=device),
                torch.zeros(0, dtype=torch.int64, device=device),
            )
            return [nothing for _ in sizes], [torch.zeros(0, 28, 28, device=device) for _ in sizes]
        anchors = self.proposal_generator.anchors(features)
        logits, deltas = self.proposal_generator.rpn_head(features)
        proposals = self.proposal_generator.proposals(anchors, logits, deltas, sizes)
        found = self.roi_heads.detect(features, [boxes for boxes, _ in proposals], sizes, score_threshold)
        masks = self.roi_heads.mask_probabilities(features, [f.boxes for f in found], [f.classes for f in found])
        return found, masks


def _with_area(target: Target) -> Target:
    """The target without objects too thin to have a box code (N4)."""
    good = has_area(target.boxes, MIN_SIDE - 1e-6)
    return Target(target.semantic, target.masks[good], target.boxes[good], target.classes[good], target.ignore)


def _enlarged(image: Float[Tensor, "3 h w"], rows: int) -> Float[Tensor, "3 _ _"]:
    """The image, with at least so many rows."""
    height, width = image.shape[1:]
    return image if height >= rows else _resized(image, (rows, round(width * rows / height)))


def _resized(logits: Float[Tensor, "k h w"], size: tuple[int, int]) -> Float[Tensor, "k _ _"]:
    if logits.shape[1:] == size:
        return logits
    return functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]


def _pasted(
    found: Detections, small_masks: Float[Tensor, "n s s"], size: tuple[int, int], output: tuple[int, int]
) -> tuple[Detections, Tensor]:
    """Detections scaled from `size` to `output`, cut to it, empty ones dropped; and their masks (spec-network 1.11)."""
    scale = found.boxes.new_tensor((output[1] / size[1], output[0] / size[0]) * 2)
    boxes = clip_boxes(found.boxes * scale, output)
    good = has_area(boxes)
    objects = Detections(boxes[good], found.scores[good], found.classes[good])
    return objects, paste_masks(small_masks[good], objects.boxes, output)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module's own mode comes back."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
