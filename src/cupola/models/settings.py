"""Sizes and thresholds of the network: frozen dataclasses, one per part, and three presets as plain functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cupola.semantics.backbones.settings import VitSizes


@dataclass(frozen=True)
class TrunkSettings:
    """The convolutional trunk (spec-network 1.3).

    block: `bottleneck` = ResNet-50's (outputs are 4 times `widths`, 7x7 stem and max-pool), `basic` = two 3x3
    convolutions (outputs are `widths`, a stem of two 3x3 convolutions of stride 2); stem: channels of the first
    convolution; blocks, widths: of the four stages at strides 4, 8, 16, 32.
    """

    block: Literal["bottleneck", "basic"] = "bottleneck"
    stem: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of the four stages."""
        return tuple(width * (4 if self.block == "bottleneck" else 1) for width in self.widths)


@dataclass(frozen=True)
class VitSettings:
    """A vision transformer as trunk, with a simple feature pyramid instead of `FeaturePyramid`.

    architecture: dino_vits8, dino_vits16, dino_vitb8, dino_vitb16, or a transformer that timm knows by name, such as
    vit_base_patch14_reg4_dinov2 or vit_base_patch16_dinov3; frozen: its weights stay as they are given; sizes: of the
    transformer where they are not the published ones (DINO's only).
    """

    architecture: str = "dino_vitb16"
    frozen: bool = False
    sizes: VitSizes | None = None


@dataclass(frozen=True)
class RpnSettings:
    """The region proposal network (spec-network 1.5).

    sizes: anchor sizes of each level from P2 on, sqrt of the area [px]; five levels add P6. ratios: height / width.
    positive, negative: IoU from which an anchor is an object, below which it is background; best_floor: the best
    anchors of an object are positive too if their IoU exceeds this. samples: anchors an image in the loss.
    before_nms: proposals a level, after_nms: proposals an image (training, inference).
    """

    channels: int = 256
    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive: float = 0.7
    negative: float = 0.3
    best_floor: float = 0.0
    samples: int = 256
    positive_share: float = 0.5
    nms: float = 0.65
    before_nms_training: int = 2000
    after_nms_training: int = 4000
    before_nms: int = 1000
    after_nms: int = 1000


@dataclass(frozen=True)
class PoolerSettings:
    """ROIAlign (spec-network 1.6). sampling_ratio: samples a bin and side, 0 = adaptive; canonical_size: side of the
    box [px] that goes to level P4."""

    sampling_ratio: int = 0
    canonical_size: float = 224.0


@dataclass(frozen=True)
class BoxHeadSettings:
    """The cascade of box heads (spec-network 1.7); one entry of `ious` and `code_weights` a stage, 1 to 3 stages.

    ious: overlap from which a region is an object; code_weights: of the box code; channels: of the two linear layers;
    samples: regions an image in the loss; nms: per class; detections: kept an image.
    """

    ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    code_weights: tuple[tuple[float, float, float, float], ...] = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    channels: int = 1024
    pooled: int = 7
    samples: int = 512
    positive_share: float = 0.25
    nms: float = 0.5
    detections: int = 100


@dataclass(frozen=True)
class MaskHeadSettings:
    """The mask head (spec-network 1.8). positives: regions an image in the loss, 0 = all sampled positives."""

    convolutions: int = 4
    channels: int = 256
    pooled: int = 14
    class_agnostic: bool = False
    positives: int = 0


@dataclass(frozen=True)
class SemanticHeadSettings:
    """The semantic head (spec-network 1.9).

    layout: `per_level` = the paper's convolutions with GroupNorm on each level before the sum; `summed` = levels are
    summed first, then `convolutions` with BatchNorm. loss_stride: cross-entropy on every n-th pixel a side;
    loss_weight: factor of the loss.
    """

    layout: Literal["per_level", "summed"] = "per_level"
    channels: int = 128
    convolutions: int = 0
    loss_stride: int = 1
    loss_weight: float = 0.5


@dataclass(frozen=True)
class NegativeSettings:
    """Which negatives count in the loss, since nobody marked the standing objects.

    rule: `all` = every negative counts; `drop_loss` = a region counts only if it is an object or its IoU with some
    object exceeds `drop_iou`, nothing counts in an image without objects (paper; spec-network 2.6 [R]);
    `drop_loss_published` = what the published code does instead (`losses.published_drop_loss_weights`), for comparison;
    `ignore_aware` = a region does not count if more than `region_ignored` of its box is ignore (thing class without
    instance) and it overlaps no object by `region_iou`; an anchor if more than `anchor_ignored` of it is ignore
    (findings-demo, "Negatives (D)"). mean_over_kept: the class loss is a mean over the regions that count, not all.
    """

    rule: Literal["all", "drop_loss", "drop_loss_published", "ignore_aware"] = "drop_loss"
    drop_iou: float = 0.4
    region_ignored: float = 0.3
    region_iou: float = 0.3
    anchor_ignored: float = 0.4
    mean_over_kept: bool = False


@dataclass(frozen=True)
class MergeSettings:
    """The panoptic merge (spec-network 1.11). overlap: an object is rejected if more than this share of it is taken;
    stuff_area [px] and stuff_share (of the image): smallest stuff segment, the larger of both rules."""

    overlap: float = 0.5
    stuff_area: int = 4096
    stuff_share: float = 0.0


@dataclass(frozen=True)
class NetworkSettings:
    """The whole network; the defaults are the paper's.

    rows: images of fewer rows are enlarged to so many for prediction, 0 = none is (what is marked in small images is
    mostly large, and so small objects are found too); fpn_channels: of P2 to P6; separable: the 3x3 convolutions of
    pyramid and heads are depthwise and pointwise ones (not those of the layout `per_level`).
    """

    rows: int = 0
    trunk: TrunkSettings | VitSettings = TrunkSettings()
    fpn_channels: int = 256
    separable: bool = False
    rpn: RpnSettings = RpnSettings()
    pooler: PoolerSettings = PoolerSettings()
    box: BoxHeadSettings = BoxHeadSettings()
    mask: MaskHeadSettings = MaskHeadSettings()
    semantic: SemanticHeadSettings = SemanticHeadSettings()
    negatives: NegativeSettings = NegativeSettings()
    merge: MergeSettings = MergeSettings()


def paper() -> NetworkSettings:
    """The published Panoptic Cascade Mask R-CNN with a ResNet-50 (spec-network 1), 73 million parameters."""
    return NetworkSettings()


def vit_b() -> NetworkSettings:
    """The heads of `paper` on a ViT-B/16, DINO's by default: later work reports its largest gains from it."""
    return NetworkSettings(trunk=VitSettings())


def small() -> NetworkSettings:
    """Trains from nothing in minutes on two cores at 192x384, 4 million parameters.

    The recipe of findings-demo, with separable convolutions in pyramid and heads. A narrower trunk takes a fifth less
    time a step in bfloat16 and finds less; a wider one gains nothing (docs/networks.md).
    """
    return NetworkSettings(
        rows=288,
        trunk=TrunkSettings("basic", stem=32, blocks=(2, 2, 2, 2), widths=(48, 96, 160, 256)),
        fpn_channels=64,
        separable=True,
        rpn=RpnSettings(
            channels=64,
            sizes=((16.0, 22.6), (32.0, 45.2), (64.0, 90.5), (128.0, 181.0)),
            positive=0.55,
            best_floor=0.2,
            samples=128,
            nms=0.7,
            before_nms_training=400,
            after_nms_training=300,
            before_nms=400,
            after_nms=300,
        ),
        pooler=PoolerSettings(sampling_ratio=1, canonical_size=112.0),
        box=BoxHeadSettings(
            ious=(0.5,), code_weights=((10.0, 10.0, 5.0, 5.0),), channels=256, samples=96, positive_share=1 / 3
        ),
        mask=MaskHeadSettings(convolutions=3, channels=64, class_agnostic=True, positives=12),
        semantic=SemanticHeadSettings("summed", channels=64, convolutions=2, loss_stride=2, loss_weight=1.0),
        negatives=NegativeSettings("ignore_aware", mean_over_kept=True),
        merge=MergeSettings(stuff_area=0, stuff_share=0.0005),
    )


def tiny() -> NetworkSettings:
    """For tests and CI: `small` with a quarter of its widths, and no image is enlarged."""
    base = small()
    return replace(
        base,
        rows=0,
        trunk=TrunkSettings("basic", stem=16, blocks=(1, 1, 1, 1), widths=(16, 24, 32, 48)),
        fpn_channels=24,
        rpn=replace(
            base.rpn, channels=24, before_nms_training=200, after_nms_training=150, before_nms=200, after_nms=150
        ),
        box=replace(base.box, channels=64, samples=64),
        mask=replace(base.mask, convolutions=2, channels=24, positives=8),
        semantic=replace(base.semantic, channels=24),
    )
