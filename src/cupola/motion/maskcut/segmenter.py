"""MaskCut behind the interface of motion segmenters. torch is imported when the network is first read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import binary_fill_holes

from cupola.errors import CheckpointError, ConfigError
from cupola.io import content_hash
from cupola.motion.maskcut.cutting import find_objects
from cupola.semantics.backbones import BackboneSettings, load_backbone, normalised
from cupola.semantics.backbones.settings import DINO_VITS
from cupola.semantics.crf import CrfSettings, dense_crf
from cupola.types import Correspondence, Instances, StereoClip, StereoFrame

if TYPE_CHECKING:
    import torch

    from cupola.semantics.backbones.networks import DinoVit

MASKCUT_CRF = CrfSettings(3.0, 7.0, 50.0, 5.0, 10.0, steps=10)
"""Gaussian kernel 3, weight 7; bilateral kernel 50 px and 5 grey levels, weight 10 (spec-stage1 6.7)."""

MIN_AGREEMENT = 0.5
"""A mask that the CRF changes more than to this IoU is dropped (CutLER's code)."""


@dataclass(frozen=True)
class MaskCutSegmenter:
    """Objects of a single image by normalised cuts on DINO's features, refined by a dense CRF; no motion is used.

    Args:
        weights: file of DINO's weights, as published (`docs/weights.md`); never downloaded.
        architecture: dino_vits8, dino_vits16, dino_vitb8 or dino_vitb16.
        image_side: side of the square that the image is resized to [px], a multiple of the patch.
        tau: cosine of two patches' features above which they are alike.
        masks: most objects an image; N in CutLER.
        device: of the network: auto, cpu or cuda.
    """

    weights: Path
    architecture: str = "dino_vitb8"
    image_side: int = 480
    tau: float = 0.15
    masks: int = 3
    device: str = "auto"

    name: ClassVar[str] = "maskcut"
    may_differ: ClassVar[tuple[str, ...]] = ("device",)

    def __post_init__(self) -> None:
        if self.architecture not in DINO_VITS:
            raise ConfigError(
                f"MaskCut needs the keys of one of DINO's transformers, {', '.join(DINO_VITS)}, not {self.architecture}"
            )
        patch = DINO_VITS[self.architecture].patch
        if self.image_side < patch or self.image_side % patch:
            raise ConfigError(f"motion.image_side must be a multiple of the patch, {patch} px, not {self.image_side}")
        if not -1 <= self.tau < 1:
            raise ConfigError(f"motion.tau must be a cosine, at least -1 and below 1, not {self.tau}")
        if self.masks < 1:
            raise ConfigError(f"motion.masks must be at least 1, not {self.masks}")

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """Loads the network. Raises `CheckpointError` or `ConfigError` where that cannot be done."""
        self._network()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the file of weights. Raises `CheckpointError` where it is missing."""
        _stamp(self.weights)
        return {"weights": content_hash(self.weights)}

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """The objects of the clip's first frame; correspondence and seed are not read. Raises `CheckpointError`."""
        return self.objects(clip.first)

    def objects(self, frame: StereoFrame) -> Instances:
        """Objects on the left image, at most `masks`, without motions; a score is the IoU of the cut with what the CRF
        made of it. Pixels that do not show the scene belong to none. Nothing is drawn at random.

        Raises `CheckpointError` where the weights can no longer be read.
        """
        side = (self.image_side, self.image_side)
        image = cv2.resize(frame.left, side, interpolation=cv2.INTER_AREA).astype(np.uint8)
        masks, scores = [], []
        for cells in find_objects(self._keys(image), self.tau, self.masks):
            cut = cv2.resize(cells.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST) > 0
            refined = refine(image, cut)
            agreement = (cut & refined).sum() / (cut | refined).sum()
            mask = _at_size(refined, frame.size) & frame.valid
            if agreement >= MIN_AGREEMENT and mask.any():
                masks.append(mask)
                scores.append(agreement)
        if not masks:
            return Instances.empty(*frame.size)
        return Instances(np.stack(masks), np.array(scores, np.float32))

    def _keys(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "c rows columns"]:
        import torch

        from cupola.semantics.backbones.threads import spread

        network, device = self._network()
        [keys] = spread(network.keys, [torch.from_numpy(normalised(image)).to(device)[None]], device)
        return np.asarray(keys[0].cpu().numpy())

    def _network(self) -> tuple[DinoVit, torch.device]:
        return _loaded(self.architecture, self.weights, self.device, *_stamp(self.weights))


def refine(image: UInt8[np.ndarray, "h w 3"], cut: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask along the image's edges, by a dense CRF, without holes. image: RGB."""
    mask = cut.astype(np.float32)
    powers = np.exp(np.stack([1 - mask, mask]))  # the published unary: softmax of the mask itself
    blue_first = np.ascontiguousarray(image[..., ::-1])
    field = dense_crf(blue_first, powers / powers.sum(0), MASKCUT_CRF)
    filled: Bool[np.ndarray, "h w"] = binary_fill_holes(field.argmax(0) == 1)
    return filled


def _at_size(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """The mask in an image of another size (height, width) [px]."""
    resized = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    covered: Bool[np.ndarray, "h2 w2"] = resized > 0.5
    return covered


def _stamp(weights: Path) -> tuple[int, int]:
    """Size and time of change of the file: another one is read anew. Raises `CheckpointError` where it is missing."""
    try:
        about = weights.stat()
    except OSError as error:
        raise CheckpointError(
            f"there is no file of DINO weights at {weights}; give --motion.weights its path (docs/weights.md says "
            "where it is published), or leave --motion out"
        ) from error
    return about.st_size, about.st_mtime_ns


@lru_cache(maxsize=1)
def _loaded(architecture: str, weights: Path, device: str, *_: int) -> tuple[DinoVit, torch.device]:
    """Loaded once a process, since the frames come one by one."""
    from cupola.devices import pick_device
    from cupola.semantics.backbones.networks import DinoVit

    where = pick_device(device)
    network = load_backbone(BackboneSettings(architecture, weights), where)
    assert isinstance(network, DinoVit)  # of all architectures only these pass __post_init__
    return network, where
