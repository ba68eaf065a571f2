"""RAFT (Teed and Deng, ECCV 2020) from torchvision's parts, run on many pairs of a few images.

torchvision's own `forward` takes pairs and so computes an image's features anew for each; here they are computed once
an image, and only the last of the updates is upsampled. The names of the weights are torchvision's too.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import InstanceNorm2d, functional
from torchvision.models.optical_flow import raft as parts
from torchvision.models.optical_flow import raft_large, raft_small

STRIDE = 8
"""Features are at an eighth of the image size."""

MIN_SIZE = 128
"""Smallest image side [px]: the coarsest level of the correlation pyramid needs two cells."""


class Variant(enum.Enum):
    """The networks that differ in more than their weights."""

    LARGE = "raft-large"
    SMALL = "raft-small"
    SMURF = "smurf"

    @property
    def updates(self) -> int:
        """Recurrent updates: SMURF 16, as CUPS runs it (spec-stage1 2.1); RAFT large 24, as its paper evaluates on
        KITTI; RAFT small 12, as it was trained (24 gained nothing on two KITTI 2015 pairs)."""
        return {Variant.SMURF: 16, Variant.LARGE: 24, Variant.SMALL: 12}[self]


def build(variant: Variant) -> parts.RAFT:
    """The network without weights (on the meta device, so that no random number is drawn)."""
    with torch.device("meta"):
        network = raft_small(weights=None) if variant is Variant.SMALL else raft_large(weights=None)
        if variant is Variant.SMURF:  # instance norm without parameters in both encoders
            network.context_encoder = parts.FeatureEncoder(norm_layer=InstanceNorm2d)
    return network.eval().requires_grad_(False)


def expected_shapes(variant: Variant) -> dict[str, torch.Size]:
    """Name -> shape of every weight."""
    return {name: tensor.shape for name, tensor in build(variant).state_dict().items()}


def build_with(variant: Variant, state: Mapping[str, Tensor], device: torch.device) -> parts.RAFT:
    """The network with these weights."""
    network = build(variant)
    network.load_state_dict(dict(state), assign=True)
    return network.to(device)


@torch.inference_mode()
def find_flows(
    network: parts.RAFT,
    images: Float32[Tensor, "n 3 h w"],
    pairs: Sequence[tuple[int, int]],
    updates: int,
    batch: int,
) -> Float32[Tensor, "p 2 h w"]:
    """Flow of each pair (from, to) of images [px], x then y. images: in [-1, 1], of any size; batch: pairs at once.

    Memory: the correlations of a pair take (h w / 64)^2 * 4 * 4/3 bytes, 0.9 GB for 640 x 1280.
    """
    height, width = images.shape[-2:]
    top, left, padded = _padded(images)
    features, contexts = network.feature_encoder(padded), network.context_encoder(padded)
    flows = []
    for start in range(0, len(pairs), batch):
        first, second = (torch.tensor(side) for side in zip(*pairs[start : start + batch], strict=True))
        flows.append(_flow(network, features[first], features[second], contexts[first], updates))
    return torch.cat(flows)[..., top : top + height, left : left + width]


def _padded(images: Float32[Tensor, "n 3 h w"]) -> tuple[int, int, Float32[Tensor, "n 3 i j"]]:
    """(rows above, columns left, images) with borders repeated up to a size the network takes."""
    missing = [max(MIN_SIZE, -(-side // STRIDE) * STRIDE) - side for side in images.shape[-2:]]
    top, left = missing[0] // 2, missing[1] // 2
    return top, left, functional.pad(images, (left, missing[1] - left, top, missing[0] - top), mode="replicate")


def _flow(
    network: parts.RAFT,
    first: Float[Tensor, "p c i j"],
    second: Float[Tensor, "p c i j"],
    context: Float[Tensor, "p d i j"],
    updates: int,
) -> Float[Tensor, "p 2 h w"]:
    network.corr_block.build_pyramid(first, second)
    size = network.update_block.hidden_state_size
    hidden, context = torch.tanh(context[:, :size]), torch.relu(context[:, size:])
    rows, columns = (torch.arange(side, dtype=first.dtype, device=first.device) for side in first.shape[-2:])
    start = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    flow = torch.zeros_like(start).expand(len(first), -1, -1, -1)
    for _ in range(updates):
        correlation = network.corr_block.index_pyramid(centroids_coords=start + flow)
        hidden, change = network.update_block(hidden, context, correlation, flow)
        flow = flow + change
    network.corr_block.corr_pyramid = []  # a gigabyte that nobody needs any more
    return _upsampled(flow, None if network.mask_predictor is None else network.mask_predictor(hidden))


def _upsampled(flow: Float[Tensor, "p 2 i j"], mask: Float[Tensor, "p m i j"] | None) -> Float[Tensor, "p 2 h w"]:
    """Flow at the image's size: bilinear, or each pixel a convex mixture of the 3 x 3 cells around (RAFT 3.3)."""
    if mask is None:
        size = [STRIDE * side for side in flow.shape[-2:]]
        return STRIDE * functional.interpolate(flow, size, mode="bilinear", align_corners=True)
    count, _, rows, columns = flow.shape
    weights = mask.reshape(count, 1, 9, STRIDE, STRIDE, rows, columns).softmax(2)
    around = functional.unfold(STRIDE * flow, 3, padding=1).reshape(count, 2, 9, 1, 1, rows, columns)
    mixed = (weights * around).sum(2)  # p 2 8 8 i j
    return mixed.permute(0, 1, 4, 2, 5, 3).reshape(count, 2, STRIDE * rows, STRIDE * columns)
