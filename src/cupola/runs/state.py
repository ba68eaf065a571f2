"""What a run needs to go on after a stop, saved so cheaply that it can be saved after every step.

Two files are written in turn, each over what it held, with a checksum in its head. Where a kill or a full disk cuts one
off, the other still holds the step before. Writing over pages that the system has in memory costs a tenth of making a
new file. A power failure may spoil both, so once a minute one is written through to the disk and put aside.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.io import write_over

NETWORK, OPTIMIZER, TASK = "network/", "optimizer/", "task/"

PUT_ASIDE_EVERY = 60.0
"""So much of a run [s] a power failure may cost; a kill of the process costs no more than the step it was in."""

DTYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "<i4": "I32", "|u1": "U8", "|b1": "BOOL"}
"""What safetensors calls what is saved, by NumPy's names."""


@dataclass(frozen=True)
class Saved:
    """What a file holds. number: of the saving, from 1 on."""

    number: int
    facts: dict[str, Any]
    tensors: dict[str, Tensor]


class StateFiles:
    """The state of one run: `directory`/`name`.0.safetensors, .1. and .aside."""

    def __init__(self, directory: Path, name: str) -> None:
        self._name = name
        self._turns = [directory / f"{name}.{turn}.safetensors" for turn in (0, 1)]
        self._aside = directory / f"{name}.aside.safetensors"
        self._number = 0
        self._put_aside = time.monotonic()

    def save(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        facts: Mapping[str, Any],
        task: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Writes weights, optimiser, plain facts and a task's own tensors; if that fails, the state before stays.
        Raises `DiskError`."""
        tensors = {NETWORK + name: tensor for name, tensor in network.state_dict().items()}
        for name, parameter in network.named_parameters():
            for entry, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{OPTIMIZER}{entry}/{name}"] = value
        tensors |= {TASK + name: tensor for name, tensor in (task or {}).items()}
        number = self._number + 1
        path = self._turns[number % 2]
        lasting = time.monotonic() - self._put_aside >= PUT_ASIDE_EVERY
        write_over(path, _encoded(tensors, number, facts), lasting=lasting)
        self._number = number
        if lasting:
            path.replace(self._aside)
            self._put_aside = time.monotonic()

    def load(
        self, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Restores weights and optimiser in place, and gives the facts and the task's tensors; None where nothing was
        saved yet. Raises `StoreError` where all that was saved is damaged or of another network."""
        for cut_off in self._aside.parent.glob(f".{self._name}.*"):
            cut_off.unlink(missing_ok=True)
        there = [path for path in (*self._turns, self._aside) if path.is_file()]
        if not there:
            return None
        saved = max((found for found in map(read_state, there) if found), key=lambda found: found.number, default=None)
        if saved is None:
            raise StoreError(
                f"{there[0]} is damaged, and no other state is there; choose another --out, or delete it to begin anew"
            )
        weights = _part(saved.tensors, NETWORK)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"{there[0]} does not belong to this run ({reason}); choose another --out") from error
        moments = _part(saved.tensors, OPTIMIZER)
        for name, parameter in network.named_parameters():
            state = _optimizer_state(name, parameter, moments)
            if state:
                optimizer.state[parameter] = state
        self._number = saved.number
        return saved.facts, _part(saved.tensors, TASK)

    def remove(self) -> None:
        """Removes what a finished run needs no more."""
        for path in (*self._turns, self._aside):
            path.unlink(missing_ok=True)


def _encoded(tensors: Mapping[str, Tensor], number: int, facts: Mapping[str, Any]) -> list[bytes | memoryview]:
    """The pieces of a safetensors file. Tensors lie in it as they do in memory, for turning round those of
    convolutions takes longer than writing; `orders` tells their axes."""
    heads: dict[str, Any] = {}
    orders: dict[str, list[int]] = {}
    pieces: list[memoryview] = []
    offset = check = 0
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().numpy()
        if not array.flags.c_contiguous:
            orders[name] = np.argsort(array.strides, kind="stable")[::-1].tolist()
            array = np.ascontiguousarray(array.transpose(orders[name]))
        end = offset + array.nbytes
        heads[name] = {"dtype": DTYPES[array.dtype.str], "shape": array.shape, "data_offsets": [offset, end]}
        piece = array.reshape(-1).view(np.uint8)
        check += _sum(piece)
        pieces.append(piece.data)
        offset = end
    told = {"number": str(number), "facts": json.dumps(dict(facts)), "orders": json.dumps(orders)}
    told["check"] = str(check + _sum_of_words(told))
    head = json.dumps({"__metadata__": told, **heads}).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little") + head, *pieces]


def read_state(path: Path) -> Saved | None:
    """What one of the files holds; None where it was cut off or is damaged."""
    try:
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        heads = json.loads(content[8:start])
        told = heads.pop("__metadata__")
        data = np.frombuffer(content, np.uint8, offset=start)
        check = int(told.pop("check"))
        if check != _sum_of_words(told) + sum(_sum(data[slice(*head["data_offsets"])]) for head in heads.values()):
            return None
        tensors = read_tensors(content)
        for name, order in json.loads(told["orders"]).items():
            tensors[name] = tensors[name].permute(*np.argsort(order).tolist())
        return Saved(int(told["number"]), dict(json.loads(told["facts"])), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _sum(piece: UInt8[np.ndarray, "n"]) -> int:
    """The sum of some bytes as words of 64 bits, what is over as one more: a checksum at the speed of memory. A file
    that was cut off holds pages of two steps, whose sums differ."""
    over = len(piece) % 8
    words = piece[: len(piece) - over].view(np.uint64)
    return int(np.add.reduce(words)) + int.from_bytes(piece[len(piece) - over :].tobytes(), "little")


def _sum_of_words(told: Mapping[str, str]) -> int:
    """The checksum of what the head tells, so that the number of one saving cannot stand before another's weights."""
    return zlib.crc32(json.dumps(told, sort_keys=True).encode())


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_state(name: str, parameter: Tensor, moments: Mapping[str, Tensor]) -> dict[str, Any]:
    """State of one parameter, moments in the parameter's own memory format (fused AdamW walks through both at once)."""
    state: dict[str, Any] = {}
    for key, value in moments.items():
        entry, _, owner = key.partition("/")
        if owner == name:
            moment = value.shape == parameter.shape and entry != "step"
            state[entry] = torch.empty_like(parameter).copy_(value) if moment else value.to(parameter.device)
    return state
