"""The networks by name: presets of settings, and from settings to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from cupola.models.interface import PanopticModel
from cupola.models.panoptic import PanopticNetwork
from cupola.models.settings import NetworkSettings, paper, small, tiny, vit_b

ModelSettings = NetworkSettings
"""Settings of any network."""

ARCHITECTURES: Mapping[str, type[ModelSettings]] = {"cascade": NetworkSettings}
"""Name of an architecture, as model.json gives it -> its settings."""

PresetName = Literal["paper", "vit-b", "small", "tiny"]

PRESETS: Mapping[PresetName, Callable[[], ModelSettings]] = {
    "paper": paper,
    "vit-b": vit_b,
    "small": small,
    "tiny": tiny,
}
"""Presets by name, as `cupola train --network` takes them."""


def architecture_of(settings: ModelSettings) -> str:
    """Its name in `ARCHITECTURES`."""
    return next(name for name, kind in ARCHITECTURES.items() if type(settings) is kind)


def build_network(settings: ModelSettings, num_things: int, num_stuff: int) -> PanopticModel:
    """An untrained network, its weights drawn by torch's own generator."""
    return PanopticNetwork(settings, num_things, num_stuff)
