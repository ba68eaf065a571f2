"""Which device torch computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cupola.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one. Raises `ConfigError` for a device this machine lacks."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {name}: this machine has no GPU that torch can use; take --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name} is not a device; take auto, cpu or cuda") from error


def has_bfloat16(device: str) -> bool:
    """Whether the GPU or the processor computes in bfloat16; others only imitate it, slowly. device: cuda or cpu."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())
