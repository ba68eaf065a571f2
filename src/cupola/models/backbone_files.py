"""Pretrained backbones as the trunk of a network: vision transformers, and ResNets in DINO's file, CutLER's pickle of
it, or torchvision's (spec-network 1.14).

Of a ResNet's names two families are known: the published network's (`stem.conv1.norm.weight`,
`res2.0.shortcut.weight`) and torchvision's (`bn1.weight`, `layer1.0.downsample.0.weight`; spec-network 1.15). A
wrapper's prefix may precede either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cupola.errors import CheckpointError
from cupola.io import content_hash, read_checkpoint
from cupola.models.interface import PanopticModel
from cupola.models.published import FOREIGN, tensor_of
from cupola.models.resnet import ResNet
from cupola.models.vit import VitTrunk
from cupola.semantics.backbones.weights import load_weights

CONTAINERS = ("teacher", "state_dict", "model")
"""Where training checkpoints keep the weights; of DINO's two networks the teacher is the better one."""

PUBLISHED_MARK, TORCHVISION_MARK = "stem.conv1.weight", "layer1.0.conv1.weight"
"""A parameter that every file of the family has; what stands before it is the wrapper's."""

AFTER_THE_TRUNK = ("fc.", "head.", "stem.fc.")
"""Beginnings of the names of classifiers and projections."""

_TO_PUBLISHED = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.norm."),
    (r"^(layer\d\.\d+)\.downsample\.0\.", r"\1.shortcut."),
    (r"^(layer\d\.\d+)\.downsample\.1\.", r"\1.shortcut.norm."),
)
_TO_TORCHVISION = (
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^(res\d\.\d+)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^(res\d\.\d+)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(res\d\.\d+)\.shortcut\.", r"\1.downsample.0."),
)


@dataclass(frozen=True)
class BackboneReport:
    """What was loaded. sha256: of the file; naming: of its parameters (a transformer's: `timm`, which are DINO's too);
    ignored: tensors that are no part of a ResNet, such as a classifier."""

    file: str
    sha256: str
    naming: Literal["published", "torchvision", "timm"]
    ignored: tuple[str, ...]

    def card(self) -> dict[str, Any]:
        """For the card of a network."""
        return {"file": self.file, "sha256": self.sha256}


def load_backbone_weights(network: PanopticModel, path: Path) -> BackboneReport:
    """Gives the trunk of a network the weights of a file; the rest of the network stays as it is.

    path: for a transformer, a file of its architecture, DINO's own or timm's; for a ResNet, DINO's
    `dino_resnet50_pretrain.pth` or full checkpoint (the teacher), CutLER's pickle `dino_RN50_pretrain_d2_format.pkl`, a
    ResNet of torchvision, a published network, or weights of cupola's own. Raises `CheckpointError` where the file is
    missing, damaged, unsafe or of another architecture.
    """
    trunk = network.trunk
    if isinstance(trunk, VitTrunk):
        trunk.load(path)
        return BackboneReport(path.name, content_hash(path), "timm", ())
    assert isinstance(trunk, ResNet)
    state, report = read_trunk(read_checkpoint(path, settings=FOREIGN), path)
    load_weights(trunk, state, path, "the trunk of this network (the ResNet-50 of DINO is that of `--network paper`)")
    trunk.to(memory_format=torch.channels_last)
    return report


def read_trunk(content: Any, path: Path) -> tuple[dict[str, Tensor], BackboneReport]:
    """The weights of a ResNet in the published names, from what a file held. Raises `CheckpointError`."""
    tensors = _tensors(content)
    naming: Literal["published", "torchvision"] = "published"
    prefix = _prefix(tensors, PUBLISHED_MARK)
    if prefix is None:
        naming, prefix = "torchvision", _prefix(tensors, TORCHVISION_MARK)
    if prefix is None:
        held = ", ".join(list(tensors)[:3]) or f"a {type(content).__name__}"
        raise CheckpointError(
            f"{path} holds no ResNet: there is neither {PUBLISHED_MARK} nor {TORCHVISION_MARK}, but {held}"
        )
    mine = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if naming == "torchvision":
        mine = {to_published(name): value for name, value in mine.items()}
    state = {name: value for name, value in mine.items() if not name.startswith(AFTER_THE_TRUNK)}
    ignored = tuple(sorted((mine.keys() - state.keys()) | {n for n in tensors if not n.startswith(prefix)}))
    return state, BackboneReport(path.name, content_hash(path), naming, ignored)


def is_trunk(content: Any) -> bool:
    """Whether what a file held looks like a ResNet."""
    tensors = _tensors(content)
    return _prefix(tensors, PUBLISHED_MARK) is not None or _prefix(tensors, TORCHVISION_MARK) is not None


def to_published(name: str) -> str:
    """A parameter of torchvision's ResNet in the published names; others stay as they are."""
    for pattern, replacement in _TO_PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^layer(\d)\.", lambda found: f"res{int(found[1]) + 1}.", name)


def to_torchvision(name: str) -> str:
    """A parameter of the published trunk in torchvision's names; others stay as they are."""
    for pattern, replacement in _TO_TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^res(\d)\.", lambda found: f"layer{int(found[1]) - 1}.", name)


def _tensors(content: Any) -> dict[str, Tensor]:
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    pairs = content.items() if isinstance(content, Mapping) else ()
    return {str(name): tensor for name, value in pairs if (tensor := tensor_of(value)) is not None}


def _prefix(tensors: Mapping[str, Tensor], mark: str) -> str | None:
    """The shortest prefix of the mark: in a file with student and teacher, the student's."""
    found = [name.removesuffix(mark) for name in tensors if name == mark or name.endswith(f".{mark}")]
    return min(found, key=len, default=None)
