"""What a run needs to go on after a stop, in one safetensors file that is complete or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.io import write_bytes

NETWORK, OPTIMIZER, TASK = "network/", "optimizer/", "task/"


def save_state(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    task: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes weights, optimiser, plain facts and a task's own tensors atomically; the file before stays if that fails.
    Raises `DiskError`."""
    tensors = {NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}{entry}/{name}"] = value
    tensors |= {TASK + name: tensor for name, tensor in (task or {}).items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save_tensors(plain, {"progress": json.dumps(dict(facts))}))


def load_state(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restores weights and optimiser in place and gives the facts; None where there is no file yet.

    Raises `StoreError` where the file is damaged or of another network.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = dict(json.loads(file.metadata()["progress"]))
            names = [name for name in file.keys() if not name.startswith(TASK)]  # noqa: SIM118 - not a dictionary
            tensors = {name: file.get_tensor(name) for name in names}
        network.load_state_dict({n.removeprefix(NETWORK): t for n, t in tensors.items() if n.startswith(NETWORK)})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"{path} does not belong to this run or is damaged ({reason}); choose another --out"
        ) from error
    for name, parameter in network.named_parameters():
        state = _optimizer_state(name, parameter, tensors)
        if state:
            optimizer.state[parameter] = state
    return facts


def load_task(path: Path) -> dict[str, Tensor]:
    """A task's own tensors, of a state that `load_state` has read."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(TASK)]  # noqa: SIM118 - not a dictionary
        return {name.removeprefix(TASK): file.get_tensor(name) for name in names}


def _optimizer_state(name: str, parameter: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """State of one parameter, moments in the parameter's own memory format (fused AdamW walks through both at once)."""
    state: dict[str, Any] = {}
    for key, value in tensors.items():
        entry, _, owner = key.removeprefix(OPTIMIZER).partition("/")
        if key.startswith(OPTIMIZER) and owner == name:
            moment = value.shape == parameter.shape and entry != "step"
            state[entry] = torch.empty_like(parameter).copy_(value) if moment else value.to(parameter.device)
    return state
