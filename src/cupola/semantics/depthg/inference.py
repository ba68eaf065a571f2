"""Pseudo classes at two scales, weighed by depth (spec-stage1 5.2; paper Eq. 3).

The low pass sees the whole image and knows near things, which fill its cells; the high pass sees far things in
windows. Every pixel averages the two, the low one with the weight 1 / (depth + 1 m).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from cupola.semantics.backbones import normalised
from cupola.semantics.backbones.settings import IMAGENET_DEVIATION, IMAGENET_MEAN
from cupola.semantics.backbones.threads import spread
from cupola.semantics.depthg.checkpoint import Depthg
from cupola.semantics.depthg.layout import Place, Size, high_size, low_size, windows
from cupola.semantics.depthg.settings import DepthgSettings, Form, Space

FARTHEST = 0.5
"""Disparities up to this are far away, however far [px] (spec-stage1 5.2)."""

TINY = 1e-10
"""Added to the disparity by the published code [px] (spec-stage1 2)."""

GPU_BATCH = 8
"""Windows at once on a GPU."""

CPU_CELLS = 1600
"""Cells of the windows at once in a thread: a window of 320 x 320 px. More gain nothing there, fewer are slower."""

STRIP = 32
"""Rows of pixels whose codes are held at once: 16 MB for 100 channels and 1280 columns."""


def depth_weight(
    disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], scale: float, form: Form = "paper"
) -> Float32[np.ndarray, "h w"]:
    """Weight of the low pass, 1 / (depth + 1 m). scale: focal length times baseline [px m].

    What is far away or unknown gets the depth of half a pixel of disparity. The published code takes an unknown
    disparity for 0 and that for a depth of 0, so that the sky is classified by the low pass alone (S14, S16).
    """
    product = np.float32(scale)
    if form == "published":
        known = np.where(valid, disparity, np.float32(0))
        depth = product / (known + np.float32(TINY)) * (known != 0)
    else:
        near = valid & (np.where(valid, disparity, np.float32(0)) > FARTHEST)
        depth = product / np.where(near, disparity, np.float32(FARTHEST))
    weight: Float32[np.ndarray, "h w"] = 1 / (depth + 1)
    return weight


def predict(
    network: Depthg,
    image: UInt8[np.ndarray, "h w 3"],
    weight: Float32[np.ndarray, "h w"],
    settings: DepthgSettings,
    made: dict[Any, Tensor] | None = None,
) -> Float32[np.ndarray, "k h w"]:
    """Probability of every pseudo class at every pixel of an RGB image; the same for any number of threads.

    weight: of the low pass, read where `settings.scales` is "depth-guided". made: passes of this network over this
    image, which other settings can share; new ones are added. Raises `ConfigError` where the published form is asked
    for and the network's cells do not fit into the image.
    """
    passes, prepared = {} if made is None else made, normalised(image)

    def scores_of(find: Callable[..., Float32[Tensor, "k h w"]]) -> Float32[Tensor, "k h w"]:
        key = find.__name__, replace(settings, scales="mean", crf=True)
        if key not in passes:
            passes[key] = find(network, prepared, settings)
        return passes[key]

    if settings.scales == "low":
        scores = scores_of(low_scores)
    elif settings.scales == "high":
        scores = scores_of(high_scores)
    else:
        low, high = scores_of(low_scores), scores_of(high_scores)
        share = weight if settings.scales == "depth-guided" else np.full_like(weight, 0.5)
        scores = (low - high).mul_(torch.from_numpy(share).to(low.device)).add_(high)
    probabilities = scores.softmax(0) if settings.space == "log" else scores
    return np.asarray(probabilities.cpu().numpy())


def low_scores(
    network: Depthg, image: Float32[np.ndarray, "3 h w"], settings: DepthgSettings
) -> Float32[Tensor, "k h w"]:
    """Scores of the whole image at the low size, at its own: (log-)probabilities, see `settings.space`.

    image: normalised. Codes, not scores, are averaged with those of the mirrored image and then interpolated.
    """
    size, patch = (image.shape[1], image.shape[2]), network.backbone.patch
    scaled = low_size(size, settings, patch)
    device = _device(network)
    small = resized(image, scaled).to(device)[None]
    if settings.flip_low:
        small = torch.cat([small, small.flip(-1)])
    batches = torch.split(small, _batch(scaled, settings, network))
    code = torch.cat(list(spread(partial(codes, network), batches, device)))
    mean = code[0] if len(code) == 1 else (code[0] + code[1].flip(-1)) / 2
    place = Place(size, scaled, (0, 0), scaled)
    [scores] = spread(partial(pixel_scores, network, place=place, space=settings.space), [mean], device)
    return scores


def high_scores(
    network: Depthg, image: Float32[np.ndarray, "3 h w"], settings: DepthgSettings
) -> Float32[Tensor, "k h w"]:
    """Scores by windows of the image at the high size, averaged where they overlap; see `low_scores`."""
    size, patch = (image.shape[1], image.shape[2]), network.backbone.patch
    scaled = high_size(size, settings, patch)
    plan = windows(scaled, settings, patch)
    device = _device(network)
    above, left = plan.padding
    large = functional.pad(resized(image, scaled).to(device), (left, left, above, above))
    height, width = plan.size

    def look(corners: Sequence[tuple[int, int]]) -> list[tuple[Place, Tensor]]:
        crops = [large[:, y + above : y + above + height, x + left : x + left + width] for y, x in corners]
        places = [Place(size, scaled, corner, plan.size) for corner in corners]
        found = codes(network, torch.stack(crops))
        return [
            (place, pixel_scores(network, code, place, settings.space))
            for place, code in zip(places, found, strict=True)
        ]

    batch = _batch(plan.size, settings, network)
    groups = [plan.corners[start : start + batch] for start in range(0, len(plan.corners), batch)]
    scores, cover = large.new_zeros(network.probe.classes, *size), large.new_zeros(size)
    for group in spread(look, groups, device):
        for place, part in group:
            scores[:, *place.pixels] += part
            cover[place.pixels] += 1
    return scores.div_(cover)


def codes(network: Depthg, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b d rows columns"]:
    """Codes of normalised images, one a cell."""
    code: Tensor = network.head(network.backbone(images))
    return code


def pixel_scores(
    network: Depthg, code: Float32[Tensor, "d rows columns"], place: Place, space: Space
) -> Float32[Tensor, "k y x"]:
    """Scores of the pixels that a window decides: codes between cells are interpolated, then compared with the centres.
    A strip of rows at a time, since codes have many channels."""
    vertical, horizontal = (torch.from_numpy(weights).to(code.device) for weights in place.sampling(code.shape[1:]))
    scores = code.new_empty(network.probe.classes, len(vertical), len(horizontal))
    for start in range(0, len(vertical), STRIP):
        rows = slice(start, start + STRIP)
        strip = torch.einsum("yr,drc->dyc", vertical[rows], code) @ horizontal.T
        scores[:, rows] = network.probe.log_probabilities(strip[None])[0]
    return scores if space == "log" else scores.exp_()


def resized(image: Float32[np.ndarray, "3 h w"], size: Size) -> Float32[Tensor, "3 h2 w2"]:
    """Area filter where the image shrinks, so that fine texture does not alias, linear where it grows. To half the
    size this is the published code's bilinear filter."""
    if image.shape[1:] == size:
        return torch.from_numpy(image)
    shrinks = size[0] < image.shape[1]
    scaled = cv2.resize(
        np.ascontiguousarray(image.transpose(1, 2, 0)),
        (size[1], size[0]),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def crf_image(image: UInt8[np.ndarray, "h w 3"], form: Form) -> UInt8[np.ndarray, "h w 3"]:
    """The image as the CRF is given it: blue first, since the lattice treats its axes differently. The published code
    comes back from normalised values and cuts the bytes off, so that up to a third of them are one lower."""
    if form == "published":
        mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_DEVIATION, np.float32)
        back = normalised(image).transpose(1, 2, 0) * deviation + mean
        image = (back * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(image[..., ::-1])


def _device(network: Depthg) -> torch.device:
    return network.probe.clusters.device


def _batch(size: Size, settings: DepthgSettings, network: Depthg) -> int:
    """How many images of a size to look at together."""
    cells = size[0] * size[1] // network.backbone.patch**2
    automatic = max(1, CPU_CELLS // cells) if _device(network).type == "cpu" else GPU_BATCH
    return settings.batch or automatic
