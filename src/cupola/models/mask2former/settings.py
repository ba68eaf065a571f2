"""Sizes and thresholds of a Mask2Former, and the preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cupola.errors import ConfigError
from cupola.models.settings import MergeSettings, TrunkSettings, VitSettings

NORM_GROUPS = 32
"""Groups of the GroupNorms in the pixel decoder of transformers."""


@dataclass(frozen=True)
class QueryNegativeSettings:
    """Which queries without an object are told to be nothing, since nobody marked the standing objects.

    rule: `all` = every one; `drop_loss` = one whose mask overlaps no pseudo mask by more than `drop_iou` may be an
    unmarked object (paper, Table 17); `ignore_aware` = of those, only one with more than `ignored` of its mask on
    pixels of a thing class without instance. What may be an unmarked object is still told to be no stuff.
    """

    rule: Literal["all", "drop_loss", "ignore_aware"] = "drop_loss"
    drop_iou: float = 0.4
    ignored: float = 0.3


@dataclass(frozen=True)
class Mask2FormerSettings:
    """The whole network; the defaults are the published ones for a ResNet-50 (Cheng et al., section 4.1).

    channels: of pixel decoder and transformer decoder, a multiple of 32; heads: of attention, dividing `channels`;
    encoder_layers, encoder_feedforward: of the pixel decoder; decoder_layers, decoder_feedforward: of the transformer
    decoder; points: a mask that its losses are taken at, `oversampling` times as many drawn to choose the `uncertain`
    share from; class_weight, mask_weight, dice_weight: factors of the losses, and of the costs in matching;
    nothing_weight: weight of a query without an object in the class loss.
    """

    trunk: TrunkSettings | VitSettings = TrunkSettings()  # noqa: RUF009 - frozen
    queries: int = 100
    channels: int = 256
    heads: int = 8
    encoder_layers: int = 6
    encoder_feedforward: int = 1024
    decoder_layers: int = 9
    decoder_feedforward: int = 2048
    points: int = 12544
    oversampling: float = 3.0
    uncertain: float = 0.75
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    nothing_weight: float = 0.1
    query_negatives: QueryNegativeSettings = QueryNegativeSettings()
    merge: MergeSettings = MergeSettings()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.channels % NORM_GROUPS:
            raise ConfigError(f"the channels of a Mask2Former must be a multiple of {NORM_GROUPS}, not {self.channels}")
        if self.channels % self.heads:
            raise ConfigError(f"{self.heads} attention heads do not divide {self.channels} channels evenly")
        for name in ("queries", "encoder_layers", "decoder_layers", "points"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a Mask2Former must be at least 1, not {getattr(self, name)}")


def mask2former() -> Mask2FormerSettings:
    """The published sizes on a ResNet-50, as in the paper's comparison of architectures (Table 17)."""
    return Mask2FormerSettings()
