"""DepthG networks on disk: the published `depthg.ckpt`, and our own safetensors with the same names.

The published file is a Lightning checkpoint: `state_dict`, `hyper_parameters` with a pickled OmegaConf object, states
of optimisers and callbacks (spec-stage1 5.3). Nothing in it is run, and nothing is downloaded to read it. All sizes
come from the tensors, but for the number of attention heads: DINO's transformers have one for every 64 channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cupola.config import plain
from cupola.errors import CheckpointError, ConfigError
from cupola.io import read_checkpoint, write_bytes
from cupola.io.pickles import SETTINGS
from cupola.semantics.backbones.networks import Backbone, DinoResnet, DinoVit, TimmBackbone
from cupola.semantics.backbones.settings import VitSizes, dino_sizes
from cupola.semantics.backbones.weights import load_weights
from cupola.semantics.depthg.head import ClusterProbe, DepthgHead

BACKBONE, HEAD, PROBE = "net.model.", "net.", "cluster_probe."
"""Beginnings of the published names of the three parts."""

LIGHTNING = (*SETTINGS, "pytorch_lightning", "lightning")
"""Settings objects of a Lightning file, among them its callbacks."""

MAX_CLASSES = 255
"""What a label store can hold."""

FORMAT = "cupola depthg 1"
"""Mark of our own files."""


@dataclass(frozen=True)
class Depthg:
    """A backbone with DepthG's head and probe, frozen. card: what the file tells about how it was made."""

    backbone: Backbone
    head: DepthgHead
    probe: ClusterProbe
    card: Mapping[str, Any]

    def to(self, device: torch.device) -> Depthg:
        """The same network on a device."""
        return Depthg(self.backbone.to(device), self.head.to(device), self.probe.to(device), self.card)


def read_depthg(path: Path) -> Depthg:
    """The network of a published `depthg.ckpt` or of a file that `save_depthg` wrote, on the CPU.

    Raises `CheckpointError` for a file that is missing, cut off, unsafe, or of anything else.
    """
    if path.suffix == ".safetensors":
        state, description, card = _read_own(path)
    else:
        content = read_checkpoint(path, settings=LIGHTNING)
        state, card = _published_state(content, path), dict(content.get("hyper_parameters") or {})
        description = {"kind": DinoVit.kind}
    backbone = _backbone(description, _part(state, BACKBONE), path)
    head_state = {name: value for name, value in _part(state, HEAD).items() if name.startswith("cluster")}
    code_channels = _size(head_state, "cluster1.0.weight", 4, path)[0]
    with torch.device("meta"):
        head = DepthgHead(backbone.channels, code_channels)
    load_weights(head, head_state, path, "a DepthG head")
    classes = _size(_part(state, PROBE), "clusters", 2, path)[0]
    if not 2 <= classes <= MAX_CLASSES:
        raise CheckpointError(f"{path} has {classes} pseudo classes, where 2 .. {MAX_CLASSES} are possible")
    with torch.device("meta"):
        probe = ClusterProbe(classes, code_channels)
    load_weights(probe, _part(state, PROBE), path, "a DepthG probe")
    for part in (backbone, head, probe):
        part.eval().requires_grad_(False)
    return Depthg(backbone, head, probe, card)


def save_depthg(path: Path, backbone: Backbone, head: DepthgHead, probe: ClusterProbe, card: Mapping[str, Any]) -> None:
    """Writes a network as safetensors, atomically: the published names, and a description in the file's metadata.

    card: how it was made, plain values. Raises `ConfigError` unless the path ends in `.safetensors`, `DiskError`.
    """
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} must end in .safetensors, the kind of file that is written")
    parts = ((BACKBONE, backbone.network), (HEAD, head), (PROBE, probe))
    state = {
        prefix + name: tensor.detach().cpu().contiguous()
        for prefix, part in parts
        for name, tensor in part.state_dict().items()
    }
    about = {
        "format": FORMAT,
        "backbone": json.dumps(backbone.described()),
        "card": json.dumps(plain(dict(card)), ensure_ascii=False),
    }
    write_bytes(path, save(state, metadata=about))


def _read_own(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """(tensors, description of the backbone, card)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise CheckpointError(f"{path} holds no DepthG network that cupola has written")
            description, card = json.loads(about["backbone"]), json.loads(about["card"])
            return {name: file.get_tensor(name) for name in file.keys()}, dict(description), dict(card)  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is cut off or damaged ({error}); copy it again") from error


def _published_state(content: Any, path: Path) -> dict[str, Tensor]:
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} is no checkpoint of DepthG: it has no state_dict, but {held}")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _size(state: Mapping[str, Tensor], name: str, axes: int, path: Path) -> torch.Size:
    """The shape of a tensor that sizes are read from."""
    if name not in state:
        raise CheckpointError(f"{path} is no checkpoint of DepthG: it lacks {name}")
    if state[name].ndim != axes:
        raise CheckpointError(f"{path} is no checkpoint of DepthG: {name} has the shape {tuple(state[name].shape)}")
    return state[name].shape


def _backbone(description: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> Backbone:
    backbone: Backbone
    kind = description.get("kind")
    try:
        if kind == DinoVit.kind:
            sizes = _vit_sizes(state, description.get("heads"), path)
            with torch.device("meta"):
                backbone = DinoVit(sizes)
        elif kind == DinoResnet.kind:
            with torch.device("meta"):
                backbone = DinoResnet(description["level"])
        elif kind == TimmBackbone.kind:
            backbone = TimmBackbone(description["name"])
        else:
            raise CheckpointError(f"{path} has a backbone of kind {kind!r}, which this cupola does not know")
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path} does not describe its backbone rightly: {error}") from error
    load_weights(backbone.network, state, path, f"a {kind} backbone")
    return backbone


def _vit_sizes(state: Mapping[str, Tensor], heads: Any, path: Path) -> VitSizes:
    """From the tensors' shapes; heads: their number, None for DINO's rule."""
    width, _, patch, _ = _size(state, "patch_embed.proj.weight", 4, path)
    positions = _size(state, "pos_embed", 3, path)[1] - 1
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    grid = round(max(positions, 0) ** 0.5)
    heads = dino_sizes(patch, width).heads if heads is None else heads
    if not (isinstance(heads, int) and heads > 0 and width % heads == 0 and grid > 0 and grid**2 == positions):
        raise CheckpointError(
            f"{path} is no checkpoint of DepthG: a transformer of width {width} with {positions} positions, "
            f"{heads} heads"
        )
    return VitSizes(patch, width, depth, heads, grid)
