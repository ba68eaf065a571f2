"""Networks made faster for prediction: the same function, with other weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cupola.models.cascade import BoxHead
from cupola.models.layers import NormedSeparable

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def fused(network: Network, precision: torch.dtype = torch.float32) -> Network:
    """A copy for prediction, in evaluation mode, in which every BatchNorm is part of the convolution before it: the
    same function up to rounding, without a pass over the features for each norm.

    precision: of the weights of convolutions and linear layers. `torch.bfloat16` is for use under autocast of that
    type, which then need not convert them anew for each batch. The copy shares the weights that stay as they are, and
    cannot be saved as a network.
    """
    kept = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    result = copy.deepcopy(network, kept).eval()
    for module in result.modules():
        norm = getattr(module, "norm", None)
        if isinstance(norm, nn.BatchNorm2d):
            _fold(norm, module.pointwise if isinstance(module, NormedSeparable) else module)
            module.norm = nn.Identity()
    for module in result.modules():
        if isinstance(module, BoxHead) and module.fc1.weight.device.type == "cpu":
            module.fc1.weight = _constant(module.kernel())
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.weight = _constant(module.weight.to(precision))
            if module.bias is not None:
                module.bias = _constant(module.bias.to(precision))
    return result


def _constant(tensor: Tensor) -> nn.Parameter:
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    return nn.Parameter(tensor.contiguous(memory_format=layout), requires_grad=False)


def _fold(norm: nn.BatchNorm2d, convolution: nn.Module) -> None:
    """Puts what `norm` does in evaluation into the weights of the convolution before it."""
    assert isinstance(convolution, nn.Conv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
