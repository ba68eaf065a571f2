"""Panoptic networks that others published, as networks of cupola: `cups.ckpt`, stage-2 checkpoints, U2Seg, CutLER.

Nothing in a file is executed (`cupola.io.read_checkpoint`). Widths, blocks and class numbers come from the shapes of
the tensors; names, containers and class ids from spec-network 1.12 to 1.14.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cupola.errors import CheckpointError, ConfigError
from cupola.io import content_hash, read_checkpoint
from cupola.io.pickles import SETTINGS
from cupola.models.assignments import ASSIGNMENTS, CITYSCAPES19, Assignment
from cupola.models.panoptic import PanopticNetwork
from cupola.models.published_shapes import SEMANTIC, STEM, NetworkShape, network_shape
from cupola.semantics.backbones.weights import load_weights

Which = Literal["student", "teacher"]

FOREIGN = (*SETTINGS, "pytorch_lightning", "lightning")
"""Settings objects that training checkpoints hold; they become plain dictionaries."""

CONTAINERS = ("state_dict", "model")
"""Where Lightning and detectron2 keep the weights."""

DERIVED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
"""Beginnings of buffers that older detectron2 saves; they follow from the settings."""

COUNTERS = ("epoch", "global_step", "iteration")
"""What a checkpoint tells of how far its training was."""

SCORE_THRESHOLD = 0.5
"""Of detection and merge, at which the published figures were measured (spec-network 1.12)."""

CUPS_FILE = "cups"
"""Beginning of the name of the one file that the published assignment is of."""


@dataclass(frozen=True)
class Published:
    """A published network in evaluation mode on the CPU, and its card. ignored: names of tensors that it has no use
    for, such as the teacher's beside a student."""

    network: PanopticNetwork
    card: dict[str, Any]
    ignored: tuple[str, ...]


def read_published(path: Path, *, which: Which = "student", assignment: str = "auto") -> Published:
    """The network of a published checkpoint.

    Args:
        path: a Lightning checkpoint (`state_dict`), a detectron2 one (`model`), or their bare weights.
        which: student or teacher, where stage 3 left both.
        assignment: what names the pseudo classes: a name in `ASSIGNMENTS`, `none`, or `auto` = cityscapes19 for a file
            that is called cups and has its 22 stuff and 5 thing classes.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or of another network, with the name of a key.
        ConfigError: there is no such assignment, or it is of other class numbers.
    """
    if assignment not in ("auto", "none", *ASSIGNMENTS):
        raise ConfigError(f"there is no assignment `{assignment}`; known are auto, none, {', '.join(ASSIGNMENTS)}")
    content = read_checkpoint(path, settings=FOREIGN)
    return network_from(content, path, which=which, assignment=assignment)


def network_from(content: Any, path: Path, *, which: Which = "student", assignment: str = "auto") -> Published:
    """`read_published` of what a file held."""
    container, tensors = _tensors(content, path)
    prefix = _prefix(tensors, which, path)
    mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    state = {name: tensor for name, tensor in mine.items() if not name.startswith(DERIVED)}
    if prefix == "":  # bare weights: a teacher beside them is none of theirs
        state = {name: tensor for name, tensor in state.items() if "teacher" not in name}
    shape = network_shape(state, path)
    with torch.random.fork_rng(devices=[]):
        network = PanopticNetwork(shape.settings, shape.num_things, shape.num_stuff)
    if not shape.has_semantic_head:
        state |= _no_stuff(network)
    load_weights(network, state, path, "the Panoptic Cascade Mask R-CNN")
    network.to(memory_format=torch.channels_last)
    card = _card(path, shape, _chosen(assignment, shape, path)) | {
        "source": {
            "file": path.name,
            "sha256": content_hash(path),
            "container": container,
            "which": which,
            "training": _counters(content),
        }
    }
    used = {prefix + name for name in state}
    return Published(network.eval(), card, tuple(sorted(tensors.keys() - used)))


def is_network(content: Any) -> bool:
    """Whether what a file held looks like a published panoptic or detection network."""
    inner = _inner(content)
    return (
        isinstance(inner, Mapping)
        and any(_is_stem(str(name)) for name in inner)
        and any("roi_heads." in str(name) for name in inner)
    )


def tensor_of(value: Any) -> Tensor | None:
    """A tensor from a tensor or a numpy array, None of anything else."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    return value if isinstance(value, Tensor) else None


def _inner(content: Any) -> Any:
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _tensors(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """(container, name -> tensor)."""
    inner = _inner(content)
    found: dict[str, Tensor] = {}
    for name, value in inner.items() if isinstance(inner, Mapping) else ():
        tensor = tensor_of(value)
        if tensor is not None:
            found[str(name)] = tensor
    if not found:
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds no weights of a network, but {held or 'nothing'}")
    if inner is content:
        return "bare", found
    return ("lightning" if inner is content.get("state_dict") else "detectron2"), found


def _is_stem(name: str) -> bool:
    return name == STEM or name.endswith(f".{STEM}")


def _prefix(tensors: Mapping[str, Tensor], which: Which, path: Path) -> str:
    """What the wrapping class put before the names of the network asked for: `model.`, `teacher_model.model.`, ''."""
    prefixes = sorted((name.removesuffix(STEM) for name in tensors if _is_stem(name)), key=len)
    if not prefixes:
        example = ", ".join(list(tensors)[:3])
        hint = "; a backbone alone goes to `cupola train --backbone`" if _looks_like_trunk(tensors) else ""
        raise CheckpointError(f"{path} holds no panoptic network: there is no {STEM}, but {example}{hint}")
    for prefix in prefixes:
        if ("teacher" in prefix) == (which == "teacher"):
            return prefix
    there = "teacher" if which == "student" else "student"
    raise CheckpointError(f"{path} holds no {which}, only a {there}; ask for the {there}")


def _looks_like_trunk(tensors: Mapping[str, Tensor]) -> bool:
    return any("layer1.0.conv1" in name or name.endswith("stem.conv1.weight") for name in tensors)


def _no_stuff(network: PanopticNetwork) -> dict[str, Tensor]:
    """A semantic head that says "some thing" everywhere, for a detector that has none: all of it zero."""
    return {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in network.state_dict().items()
        if name.startswith(SEMANTIC)
    }


def _counters(content: Any) -> dict[str, int]:
    if not isinstance(content, Mapping):
        return {}
    return {name: int(content[name]) for name in COUNTERS if isinstance(content.get(name), int)}


def _chosen(assignment: str, shape: NetworkShape, path: Path) -> Assignment | None:
    if assignment == "none":
        return None
    chosen = CITYSCAPES19 if assignment == "auto" else ASSIGNMENTS[assignment]
    fits = (chosen.stuff, chosen.things) == (shape.num_stuff, shape.num_things)
    if assignment == "auto":
        return chosen if fits and path.name.startswith(CUPS_FILE) else None
    if not fits:
        raise ConfigError(
            f"the assignment {assignment} is of {chosen.stuff} stuff and {chosen.things} thing classes, but {path} has "
            f"{shape.num_stuff} and {shape.num_things}"
        )
    return chosen


def _card(path: Path, shape: NetworkShape, assignment: Assignment | None) -> dict[str, Any]:
    """Pseudo classes in the standard order (spec-network 1.12): stuff 0..S-1, things S..S+T-1."""
    stuff, things = shape.num_stuff, shape.num_things
    card: dict[str, Any] = {
        "things": list(range(stuff, stuff + things)),
        "stuff": list(range(stuff)),
        "thresholds": {"score": SCORE_THRESHOLD, "merge": SCORE_THRESHOLD},
    }
    if not shape.has_semantic_head:
        card["note"] = f"{path.name} has no semantic head: every pixel without an object is void"
    if assignment is not None:
        card |= {"class_names": assignment.class_names(), "assignment": assignment.card()}
    return card
