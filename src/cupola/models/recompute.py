"""Memory for time: what a gradient needs is computed again in the backward pass instead of being kept until then.

Losses and gradients are the same. Where it pays is measured by `benchmarks/network_torchvision.py memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the buffers, such as running statistics, are those of before."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), before, strict=True):
                buffer.copy_(value)


def recomputed(function: Callable[..., Tensor], *inputs: Tensor, module: nn.Module) -> Tensor:
    """function(*inputs), of which only the inputs are kept for the backward pass.

    module: whose parameters and buffers the function uses; its running statistics learn once. The function must draw no
    random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    result = checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), buffers_kept(module)),
    )
    return torch.as_tensor(result)


class Recipe(NamedTuple):
    """How a tensor is made: function(*tensors). The function itself holds no tensors, so that theirs can be freed."""

    function: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]


def linear(
    inputs: Float[Tensor, "n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"], recipe: Recipe
) -> Float[Tensor, "n o"]:
    """A linear layer that keeps its inputs' recipe instead of its inputs."""
    tensors = (tensor.detach() for tensor in recipe.tensors)
    return torch.as_tensor(_Linear.apply(inputs, weight, bias, recipe.function, *tensors))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, inputs: Tensor, weight: Tensor, bias: Tensor, function: Callable[..., Tensor], *tensors: Tensor
    ) -> Tensor:
        context.save_for_backward(weight, *tensors)
        context.function = function
        return functional.linear(inputs, weight, bias)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *tensors = context.saved_tensors
        (gradient,) = gradients
        of_inputs = of_weight = of_bias = None
        if context.needs_input_grad[1]:  # first, so that its inputs are gone before the gradient of inputs comes
            of_weight = (gradient.T @ context.function(*tensors).to(gradient.dtype)).to(weight.dtype)
        if context.needs_input_grad[2]:
            of_bias = gradient.sum(0).to(weight.dtype)
        if context.needs_input_grad[0]:
            of_inputs = gradient @ weight.to(gradient.dtype)
        return of_inputs, of_weight, of_bias, None, *[None] * len(tensors)
