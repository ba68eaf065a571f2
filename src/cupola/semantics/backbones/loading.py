"""From settings to a backbone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from cupola.errors import ConfigError
from cupola.semantics.backbones.settings import (
    DINO_RESNET,
    DINO_VITS,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    BackboneSettings,
    VitSizes,
)

if TYPE_CHECKING:
    import torch

    from cupola.semantics.backbones.networks import Backbone


def load_backbone(settings: BackboneSettings, device: torch.device) -> Backbone:
    """The backbone with its weights, frozen, in evaluation mode, on the device.

    Raises `ConfigError` where no weights are given or timm does not know the name, `CheckpointError` where the file is
    missing, damaged, unsafe or of another architecture.
    """
    import torch

    from cupola.semantics.backbones.weights import load_weights, read_weights

    if settings.weights is None:
        raise ConfigError(
            f"the backbone {settings.architecture} needs a file of weights, which is never downloaded; docs/weights.md "
            "says where it is published"
        )
    state = read_weights(settings.weights)
    # The file gives DINO's networks every number; timm's may compute some when they are made.
    is_dino = settings.architecture in (*DINO_VITS, DINO_RESNET)
    with torch.device("meta") if is_dino else nullcontext():
        backbone = untrained_backbone(settings.architecture, settings.level)
    load_weights(backbone.network, state, settings.weights, settings.architecture)
    return backbone.eval().requires_grad_(False).to(device)


def random_backbone(architecture: str, seed: int, level: int = 3, **sizes: int) -> Backbone:
    """A backbone of random weights on the CPU, frozen, in evaluation mode: for tests and for measuring time.

    sizes: fields of `VitSizes` that differ from the published ones. Leaves torch's own random numbers alone.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return untrained_backbone(architecture, level, **sizes).eval().requires_grad_(False)


def untrained_backbone(architecture: str, level: int = 3, **sizes: int) -> Backbone:
    """A backbone whose weights torch's own generator draws, on the CPU, to be trained or given weights.

    sizes: fields of `VitSizes` that differ from the published ones. Raises `ConfigError` where nobody knows the name.
    """
    from dataclasses import replace

    from cupola.semantics.backbones.networks import DinoResnet, DinoVit, TimmBackbone

    if architecture in DINO_VITS:
        published: VitSizes = DINO_VITS[architecture]
        return DinoVit(replace(published, **sizes))
    if sizes:
        raise ConfigError(f"only the sizes of DINO's transformers can be changed, not those of {architecture}")
    return DinoResnet(level) if architecture == DINO_RESNET else TimmBackbone(architecture)


def normalised(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "3 h w"]:
    """An RGB image as backbones take it: in [0, 1], minus ImageNet's mean, over its deviation."""
    mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_DEVIATION, np.float32)
    scaled = (image.astype(np.float32) / np.float32(255) - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
