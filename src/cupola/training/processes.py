"""One run by several processes, which torchrun starts: what they share, and how parts of a batch make up its losses.

With batch norms that share their statistics and losses divided by counts of the whole batch, N processes compute what
one would with the same batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Float64
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.nn import functional as between_processes

from cupola.devices import has_bfloat16
from cupola.errors import ConfigError
from cupola.models import LossPart

T = TypeVar("T")
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


class Bfloat16(MixedPrecision):
    """Autocast alone. Fabric's own also casts what goes into a network of several processes and what comes out, which
    our frozen dataclasses do not let it do; it is float32 as it is."""

    def convert_input(self, data: T) -> T:
        return data

    def convert_output(self, data: T) -> T:
        return data


def make_fabric(device: Device, precision: Precision) -> Fabric:
    """This process's device and its precision; with the others, if torchrun started several. Raises `ConfigError` where
    the device is not there."""
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ConfigError("there is no usable GPU here (device cuda); leave --device out, or see `cupola doctor`")
    accelerator = "cuda" if gpu and device != "cpu" else "cpu"
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(accelerator) else "float32"
    started = torch.distributed.is_torchelastic_launched()
    ranks, local = (int(os.environ[name]) if started else 1 for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if accelerator == "cuda" and local > torch.cuda.device_count():
        raise ConfigError(
            f"torchrun started {local} processes here, but there are {torch.cuda.device_count()} GPUs; lower "
            "--nproc_per_node, or add --device cpu"
        )
    fabric = Fabric(
        accelerator=accelerator,
        devices=local if ranks > 1 else 1,
        num_nodes=ranks // local,
        strategy="ddp" if ranks > 1 else "auto",
        plugins=Bfloat16("bf16-mixed", accelerator) if precision == "bfloat16" else None,
    )
    fabric.launch()
    return fabric


def precision_of(fabric: Fabric) -> Precision:
    """Of the forward pass."""
    return "bfloat16" if isinstance(fabric.strategy.precision, Bfloat16) else "float32"


def require_equal_shares(batch: int, ranks: int, accumulate: int) -> None:
    """Raises `ConfigError` unless each process, and each pass of it, gets as many images of a batch as the others."""
    if batch % (ranks * accumulate):
        raise ConfigError(
            f"a batch of {batch} images cannot be shared evenly by {ranks} processes with {accumulate} passes each; "
            f"set --settings.batch to a multiple of {ranks * accumulate}"
        )


@contextmanager
def main_first(fabric: Fabric) -> Iterator[None]:
    """The first process runs the block before the others, whose block thus sees what it wrote."""
    if not fabric.is_global_zero:
        fabric.barrier()
    yield
    if fabric.is_global_zero:
        fabric.barrier()


def agreed(fabric: Fabric, *values: float) -> list[float]:
    """The largest of each value over all processes, so that all of them decide alike."""
    if fabric.world_size == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    return [float(value) for value in fabric.all_reduce(largest, reduce_op="max")]


def memory_in_use(device: torch.device) -> str:
    """Memory that this process holds, on its GPU or in the machine, such as `3.1 GB`; `` where the system does not
    tell."""
    if device.type == "cuda":
        return f"{torch.cuda.memory_reserved(device) / 1e9:.1f} GB"
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return ""
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB"


def gathered(fabric: Fabric, items: list[T]) -> list[list[T]]:
    """What each process has, in their order."""
    if fabric.world_size == 1:
        return [items]
    parts: list[list[T]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(parts, items)  # type: ignore[no-untyped-call, unused-ignore]
    return parts


# ---- losses of parts of a batch


def counts_of(parts: Mapping[str, LossPart]) -> Float64[Tensor, "k"]:
    """What each loss is a mean over, without a gradient."""
    device = next(iter(parts.values())).mean.device
    counts = [torch.as_tensor(part.over, dtype=torch.float64, device=device) for part in parts.values()]
    return torch.stack(counts).detach()


def summed(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes."""
    return values if fabric.world_size == 1 else torch.as_tensor(fabric.all_reduce(values.clone(), reduce_op="sum"))


def share_of_losses(parts: Mapping[str, LossPart], counts: Float64[Tensor, "k"]) -> Float[Tensor, "k"]:
    """What these images add to each loss of the whole batch; counts: of the whole batch."""
    shares = (counts_of(parts) / counts.clamp(min=1)).float()
    return torch.stack([part.mean.float() for part in parts.values()]) * shares


# ---- batch norms


class SharedBatchNorm(nn.BatchNorm2d):
    """A BatchNorm whose statistics are those of the images of all processes, on any device (torch's own
    `SyncBatchNorm` wants GPUs). Parameters and buffers keep their names."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        features = input.float()
        ones = features.new_full((1,), features.numel() / features.shape[1])
        sums = _sum_of_all(torch.cat((features.sum((0, 2, 3)), ones)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = features - mean[:, None, None]
        variance = _sum_of_all(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.as_tensor(centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def _sum_of_all(values: Tensor) -> Tensor:
    """The sum over all processes, with a gradient."""
    return torch.as_tensor(between_processes.all_reduce(values))  # type: ignore[no-untyped-call]


def share_norms(network: nn.Module, device: torch.device) -> None:
    """Makes the batch norms of a network that learn use the images of all processes."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
