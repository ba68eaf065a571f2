"""The mask head, its targets, and pasting its small masks into the image (spec-network 1.8)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from cupola.models.layers import Separable, zero_bias
from cupola.models.settings import MaskHeadSettings

THRESHOLD = 0.5
"""A pixel belongs to the mask from this probability on (spec-network 1.8)."""


def _convolution(inputs: int, outputs: int, *, separable: bool) -> nn.Module:
    if separable:
        return Separable(inputs, outputs)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    zero_bias(layer)
    return layer


class MaskHead(nn.Module):
    """Pooled features to mask logits of twice the size, a channel a class (or one for all)."""

    def __init__(self, inputs: int, num_things: int, settings: MaskHeadSettings, *, separable: bool) -> None:
        super().__init__()
        self.convolutions = settings.convolutions
        for number in range(1, settings.convolutions + 1):
            self.add_module(f"mask_fcn{number}", _convolution(inputs, settings.channels, separable=separable))
            inputs = settings.channels
        self.deconv = nn.ConvTranspose2d(inputs, settings.channels, 2, 2)
        self.predictor = nn.Conv2d(settings.channels, 1 if settings.class_agnostic else num_things, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        zero_bias(self.deconv)
        zero_bias(self.predictor)

    def forward(self, pooled: Float[Tensor, "n c s s"]) -> Float[Tensor, "n k t t"]:
        hidden = pooled
        for number in range(1, self.convolutions + 1):
            hidden = functional.relu_(self.get_submodule(f"mask_fcn{number}")(hidden))
        return self.enlarged(hidden)

    def enlarged(self, hidden: Float[Tensor, "n c s s"]) -> Float[Tensor, "n k t t"]:
        """Deconvolution, ReLU and predictor.

        With kernel and stride 2 all three act on each place alone, so they are matrix products over the channels, and
        only the few output channels are put into their order; twice as fast as the convolutions on a CPU.
        """
        kernel = self.deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (row, column, output) x input
        assert self.deconv.bias is not None
        count, _, height, width = hidden.shape
        places = hidden.permute(0, 2, 3, 1).flatten(0, 2)  # of two axes: the result is no view, whose ReLU in place
        quads = functional.relu_(functional.linear(places, kernel, self.deconv.bias.repeat(4)))  # would copy gradients
        quads = quads.reshape(count, height, width, 2, 2, self.deconv.out_channels)
        logits = functional.linear(quads, self.predictor.weight.flatten(1), self.predictor.bias)
        return logits.permute(0, 5, 1, 3, 2, 4).reshape(count, self.predictor.out_channels, 2 * height, 2 * width)


def mask_targets(
    masks: Bool[Tensor, "m h w"], boxes: Float[Tensor, "n 4"], index: Int64[Tensor, "n"], size: int
) -> Bool[Tensor, "n s s"]:
    """Masks `index` of the objects seen through `boxes`, size x size (ROIAlign, aligned, at least half; 1.8)."""
    if len(boxes) == 0:
        return torch.zeros(0, size, size, dtype=torch.bool, device=boxes.device)
    used, position = torch.unique(index, return_inverse=True)
    rois = torch.cat((position[:, None].float(), boxes.float()), 1)
    seen = torch.as_tensor(roi_align(masks[used, None].float(), rois, (size, size), 1.0, 0, aligned=True))
    return seen[:, 0] >= THRESHOLD


def _interpolation(start: Tensor, end: Tensor, first: int, last: int, size: int) -> Float[Tensor, "pixels size"]:
    """Weights of a row of `size` mask cells spread from `start` to `end` at the pixel centres first..last-1: bilinear,
    half-pixel convention, zero outside."""
    centres = torch.arange(first, last, device=start.device, dtype=torch.float32) + 0.5
    place = (centres - start) / (end - start) * size - 0.5
    cells = torch.arange(size, device=start.device, dtype=torch.float32)
    return (1 - (place[:, None] - cells).abs()).clamp(min=0)


def paste_masks(
    probabilities: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]
) -> Bool[Tensor, "n h w"]:
    """Small masks placed into their boxes in an image of `size` = (height, width): bilinear, at least 0.5 (1.8).

    Bilinear sampling is separable, so each mask is two small matrix products over its own box alone.
    """
    height, width = size
    pasted = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    resolution = probabilities.shape[-1]
    limits = boxes.new_tensor((width, height, width, height))
    corners = torch.cat((boxes[:, :2].floor(), boxes[:, 2:].ceil()), 1).clamp(min=0).minimum(limits).long().tolist()
    for number, (x0, y0, x1, y1) in enumerate(corners):
        if x1 <= x0 or y1 <= y0:
            continue
        box = boxes[number].float()
        rows = _interpolation(box[1], box[3], y0, y1, resolution)
        columns = _interpolation(box[0], box[2], x0, x1, resolution)
        with torch.autocast(boxes.device.type, enabled=False):
            pasted[number, y0:y1, x0:x1] = rows @ probabilities[number].float() @ columns.T >= THRESHOLD
    return pasted
