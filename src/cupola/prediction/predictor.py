"""`cupola.load(name)(image)`: a network ready for images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor
from torch.nn import functional

from cupola.config import plain
from cupola.devices import pick_device
from cupola.errors import CheckpointError, ConfigError
from cupola.io.coco_panoptic import from_segments
from cupola.models import NetworkPrediction, PanopticModel, predict_views
from cupola.models.fusion import fused
from cupola.prediction.classes import ClassSystem, class_system
from cupola.prediction.pixels import Picture, rgb_of, shrunk
from cupola.prediction.result import Prediction, stuff_classes
from cupola.weights.finding import find_network

Precision = Literal["float32", "bfloat16"]
"""Of the network's convolutions and matrix products; boxes, scores and masks are float32."""


@dataclass(frozen=True)
class PredictionSettings:
    """How a network is asked (spec-network 4.2). Raises `ConfigError` outside the ranges told.

    threshold: score from which an object counts, 0 to 1; overlap: an object is rejected if more than this share of it
    is taken by better ones; stuff_area: smallest stuff segment, in pixels, or as a share of the image where below 1;
    both from the network's settings where None. tta: asks for six views of each image, and takes six times as long
    (spec-network 3.3, 3.6). max_pixels: larger images are shrunk to so many pixels for the network [px]. precision: of
    the network's convolutions and matrix products; `bfloat16` is about twice as fast where the processor has it.
    """

    threshold: float = 0.5
    overlap: float | None = None
    stuff_area: float | None = None
    tta: bool = False
    max_pixels: int = 1 << 23
    """Holds a 4K frame (3840 x 2160)."""
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold must be a score from 0 to 1, not {self.threshold}")
        if self.overlap is not None and not 0 <= self.overlap <= 1:
            raise ConfigError(f"overlap must be a share from 0 to 1, not {self.overlap}")
        if self.stuff_area is not None and not self.stuff_area >= 0:
            raise ConfigError(f"stuff_area must be a number of pixels or a share of the image, not {self.stuff_area}")
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels must be a number of pixels, not {self.max_pixels}")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}")


@dataclass(frozen=True)
class Predictor:
    """A network ready for images. Called on one, it gives a `Prediction`."""

    network: PanopticModel
    classes: ClassSystem
    device: torch.device
    settings: PredictionSettings = PredictionSettings()

    def __call__(self, image: Picture, *, scores: bool = False) -> Prediction:
        """What the network says of one image: a path, an array or an image of Pillow (see `cupola.prediction.Picture`).

        scores: keep the class scores of every pixel (23 channels: 46 bytes a pixel). Raises `ImageError`.
        """
        return self.batch([image], scores=scores)[0]

    def batch(self, images: Sequence[Picture], *, scores: bool = False) -> list[Prediction]:
        """What the network says of several images, which may differ in size: those of one size go through it together,
        so that no result depends on the padding that another image needs. Raises `ImageError`."""
        pixels = [rgb_of(image) for image in images]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(pixels):
            by_size.setdefault(image.shape, []).append(number)
        results: list[Prediction | None] = [None] * len(pixels)
        for numbers in by_size.values():
            same = [pixels[number] for number in numbers]
            for number, raw in zip(numbers, self._ask(same), strict=True):
                results[number] = self._prediction(pixels[number], raw, scores)
        return [result for result in results if result is not None]

    def fingerprint(self) -> str:
        """A hash of the network, its classes and the settings: equal where the predictions are."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        about = [plain(self.network.settings), plain(self.classes), plain(self.settings)]
        digest.update(json.dumps(about, sort_keys=True).encode())
        return digest.hexdigest()

    def _ask(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[NetworkPrediction]:
        """The network on images of one size, shrunk where they are too large for it."""
        settings = self.settings
        area = images[0].shape[0] * images[0].shape[1]
        small = [shrunk(image, settings.max_pixels) for image in images]
        tensors = [torch.from_numpy(image).to(self.device).permute(2, 0, 1).float() / 255 for image in small]
        least = None
        if settings.stuff_area is not None:
            share = settings.stuff_area if settings.stuff_area < 1 else settings.stuff_area / area
            least = round(share * small[0].shape[0] * small[0].shape[1])
        ask = partial(predict_views, self.network) if settings.tta else self.network.predict
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            return ask(tensors, score_threshold=settings.threshold, overlap=settings.overlap, stuff_area=least)

    def _prediction(self, image: UInt8[np.ndarray, "h w 3"], raw: NetworkPrediction, scores: bool) -> Prediction:
        """Network classes become the pseudo classes of the labels it learnt from (spec-network 1.12), and the map gets
        the size of the image."""
        size = image.shape[1], image.shape[0]
        ids = _enlarged(raw.panoptic.cpu().numpy(), size)
        areas = np.bincount(ids.ravel(), minlength=len(raw.segments) + 1)
        things, stuff = self.classes.things, self.classes.stuff
        segments = tuple(
            replace(s, category=things[s.category] if s.is_thing else stuff[s.category - 1], area=int(areas[s.id]))
            for s in raw.segments
        )
        channels = _enlarged(raw.semantic.argmax(0).to(torch.int16).cpu().numpy(), size)
        kept = _probabilities(raw.semantic, size, logits=not self.settings.tta) if scores else None
        panoptic = from_segments(ids, segments)
        return Prediction(image, panoptic, segments, stuff_classes(channels, self.classes), kept, self.classes)


def _enlarged(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at `size` = (width, height), by the nearest pixel."""
    return array if array.shape == size[::-1] else cv2.resize(array, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _probabilities(semantic: Tensor, size: tuple[int, int], *, logits: bool) -> Float16[np.ndarray, "k h w"]:
    """Class probabilities of every pixel at `size` = (width, height), of logits or of probabilities."""
    if semantic.shape[1:] != size[::-1]:
        semantic = functional.interpolate(semantic[None], size[::-1], mode="bilinear", align_corners=False)[0]
    return (semantic.softmax(0) if logits else semantic).half().cpu().numpy()


def load(
    name: str | Path,
    *,
    device: str = "auto",
    threshold: float = 0.5,
    names: str | Path | None = None,
    overlap: float | None = None,
    stuff_area: float | None = None,
    tta: bool = False,
    max_pixels: int = PredictionSettings.max_pixels,
    precision: Precision = "float32",
) -> Predictor:
    """A predictor from a network, wherever it is.

    Args:
        name: directory that `cupola train` or `cupola weights convert` wrote; a published checkpoint; a name of
            `cupola weights list` such as `cups`; or a repository of the Hugging Face hub, as user/name. What exists on
            this machine goes first; the last two are fetched once.
        device: auto, cpu or cuda.
        threshold: score from which an object counts, 0 to 1.
        names: names of the classes: result.json of `cupola evaluate` (its matching), or YAML or JSON {id: name}.
        overlap: an object is rejected if more than this share of it is taken by better ones; the network's own rule
            by default.
        stuff_area: smallest stuff segment, in pixels, or as a share of the image where below 1; the network's own rule
            by default.
        tta: ask for six views of each image, enlarged, shrunk and mirrored, which takes six times as long.
        max_pixels: larger images are shrunk to so many pixels for the network; the results have the image's size.
        precision: of the network's convolutions and matrix products; bfloat16 is about twice as fast where the
            processor has it.

    Raises:
        CheckpointError: there is no such network, or it is damaged.
        DownloadError: it is not on this machine and cannot be fetched.
        ConfigError: a setting is out of range, or `names` does not name this network's classes.
    """
    settings = PredictionSettings(threshold, overlap, stuff_area, tta, max_pixels, precision)
    place = pick_device(device)
    network, card = find_network(name)
    classes = class_system(card, None if names is None else Path(names))
    known = len(classes.things), len(classes.stuff)
    if known != (network.num_things, network.num_stuff):
        raise CheckpointError(
            f"{name}: its card names {known[0]} thing and {known[1]} stuff classes, but the network has "
            f"{network.num_things} and {network.num_stuff}; train or convert it again"
        )
    return Predictor(fused(network.to(place), getattr(torch, precision)), classes, place, settings)
