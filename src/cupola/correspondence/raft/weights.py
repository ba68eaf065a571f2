"""RAFT weights as they were published, under one set of names: torchvision's.

Three families of names are known: torchvision's own, those of the RAFT release (`module.fnet.conv1.weight`), and those
of the converted SMURF (torchvision's, usually behind `raft.`; spec-stage1 2.2, 2.3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cupola.correspondence.raft.network import Variant, expected_shapes
from cupola.errors import CheckpointError
from cupola.io import atomic_path, content_hash, read_checkpoint
from cupola.io.pickles import SETTINGS

CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Where a training run's checkpoint keeps the weights."""

PREFIXES = ("module.", "raft.", "model.")
"""Left by the class that was wrapped around the network."""

RELEASE_NAMES = (
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"_encoder\.conv1\.", "_encoder.convnormrelu.0."),
    (r"_encoder\.norm1\.", "_encoder.convnormrelu.1."),
    (r"_encoder\.conv2\.", "_encoder.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])\.", r"update_block.recurrent_block.convgru1.conv\1."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""From the names of the RAFT release to torchvision's."""

CORRELATION = "update_block.motion_encoder.convcorr1.0.weight"
CONTEXT_NORM = "context_encoder.convnormrelu.1.weight"
STEM = "feature_encoder.convnormrelu.0.weight"

LEVELS, SMURF_WINDOW = 4, 9
"""Correlation channels of SMURF: 4 levels of a 9 x 9 window, which it reads row by row."""

FORMAT = "cupola raft 1"
"""Mark of a converted file."""


def read_raft(weights: Path, cache: Path | None = None) -> tuple[Variant, dict[str, Tensor]]:
    """The variant and its weights in torchvision's names, from a published or a converted file.

    A published file is converted once: `<stem>-<first 8 digits of its SHA-256>.safetensors` in `cache`, or beside the
    weights where that folder can be written. Raises `CheckpointError` for a file that is missing, damaged, unsafe or
    of another network.
    """
    if not weights.is_file():
        raise CheckpointError(
            f"there is no file of RAFT weights at {weights}; give --correspondence.weights the path of a RAFT or SMURF "
            "checkpoint, or use --correspondence classical, which needs none"
        )
    converted = _converted(weights)
    if converted is not None:
        return converted
    digest = content_hash(weights)
    folder = weights.parent if cache is None else cache
    path = folder / f"{weights.stem}-{digest[:8]}.safetensors"
    converted = _converted(path) if path.is_file() else None
    if converted is not None:
        return converted
    variant, state = convert(read_checkpoint(weights, settings=SETTINGS), weights)
    if cache is not None or os.access(folder, os.W_OK):
        from safetensors.torch import save_file

        about = {"format": FORMAT, "variant": variant.value, "source": weights.name, "sha256": digest}
        with atomic_path(path) as temporary:
            save_file(state, temporary, metadata=about)
    return variant, state


def _converted(path: Path) -> tuple[Variant, dict[str, Tensor]] | None:
    """A file that `read_raft` wrote, None for any other. Raises `CheckpointError` where it is damaged."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                return None
            return Variant(about["variant"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it") from error


def convert(content: Any, source: Path) -> tuple[Variant, dict[str, Tensor]]:
    """(variant, weights in torchvision's names) of what a checkpoint holds. Raises `CheckpointError`, naming `source`,
    where a weight is missing, unknown or of another shape."""
    state = {_common_name(name): tensor for name, tensor in _tensors(content, source).items()}
    # The release holds the norm of a shortcut twice, once under its block.
    doubles = [name for name in state if re.search(r"layer\d\.\d\.convnormrelu3\.1\.", name)]
    state = {name: tensor for name, tensor in state.items() if name not in doubles}
    variant = _variant(state)
    shapes = expected_shapes(variant)
    for name in shapes.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # counts training steps; torch < 0.4.1 had none
            state[name] = torch.zeros((), dtype=torch.int64)
    _require_fit(state, shapes, variant, source)
    if variant is Variant.SMURF:
        state[CORRELATION] = _column_by_column(state[CORRELATION])
    return variant, {
        name: (tensor if name.endswith("num_batches_tracked") else tensor.float()).contiguous()
        for name, tensor in sorted(state.items())
    }


def _tensors(content: Any, source: Path) -> Mapping[str, Tensor]:
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()) or not content:
        raise CheckpointError(f"{source} holds no weights of a network, but {_described(content)}")
    return content


def _described(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary of {', '.join(map(str, list(content)[:5])) or 'nothing'}"
    return f"a {type(content).__name__}"


def _common_name(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name[name.index(".") + 1 :]
    if name.startswith(("fnet.", "cnet.", "update_block.")):
        for pattern, replacement in RELEASE_NAMES:
            name = re.sub(pattern, replacement, name)
    return name


def _variant(state: Mapping[str, Tensor]) -> Variant:
    """By what only one of them has. A file of another network counts as the large one, and fails the check."""
    if STEM in state and len(state[STEM]) == 32:
        return Variant.SMALL
    return Variant.SMURF if STEM in state and CONTEXT_NORM not in state else Variant.LARGE


def _require_fit(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], variant: Variant, source: Path) -> None:
    missing, unknown = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    if missing or unknown:
        parts = [f"lacks {missing[0]} (and {len(missing) - 1} more)"] if missing else []
        parts += [f"has {unknown[0]} (and {len(unknown) - 1} more), which RAFT has not"] if unknown else []
        raise CheckpointError(
            f"{source} is of another architecture than RAFT (taken for {variant.value}): it {' and '.join(parts)}"
        )
    for name, tensor in state.items():
        if tensor.shape != shapes[name]:
            raise CheckpointError(
                f"{source} is of another architecture than RAFT (taken for {variant.value}): {name} has the shape "
                f"{tuple(tensor.shape)} where {tuple(shapes[name])} is expected"
            )


def _column_by_column(weight: Tensor) -> Tensor:
    """SMURF reads its correlation windows row by row, RAFT column by column; exchanging the weights of the first
    convolution once makes the same network serve both (spec-stage1 2.2)."""
    out, _, *kernel = weight.shape
    windows = weight.reshape(out, LEVELS, SMURF_WINDOW, SMURF_WINDOW, *kernel)
    return windows.transpose(2, 3).reshape(weight.shape)
