"""A Mask2Former of transformers' parts on a trunk of ours, with losses that bear with unmarked objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import ERROR
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerModel
from transformers.modeling_outputs import BackboneOutput
from transformers.models.mask2former.modeling_mask2former import Mask2FormerHungarianMatcher
from transformers.utils import logging

from cupola.models.boxes import boxes_of_masks, one_each
from cupola.models.interface import PanopticModel
from cupola.models.layers import upsample
from cupola.models.mask2former.queries import (
    Segments,
    at_points,
    may_be_unmarked,
    point_losses,
    query_class_losses,
    segments_of,
    uncertain_points,
)
from cupola.models.mask2former.settings import Mask2FormerSettings
from cupola.models.merge import MergeLimits, merge_panoptic
from cupola.models.panoptic import DEVIATION, MEAN, padded_batch, resized
from cupola.models.records import LossPart, NetworkPrediction, Target
from cupola.models.resnet import ResNet
from cupola.models.settings import VitSettings
from cupola.models.vit import SimpleFeaturePyramid

STRIDE = 4
"""Stride of the queries' masks [px]."""

CERTAINLY_NOT = -20.0
"""Mask logit that matching is given for pixels that do not count: as empty in every query as in every segment."""

FAINT = 1e-6
"""Least score of a class before its logarithm is taken."""


class Encoder(nn.Module):
    """Our trunk as transformers calls a backbone. channels: of the maps at strides 4, 8, 16, 32."""

    def __init__(self, settings: Mask2FormerSettings) -> None:
        super().__init__()
        trunk = settings.trunk
        if isinstance(trunk, VitSettings):
            self.maps: nn.Module = SimpleFeaturePyramid(trunk, settings.channels, with_p6=False, separable=False)
            self.channels = [settings.channels] * 4
        else:
            self.maps, self.channels = ResNet(trunk), list(trunk.channels)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> BackboneOutput:
        return BackboneOutput(feature_maps=tuple(self.maps(images)))


class Mask2FormerNetwork(PanopticModel):
    """Images to panoptic maps, by queries.

    num_things, num_stuff: thing and stuff pseudo classes (T, S), together at least one.
    """

    settings: Mask2FormerSettings
    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: Mask2FormerSettings, num_things: int, num_stuff: int) -> None:
        super().__init__()
        if num_things < 0 or num_stuff < 0 or num_things + num_stuff == 0:
            raise ValueError(f"there must be classes, but there are {num_things} things and {num_stuff} stuff")
        self.settings = settings
        self.num_things = num_things
        self.num_stuff = num_stuff
        encoder = Encoder(settings)
        self.net: Any = Mask2FormerModel(_configuration(settings, encoder.channels))
        self.net.pixel_level_module.encoder = encoder  # in the place of one that only told its channels
        self.class_predictor = nn.Linear(settings.channels, num_things + num_stuff + 1)
        self.matcher = Mask2FormerHungarianMatcher(
            settings.class_weight, settings.mask_weight, settings.dice_weight, settings.points
        )
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(3, 1, 1), persistent=False)

    @property
    def trunk(self) -> nn.Module:
        """The ResNet or the transformer that looks at the image."""
        maps: nn.Module = self.net.pixel_level_module.encoder.maps
        return maps.bottom_up if isinstance(maps, SimpleFeaturePyramid) else maps

    def queries(self, images: Sequence[Float[Tensor, "3 _ _"]]) -> list[tuple[Tensor, Tensor]]:
        """Mask logits b x Q x h x w at stride 4 and class logits b x Q x (T + S + 1), of each layer of the decoder."""
        found = self.net(padded_batch(images, self.mean, self.deviation), output_hidden_states=True)
        states = found.transformer_decoder_intermediate_states
        return [
            (masks.float(), self.class_predictor(state.transpose(0, 1)).float())
            for masks, state in zip(found.masks_queries_logits, states, strict=True)
        ]

    # ---- training

    def loss_parts(
        self, images: Sequence[Float[Tensor, "3 _ _"]], targets: Sequence[Target], generator: torch.Generator
    ) -> dict[str, LossPart]:
        """See `PanopticModel`. `class`, `mask` and `dice`, each the sum over all layers of the decoder."""
        layers = self.queries(images)
        size = tuple(STRIDE * side for side in layers[0][0].shape[-2:])
        segments = [segments_of(target, self.num_things, (size[0], size[1])) for target in targets]
        generators = one_each(generator, len(images))
        zero = layers[0][0].sum() * 0 + layers[0][1].sum() * 0
        sums = {"class": zero, "mask": zero, "dice": zero}
        weight = zero.detach()
        for masks, logits in layers:
            for index, (segment, source) in enumerate(zip(segments, generators, strict=True)):
                queries, matched = self._matched(masks[index], logits[index], segment, source)
                loss, one_weight = self._class_loss(masks[index], logits[index], segment, queries, matched)
                entropy, dice = self._mask_losses(masks[index, queries], segment, matched, source)
                sums = {
                    "class": sums["class"] + loss, "mask": sums["mask"] + entropy, "dice": sums["dice"] + dice
                }  # fmt: skip
                weight = weight + one_weight
        settings = self.settings
        count = sum(len(segment.classes) for segment in segments)
        mean_weight = weight / len(layers)  # as many queries are matched in every layer
        return {
            "class": LossPart(settings.class_weight * sums["class"] / mean_weight, mean_weight),
            "mask": LossPart(settings.mask_weight * sums["mask"] / max(count, 1), count),
            "dice": LossPart(settings.dice_weight * sums["dice"] / max(count, 1), count),
        }

    @torch.no_grad()
    def _matched(
        self, masks: Tensor, logits: Tensor, segments: Segments, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Queries of one image and the segments that they are to show: one each, as far as there are queries."""
        known = segments.thinned(STRIDE).known
        with _drawing_from(generator, masks.device):
            ((queries, matched),) = self.matcher(
                masks.masked_fill(~known, CERTAINLY_NOT)[None],
                logits[None],
                [(segments.masks & segments.known).float()],
                [segments.classes],
            )
        return queries.to(masks.device), matched.to(masks.device)

    def _class_loss(
        self, masks: Tensor, logits: Tensor, segments: Segments, queries: Tensor, matched: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of one image's class losses, and the sum of the weights."""
        nothing = logits.shape[1] - 1
        wanted = torch.full((len(logits),), nothing, dtype=torch.int64, device=logits.device)
        wanted[queries] = segments.classes[matched]
        shown = masks.detach() > 0
        unmarked = may_be_unmarked(shown, segments.thinned(STRIDE), self.settings.query_negatives)
        losses = query_class_losses(logits, wanted, unmarked & (wanted == nothing), self.num_things)
        weights = torch.where(wanted == nothing, self.settings.nothing_weight, 1.0)
        return (losses * weights).sum(), weights.sum()

    def _mask_losses(
        self, masks: Tensor, segments: Segments, matched: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Sums of the cross-entropies and the dice losses of one image's matched queries."""
        settings = self.settings
        if not len(matched):
            return masks.sum() * 0, masks.sum() * 0
        with torch.no_grad():
            points = uncertain_points(masks, settings.points, settings.oversampling, settings.uncertain, generator)
            wanted = at_points(segments.masks[matched].float(), points)
            known = at_points(segments.known.float().expand(len(points), -1, -1), points) > 0.5
        return point_losses(at_points(masks, points), wanted, known)

    # ---- prediction

    def predicted(
        self,
        images: Sequence[Float[Tensor, "3 _ _"]],
        outputs: Sequence[tuple[int, int]],
        score_threshold: float,
        limits: MergeLimits,
    ) -> list[NetworkPrediction]:
        """See `PanopticModel`. An object's score is that of its class times the mean probability within its mask; the
        score of a class at a pixel is the sum over the queries of their shares for both, and `semantic` its logarithm
        (Cheng et al., 2022; MaskFormer, 2021, section 3.4)."""
        masks, logits = self.queries(images)[-1]
        results = []
        for index, (image, output) in enumerate(zip(images, outputs, strict=True)):
            size = (image.shape[1], image.shape[2])
            shares = logits[index].softmax(1)
            semantic = _enlarged(self._semantic(masks[index], shares), size, output).clamp(min=FAINT).log()
            shown, scores, classes = self._objects(masks[index], shares, size, output, score_threshold)
            panoptic, segments = merge_panoptic(
                semantic.argmax(0),
                shown,
                scores,
                classes,
                score_threshold=limits.score,
                overlap=limits.overlap,
                stuff_area=limits.least_stuff(output[0] * output[1]),
            )
            boxes = boxes_of_masks(shown)
            results.append(NetworkPrediction(semantic, boxes, scores, classes, shown, panoptic, segments))
        return results

    def _semantic(self, masks: Float[Tensor, "q h w"], shares: Float[Tensor, "q k"]) -> Float[Tensor, "c h w"]:
        """Scores of "some thing" and of the stuff classes at stride 4."""
        things = shares[:, : self.num_things].sum(1, keepdim=True)
        channels = torch.cat((things, shares[:, self.num_things : -1]), 1)
        return torch.einsum("qc,qhw->chw", channels, masks.sigmoid())

    def _objects(
        self, masks: Tensor, shares: Tensor, size: tuple[int, int], output: tuple[int, int], threshold: float
    ) -> tuple[Bool[Tensor, "n h w"], Float[Tensor, "n"], Tensor]:
        """Masks, scores and classes of the things, by descending score."""
        if not self.num_things:
            nothing = masks.new_zeros(0)
            return masks.new_zeros(0, *output, dtype=torch.bool), nothing, nothing.long()
        best, classes = shares[:, : self.num_things].max(1)
        good = best > threshold  # the score is this at most
        probabilities = _enlarged(masks[good], size, output).sigmoid()
        shown = probabilities > 0.5
        areas = shown.flatten(1).sum(1)
        scores = best[good] * (probabilities * shown).flatten(1).sum(1) / areas.clamp(min=1)
        order = scores.argsort(descending=True, stable=True)
        order = order[(scores[order] > threshold) & (areas[order] > 0)]
        return shown[order], scores[order], classes[good][order]


def _configuration(settings: Mask2FormerSettings, channels: list[int]) -> Mask2FormerConfig:
    """What transformers builds the decoders from, without its warning that it knows no Mask2Former on a ResNet."""
    loudness = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        return _described(settings, channels)
    finally:
        logging.set_verbosity(loudness)


def _described(settings: Mask2FormerSettings, channels: list[int]) -> Mask2FormerConfig:
    return Mask2FormerConfig(
        # Replaced at once; of this the decoder only learns the numbers of channels.
        backbone_config={
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": channels,
            "depths": [1, 1, 1, 1],
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        feature_size=settings.channels,
        mask_feature_size=settings.channels,
        hidden_dim=settings.channels,
        num_attention_heads=settings.heads,
        encoder_layers=settings.encoder_layers,
        encoder_feedforward_dim=settings.encoder_feedforward,
        decoder_layers=settings.decoder_layers + 1,  # transformers counts the prediction before the first
        dim_feedforward=settings.decoder_feedforward,
        num_queries=settings.queries,
    )


def _enlarged(maps: Float[Tensor, "n h w"], size: tuple[int, int], output: tuple[int, int]) -> Float[Tensor, "n _ _"]:
    """Maps of a padded image at stride 4, at `output`; the image without padding has `size`."""
    if not len(maps):  # which torch does not resize
        return maps.new_zeros(0, *output)
    return resized(upsample(maps[None], STRIDE)[0, :, : size[0], : size[1]], output)


@contextmanager
def _drawing_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Torch's own random numbers come of the generator for a while."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
