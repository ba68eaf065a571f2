"""What the tests against the published network share: its numbers, its settings, its weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cupola.models import NetworkSettings, PanopticNetwork, paper

THINGS, STUFF = 12, 15


class Numbers:
    """Arrays of an npz file as tensors, by name."""

    def __init__(self, path):
        self.file = np.load(path)

    def __getitem__(self, name: str) -> torch.Tensor:
        array = self.file[name]
        return torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)

    def masks(self, name: str, width: int) -> torch.Tensor:
        return torch.from_numpy(np.unpackbits(self.file[name], axis=-1)[..., :width].astype(bool))


def parity_settings():
    settings = paper()
    return replace(
        settings,
        trunk=replace(settings.trunk, stem=16, widths=(12, 24, 48, 96)),
        fpn_channels=64,
        rpn=replace(settings.rpn, channels=64),
        box=replace(settings.box, channels=64),
        mask=replace(settings.mask, channels=64),
        semantic=replace(settings.semantic, channels=64),
        negatives=replace(settings.negatives, rule="all"),
    )


def published_network(shared: Path, settings: NetworkSettings) -> PanopticNetwork:
    """The network of the parity data, in evaluation mode."""
    numbers = Numbers(shared / "parity" / "panoptic_cascade.npz")
    network = PanopticNetwork(settings, THINGS, STUFF)
    prefix = "weights/"
    weights = {name[len(prefix) :]: numbers[name] for name in numbers.file.files if name.startswith(prefix)}
    state = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference."""
    assert found.shape == expected.shape
    return (found - expected).abs().max().item() if found.numel() else 0.0
