"""What training needs to go on after a stop, in one file that is complete or not there: `training.safetensors`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from cupola.errors import DiskError, StoreError
from cupola.io import write_bytes

STATE = "training.safetensors"
METRICS = "metrics.jsonl"
NETWORK, OPTIMIZER = "network/", "optimizer/"


@dataclass(frozen=True)
class Progress:
    """How far a run is. step: steps done; seconds: spent on them; rounds: of self-labels made; fingerprint: of the
    data that it learns from."""

    step: int
    seconds: float
    rounds: int
    fingerprint: str


def save_state(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes weights, optimiser and progress atomically; the file before stays if that fails. Raises `DiskError`."""
    tensors = {NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}{entry}/{name}"] = value
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(out / STATE, save_tensors(plain, {"progress": json.dumps(asdict(progress))}))


def load_state(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Restores weights and optimiser in place; None where the run has no state yet. Raises `StoreError`."""
    path = out / STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        network.load_state_dict({n.removeprefix(NETWORK): t for n, t in tensors.items() if n.startswith(NETWORK)})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"{path} does not belong to this run or is damaged ({reason}); choose another --out"
        ) from error
    for name, parameter in network.named_parameters():
        optimizer.state[parameter] = _optimizer_state(name, parameter, tensors)
    return progress


def _optimizer_state(name: str, parameter: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """State of one parameter, moments in the parameter's own memory format (fused AdamW walks through both at once)."""
    state: dict[str, Any] = {}
    for key, value in tensors.items():
        entry, _, owner = key.removeprefix(OPTIMIZER).partition("/")
        if key.startswith(OPTIMIZER) and owner == name:
            moment = value.shape == parameter.shape and entry != "step"
            state[entry] = torch.empty_like(parameter).copy_(value) if moment else value.to(parameter.device)
    return state


def remove_state(out: Path) -> None:
    """Removes the state of a finished run."""
    (out / STATE).unlink(missing_ok=True)


class Metrics:
    """`metrics.jsonl`: a line a step. Opened to go on after `step`, it first drops the lines of later steps."""

    def __init__(self, out: Path, step: int) -> None:
        self.path = out / METRICS
        lines = [line for line in self._lines() if _step(line) is not None and (_step(line) or 0) <= step]
        write_bytes(self.path, "".join(line + "\n" for line in lines).encode())

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def write(self, step: int, **values: float) -> None:
        """Adds the line of a step. Raises `DiskError`."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise DiskError(f"cannot write {self.path}: {reason}; free some space and run the command again") from error


def _step(line: str) -> int | None:
    """The step that a line is about; None for one that a kill cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without a last one that is cut off."""
    text = (out / METRICS).read_text(encoding="utf-8") if (out / METRICS).is_file() else ""
    return [json.loads(line) for line in text.splitlines() if _step(line) is not None]
