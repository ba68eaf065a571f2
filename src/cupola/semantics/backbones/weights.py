"""Weights of backbones as they were published: `DINO`'s own files, training checkpoints of it, files of timm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cupola.errors import CheckpointError
from cupola.io import read_checkpoint
from cupola.io.pickles import SETTINGS

CONTAINERS = ("teacher", "state_dict", "model")
"""Where a training run's checkpoint keeps the weights; of DINO's two networks the teacher is the better one."""

PREFIXES = ("module.", "backbone.")
"""Left by the classes that were wrapped around the network."""

HEADS = ("head.", "fc.", "heads.", "classifier.")
"""Beginnings of the names of what comes after the features: projections of a training, classes of ImageNet."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a published file, without wrappers' names. Raises `CheckpointError`."""
    return named_tensors(read_checkpoint(path, settings=SETTINGS), path)


def named_tensors(content: Any, source: Path) -> dict[str, Tensor]:
    """`read_weights` of what a file held."""
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {str(name): value for name, value in content.items()} if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        held = ", ".join(list(tensors)[:5]) or f"a {type(content).__name__}"
        raise CheckpointError(f"{source} holds no weights of a backbone, but {held}")
    return {_bare(name): value for name, value in tensors.items()}


def _bare(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name[name.index(".") + 1 :]
    return name


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: Path, architecture: str) -> None:
    """Gives the network exactly these weights, as float32, without heads that it has not. Raises `CheckpointError`,
    naming `source`, where a weight is missing, unknown or of another shape."""
    expected = network.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in expected or not name.startswith(HEADS)}
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # counts steps of training
    if missing or unknown:
        parts = [f"lacks {missing[0]} (and {len(missing) - 1} more)"] if missing else []
        parts += [f"holds {unknown[0]} (and {len(unknown) - 1} more), which it has not"] if unknown else []
        raise CheckpointError(f"{source} is of another architecture than {architecture}: it {' and '.join(parts)}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{source} is of another architecture than {architecture}: {name} has the shape "
                f"{tuple(tensor.shape)} where {tuple(expected[name].shape)} is expected"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f"{source} is damaged: {name} holds values that are no finite numbers; copy it again")
    counters = {name: torch.zeros((), dtype=torch.int64) for name in expected.keys() - state.keys()}
    typed = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    network.load_state_dict({**typed, **counters}, assign=True)
