"""Prediction from several views of an image, scaled and mirrored: test-time augmentation, and the teacher of stage 3
(spec-network 3.3, 3.6).

Objects are found in every view, united and suppressed; then each looks at the united boxes again, and the masks are
averaged, as are the class probabilities of the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cupola.errors import ConfigError
from cupola.models.boxes import clip_boxes, suppress
from cupola.models.interface import PanopticModel, evaluating
from cupola.models.layers import upsample
from cupola.models.merge import MergeLimits
from cupola.models.panoptic import PanopticNetwork, assembled, resized, size_to_predict
from cupola.models.records import Detections, NetworkPrediction
from cupola.models.semantic_head import STRIDE


@dataclass(frozen=True)
class ViewSettings:
    """Which views are taken, and how their scores are fused.

    Attributes:
        scales: of the views, relative to the size at which the network looks at the image (paper: 0.75, 1, 1.25; the
            published code: 0.5, 0.75, 1; spec-network N14, N18).
        flip: look at each mirrored as well.
        scores: of an object: `max` = the best of all views (published; N16), `mean` = the cascade judges the united
            boxes in every view again, and the mean of its scores must pass the threshold too.
    """

    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    flip: bool = True
    scores: Literal["max", "mean"] = "max"

    def __post_init__(self) -> None:
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise ConfigError(f"views need at least one scale, all of them positive, not {self.scales}")


@dataclass(frozen=True)
class View:
    """An image at one scale, row 0 as it is, row 1 (if any) mirrored. size: (height, width) [px] without padding;
    features: of the pyramid; semantic: logits at stride 1, without padding, row 1 mirrored back."""

    size: tuple[int, int]
    features: list[Tensor]
    semantic: Float[Tensor, "b k h w"]

    def __len__(self) -> int:
        return len(self.semantic)

    def boxes_from(self, boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> list[Float[Tensor, "n 4"]]:
        """Boxes in an image of `size` as they lie in each row."""
        scaled = _rescaled(boxes, size, self.size)
        return [scaled, _mirrored(scaled, self.size[1])][: len(self)]

    def boxes_to(self, boxes: Float[Tensor, "n 4"], row: int, size: tuple[int, int]) -> Float[Tensor, "n 4"]:
        """Boxes of a row as they lie in an image of `size`."""
        return _rescaled(_mirrored(boxes, self.size[1]) if row else boxes, self.size, size)


def predict_views(
    network: PanopticModel,
    images: Sequence[Float[Tensor, "3 _ _"]],
    settings: ViewSettings = ViewSettings(),
    *,
    score_threshold: float = 0.5,
    merge_threshold: float | None = None,
    overlap: float | None = None,
    stuff_area: int | None = None,
    output_sizes: Sequence[tuple[int, int]] | None = None,
) -> list[NetworkPrediction]:
    """Predictions of images, each from all its views; the arguments are those of `PanopticNetwork.predict`.

    The `semantic` of a prediction holds probabilities: the mean of the views' softmaxes. Memory holds the features of
    all views of one image at a time. Raises `ConfigError` where the network proposes no boxes.
    """
    if not isinstance(network, PanopticNetwork):
        raise ConfigError("several views need a network that proposes boxes, which a Mask2Former does not")
    outputs = [(image.shape[1], image.shape[2]) for image in images] if output_sizes is None else output_sizes
    limits = MergeLimits.of(network.settings.merge, score_threshold, merge_threshold, overlap, stuff_area)
    results = []
    with torch.no_grad(), evaluating(network):
        for image, output in zip(images, outputs, strict=True):
            size = size_to_predict(image, network.settings.rows)
            views = [look(network, image, _scaled(size, scale), flip=settings.flip) for scale in settings.scales]
            found, small_masks = _objects(network, views, size, score_threshold, settings)
            results.append(assembled(mean_probabilities(views, output), found, small_masks, size, limits))
    return results


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def look(network: PanopticNetwork, image: Float[Tensor, "3 h w"], size: tuple[int, int], *, flip: bool) -> View:
    """One scale of an image, plain and mirrored as one batch. What the batch is padded with is cut off before anything
    is mirrored back (N17)."""
    scaled = resized(image, size)
    features = network.backbone(network.batch([scaled, scaled.flip(-1)] if flip else [scaled]))
    semantic = upsample(network.sem_seg_head(features).float(), STRIDE)[:, :, : size[0], : size[1]]
    return View(size, features, torch.cat((semantic[:1], semantic[1:].flip(-1))))


def mean_probabilities(views: Sequence[View], size: tuple[int, int]) -> Float[Tensor, "k h w"]:
    """Mean over all views of the class probabilities of the pixels of an image of `size`."""
    total = torch.zeros((), device=views[0].semantic.device)
    for view in views:
        for logits in view.semantic:
            total = total + resized(logits, size).softmax(0)
    return total / sum(len(view) for view in views)


def _objects(
    network: PanopticNetwork,
    views: Sequence[View],
    size: tuple[int, int],
    score_threshold: float,
    settings: ViewSettings,
) -> tuple[Detections, Float[Tensor, "n s s"]]:
    """Objects in an image of `size` by descending score, and their masks."""
    found = [network.detect(view.features, [view.size] * len(view), score_threshold) for view in views]
    united = unite(network, found, views, size)
    if not network.num_things:
        return united, united.boxes.new_zeros(0, 1, 1)
    if settings.scores == "mean":
        united = _judged_again(network, views, united, size, score_threshold)
    return united, mean_masks(network, views, united, size)


def unite(
    network: PanopticNetwork, found: Sequence[list[Detections]], views: Sequence[View], size: tuple[int, int]
) -> Detections:
    """The detections of all rows of all views in an image of `size`: those that no better one of their class
    suppresses, the best ones if there are too many. An object's score is that of the best view."""
    boxes = torch.cat(
        [
            view.boxes_to(d.boxes, row, size)
            for view, rows in zip(views, found, strict=True)
            for row, d in enumerate(rows)
        ]
    )
    boxes = clip_boxes(boxes, size)
    scores = torch.cat([d.scores for rows in found for d in rows])
    classes = torch.cat([d.classes for rows in found for d in rows])
    box = network.settings.box
    kept = suppress(boxes, scores, classes, box.nms, box.detections)
    return Detections(boxes[kept], scores[kept], classes[kept])


def _judged_again(
    network: PanopticNetwork, views: Sequence[View], found: Detections, size: tuple[int, int], score_threshold: float
) -> Detections:
    """Detections with the mean over all views of the cascade's score for their class, where it passes the threshold."""
    total = torch.zeros_like(found.scores)
    for view in views:
        judged = network.roi_heads.cascade(view.features, view.boxes_from(found.boxes, size), [view.size] * len(view))
        total = total + sum(scores.gather(1, found.classes[:, None])[:, 0] for _, scores in judged)
    scores = total / sum(len(view) for view in views)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > score_threshold]
    return Detections(found.boxes[order], scores[order], found.classes[order])


def mean_masks(
    network: PanopticNetwork, views: Sequence[View], found: Detections, size: tuple[int, int]
) -> Float[Tensor, "n s s"]:
    """Mean over all views of the mask probabilities of detections in an image of `size`."""
    total = torch.zeros((), device=found.boxes.device)
    for view in views:
        rows = network.roi_heads.mask_probabilities(
            view.features, view.boxes_from(found.boxes, size), [found.classes] * len(view)
        )
        total = total + sum(masks.flip(-1) if row else masks for row, masks in enumerate(rows))
    return total / sum(len(view) for view in views)


def _rescaled(boxes: Float[Tensor, "n 4"], old: tuple[int, int], new: tuple[int, int]) -> Float[Tensor, "n 4"]:
    return boxes * boxes.new_tensor((new[1] / old[1], new[0] / old[0]) * 2)


def _mirrored(boxes: Float[Tensor, "n 4"], width: int) -> Float[Tensor, "n 4"]:
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack((width - x1, y0, width - x0, y1), -1)
